from __future__ import annotations

from typing import Any

from tellmeter import MetricsConfig, StreamOptions, on
from tellmeter.streams.watching import watch
from tests.unit.streams.made import MS, Asked, stream


def begun(config: MetricsConfig, *layers: StreamOptions | None) -> tuple[Any, Any]:
    _, meter, call = stream(Asked(recorded=False))
    return watch(call, meter, config, *layers), meter


def show(report: object) -> None: ...


def test_stalls_are_watched_for_without_being_asked() -> None:
    running, meter = begun(MetricsConfig())
    assert (meter.stall_after, meter.raw, meter.first_content, meter.wanted) == (10_000 * MS, None, None, True)
    assert running.due == 0 or running.due >= meter.started


def test_the_layers_count_over_the_process() -> None:
    config = MetricsConfig(stream_callback=show, stall_after_ms=5000)
    _, meter = begun(config, None, StreamOptions(stall_after_ms=200), StreamOptions(include_raw_chunks=True))
    assert (meter.stall_after, meter.raw) == (200 * MS, [])
    assert meter.first_content is not None


def test_raw_chunks_are_kept_only_where_somebody_gets_them() -> None:
    options = StreamOptions(include_raw_chunks=True)
    assert begun(MetricsConfig(), options)[1].raw is None
    off = on("stream.complete", show)
    try:
        assert begun(MetricsConfig(), options)[1].raw == []
    finally:
        off()


def test_a_stream_that_is_not_to_be_metered_is_not_watched() -> None:
    running, meter = begun(MetricsConfig(stream_callback=show, enable_streaming_metrics=False))
    assert running is None and not meter.wanted
    running, meter = begun(MetricsConfig(stream_callback=show), StreamOptions(enabled=False))
    assert running is None and not meter.wanted
    running, meter = begun(MetricsConfig(enable_streaming_metrics=False), StreamOptions(enabled=True))
    assert running is not None and meter.wanted


def test_without_anything_to_watch_for_no_timer_is_started() -> None:
    running, _ = begun(MetricsConfig(stall_after_ms=0))
    assert running.due == 0
