import warnings

import pytest

from tellmeter import MetricsConfig, configure
from tellmeter.instruments import functions
from tellmeter.instruments.functions import (
    increment_counter,
    log_counter,
    log_gauge,
    log_histogram,
    observe_histogram,
    set_gauge,
    timeit,
)
from tests.support.metrics import values_of


def test_recording_by_name_on_the_processs_registry(own_process):
    increment_counter("custom_events_total", labels={"type": "user_action"})
    increment_counter("custom_events_total", 2, {"type": "user_action"})
    observe_histogram("processing_time_seconds", 0.234, labels={"operation": "embedding"})
    set_gauge("queue_depth", 7)
    registry = own_process._process_registry
    assert values_of(registry, "custom_events") == {"type=user_action": 3}
    assert registry.get_metric_stats("processing_time_seconds", {"operation": "embedding"})["sum"] == 0.234
    assert values_of(registry, "queue_depth") == {"": 7}


def test_nothing_is_recorded_where_metering_is_switched_off(own_process):
    configure(MetricsConfig(enabled=False))
    increment_counter("c_total")
    observe_histogram("h", 1)
    set_gauge("g", 1)
    assert own_process.get_metrics_registry().families() == []


def test_names_of_before_work_and_say_so_once(own_process, monkeypatch):
    monkeypatch.setattr(functions, "_told", set())
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for _ in range(2):
            log_counter("events_total", labels={"type": "click"})
            log_histogram("duration_seconds", 0.5)
            log_gauge("level", 3)
            assert timeit(len)("abc") == 3
    assert [(one.category, str(one.message).partition(" ")[0], one.filename) for one in told] == [
        (DeprecationWarning, name, __file__) for name in ("log_counter", "log_histogram", "log_gauge", "timeit")
    ]
    registry = own_process._process_registry
    assert values_of(registry, "events") == {"type=click": 2}
    assert registry.get_metric_stats("duration_seconds")["count"] == 2
    assert registry.get_metric_stats("builtins_len_latency_seconds")["count"] == 2
    assert values_of(registry, "level") == {"": 3}


@pytest.mark.parametrize("value", [None, "x", float("nan"), -1])
def test_what_cannot_be_recorded_never_raises(own_process, value):
    increment_counter("c_total", value, 3)
    observe_histogram(None, value)
    set_gauge(3, value, {"a": object()})
