"""trace_llm_calls: a span for every LLM call that this process meters."""

from __future__ import annotations

import logging
from typing import Any

from .. import call
from ..errors import ConfigError
from ..pipeline import lifecycle

logger = logging.getLogger(__name__)

_MODES = ("finished", "live", "off")


def trace_llm_calls(tracer_provider: Any = None, mode: str = "finished") -> None:
    """Have a span for every LLM call, in the trace in which the call began; again, to change how.

    Names and attributes are those of OpenTelemetry's GenAI conventions, kind CLIENT, never with content. One logical
    call is one span, retries included (`tellmeter.retries`). Where the SDK or another instrumentation has a span of
    the same call around it, none is made. The span's sampler decides which are kept: sampling and filters of
    `MetricsConfig` are about records, so that no trace has holes. Where a call began in no span, its record gets the
    ids of its own.

    Call it after the tracer provider is set: the spans of the last calls are then made before that shuts down at the
    exit. `collector.flush_sync()`, before the provider's `force_flush()`, makes those of all calls that have ended.

    Args:
        tracer_provider: where the spans go; the global provider without one.
        mode: "finished" makes the span of the finished record, which costs the caller nothing. "live" begins
            it with the request, so that spans of what sends it, as an instrumentation of httpx, are inside. "off"
            makes no more.

    Raises:
        ConfigError: another mode.
    """
    if mode not in _MODES:
        raise ConfigError(f"mode = {mode!r}: it must be {', '.join(_MODES)}")
    call.new_span = None
    if mode == "off":
        return
    try:
        from .call_spans import new_spans
    except ImportError:
        logger.warning("LLM calls get no spans without OpenTelemetry: pip install 'tellmeter[otel]'")
        return
    call.new_span = new_spans(tracer_provider, live=mode == "live")
    lifecycle.exit_first()
