"""The dashboards import as they are, and are what tools/grafana.py makes."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tellmeter.errors import ConfigError
from tellmeter.registry.catalogue import CATALOGUE
from tellmeter.serve.dashboards import dashboard, dashboards, names

ROOT = Path(__file__).parents[3]
SHIPPED = ROOT / "src" / "tellmeter" / "serve" / "grafana"
NAMES = ["cost", "overview", "reliability", "streams", "tellmeter"]
# What Grafana fills in, beside the variables of the dashboard.
MACROS = {"__rate_interval", "__range"}
WORDS = {"sum", "by", "rate", "increase", "histogram_quantile", "max", "min", "or", "sort_desc", "le"}


def shown(name):
    return json.loads(dashboard(name))


def panels(name):
    return [panel for panel in shown(name)["panels"] if panel["type"] != "row"]


def test_there_is_one_of_each():
    assert names() == NAMES
    assert [name for name, _ in dashboards()] == NAMES
    assert {name: head.title for name, head in dashboards()} == {name: shown(name)["title"] for name in NAMES}
    with pytest.raises(ConfigError, match="there is no dashboard costs; there are cost, overview, reliability,"):
        dashboard("costs")
    with pytest.raises(ConfigError, match="there is no dashboard"):
        dashboard("../grafana/cost")


def test_making_them_again_changes_nothing(tmp_path):
    if importlib.util.find_spec("grafana_foundation_sdk") is None:
        told = "grafana-foundation-sdk is not installed"
        if os.environ.get("CI"):
            pytest.fail(told)
        pytest.skip(told)
    (tmp_path / "old.json").write_text("{}")
    subprocess.run([sys.executable, ROOT / "tools" / "grafana.py", tmp_path], check=True)
    made = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert made == {path.name: path.read_bytes() for path in SHIPPED.glob("*.json")}


@pytest.mark.parametrize("name", NAMES)
def test_it_imports_wherever_it_is(name):
    board = shown(name)
    assert board["uid"] == f"tellmeter-{name}"
    assert board["schemaVersion"] >= 36
    assert "id" not in board and "__inputs" not in board
    variables = {variable["name"]: variable for variable in board["templating"]["list"]}
    assert (variables["DS"]["type"], variables["DS"]["query"]) == ("datasource", "prometheus")
    assert list(variables)[1:3] == ["job", "instance"]
    source = {"type": "prometheus", "uid": "${DS}"}
    asked = [*panels(name), *(target for panel in panels(name) for target in panel["targets"])]
    asked += [variable for variable in variables.values() if variable["type"] == "query"]
    assert [one for one in asked if one["datasource"] != source] == []
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(board)))
    assert used - MACROS <= {*variables, "__all"}
    assert {*variables} - {"DS"} <= used  # none that changes nothing


@pytest.mark.parametrize("name", NAMES)
def test_panels_say_what_they_show_and_do_not_overlap(name):
    every = shown(name)["panels"]
    ids = [panel["id"] for panel in every]
    assert len(set(ids)) == len(ids)
    cells = [
        (x, y)
        for panel in every
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24
    for panel in panels(name):
        assert panel["title"] and panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["options"]
        letters = [target["refId"] for target in panel["targets"]]
        assert letters == list("ABCDEFGH"[: len(letters)])
        assert all(target["instant"] is not target["range"] for target in panel["targets"])


def test_queries_ask_only_for_metrics_that_there_are():
    known = {"up", "scrape_duration_seconds", "scrape_samples_scraped"}
    for definition in CATALOGUE:
        parts = ("_bucket", "_sum", "_count") if definition.type == "histogram" else ("",)
        known |= {f"{definition.exposed}{part}" for part in parts}
    source = "\n".join(path.read_text("utf-8") for path in (ROOT / "src").rglob("*.py"))
    for name in NAMES:
        for panel in panels(name):
            for target in panel["targets"]:
                for metric in re.findall(r"(\w+)\{", re.sub(r"\{[^}$]*\$\{", "", target["expr"])):
                    if metric.startswith("tellmeter_"):
                        counted = re.sub(r"^tellmeter_|_total$", "", metric)
                        assert metric in source or f'"{counted}"' in source, metric
                    else:
                        assert metric in known, metric
                assert (
                    "[$__rate_interval]" in target["expr"]
                    or "rate(" not in target["expr"]
                    or "[$__range]" in target["expr"]
                )


def test_the_overview_has_every_panel_of_the_guides():
    titles = {panel["title"] for panel in panels("overview")}
    framework = {
        "Request rate", "Error rate", "Latency", "Active requests", "Token usage", "Cache hit rate",
        "Bedrock invocations", "Database query time",
    }  # fmt: skip
    module = {
        "HTTP requests",
        "HTTP 5xx",
        "HTTP latency",
        "LLM cost",
        "RAG queries",
        "Embeddings",
        "CPU",
        "Memory",
        "Disk",
    }
    assert framework | module <= titles
    queries = {panel["title"]: [target["legendFormat"] for target in panel["targets"]] for panel in panels("overview")}
    assert queries["Latency"] == ["P50", "P95", "P99"]
    assert [legend.split()[0] for legend in queries["Token usage"]] == ["avg", "max"]
