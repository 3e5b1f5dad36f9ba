"""The Grafana dashboards that come with tellmeter, as JSON. `tools/grafana.py` makes them; do not edit them."""
