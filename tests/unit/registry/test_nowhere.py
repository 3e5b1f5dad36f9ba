from tellmeter import MetricsRegistry
from tellmeter.registry.nowhere import NO_GAUGE, NO_HISTOGRAM


def test_what_has_no_place_is_recorded_nowhere_and_stays_small():
    registry = MetricsRegistry()
    registry.increment("jobs")
    for _ in range(1000):
        with registry.timer("jobs"), registry.recorders.active("jobs"):
            pass
    assert len(NO_HISTOGRAM.pending) <= 65 and len(NO_GAUGE.state) <= 65
    assert b"nowhere" not in registry.text()
    assert registry.get_metric_stats("jobs")["sum"] == 1
