"""watch(): a stream that begins is watched as its options say."""

from __future__ import annotations

import time

from ..config import MetricsConfig
from .events import anybody
from .meter import StreamMeter
from .options import StreamOptions, merged, of_config
from .running import Running, Streamed
from .timer import TIMER

clock = time.perf_counter_ns


def watch(call: Streamed, meter: StreamMeter, config: MetricsConfig, *layers: StreamOptions | None) -> Running | None:
    """Watch a stream as `config` and each of `layers` say, the later ones before the others; None for no reports."""
    options = of_config(config)
    if any(layers):
        options = merged(options, *layers)
    if not options.enabled:
        meter.wanted = False
        return None
    meter.stall_after = int((options.stall_after_ms or 0) * 1_000_000)
    if options.include_raw_chunks and (options.callback is not None or anybody("stream.complete", "stream.error")):
        meter.raw = []
    running = Running(call, meter, options)
    meter.stream_id = meter.stream_id  # made now, before two threads ask for it
    if running.is_told("stream.first_token"):
        meter.first_content = lambda: TIMER.watch(running, 0)
    if due := running.first_look(clock()):
        TIMER.watch(running, due)
    return running
