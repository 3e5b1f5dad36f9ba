from __future__ import annotations

import time

from tellmeter import MetricsCollector, MetricsRegistry, counts, tags
from tellmeter.live import in_progress, running_streams, settle_callbacks
from tellmeter.streams import callbacks
from tellmeter.streams.meter import StreamMeter
from tests.unit.streams.made import Bytes


def collector() -> MetricsCollector:
    return MetricsCollector(registry=MetricsRegistry())


def test_calls_and_streams_are_counted_by_their_labels() -> None:
    one = collector()
    with tags(feature="search"):
        calls = [one.track_request("openai", "m"), one.track_request("openai", "m", method="stream")]
    calls.append(one.track_request("anthropic", "c"))
    requests, streams = in_progress(calls, {"team": "a", "feature": "none"}, ["feature", "team"])
    assert requests == {("openai", "m", "search", "a"): 2, ("anthropic", "c", "none", "a"): 1}
    assert streams == {("openai", "m", "search", "a"): 1}
    for call in calls:
        call.discard()


def test_running_streams_are_told_oldest_first_with_their_tags() -> None:
    one = collector()
    with tags(feature="search"):
        first, second, plain = (one.track_request("openai", name, method="stream") for name in "abc")
    for call, wall in ((first, 20.0), (second, 10.0)):
        call.watch(StreamMeter(Bytes(), time.perf_counter_ns(), wall))
    found = one.active_streams()
    assert [(report.model, report.start_time, report.tags) for report in found] == [
        ("b", 10_000.0, {"feature": "search"}),
        ("a", 20_000.0, {"feature": "search"}),
    ]
    assert {report.status for report in found} == {"pending"}
    for call in (first, second, plain):
        call.end()
    assert one.active_streams() == []
    one.shutdown_sync()


def test_a_call_that_cannot_be_read_is_counted_and_left_out() -> None:
    one = collector()
    call = one.track_request("openai", "m", method="stream")
    call.meter = object()  # type: ignore[assignment]
    before = counts.snapshot().get("guarded_errors", {}).get("stream", 0)
    assert running_streams([call], {}) == []
    assert counts.snapshot()["guarded_errors"]["stream"] == before + 1
    call.discard()


def test_callbacks_are_waited_for(monkeypatch) -> None:
    deadlines: list[float] = []
    monkeypatch.setattr(callbacks, "settle", deadlines.append)
    settle_callbacks(5.0)
    settle_callbacks(time.monotonic() + 3600)
    assert deadlines[0] == 5.0
    assert deadlines[1] <= time.monotonic() + 1.0  # one that hangs does not make every flush wait
