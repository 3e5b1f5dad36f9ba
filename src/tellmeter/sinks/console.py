"""One readable line per call, on the terminal."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from typing import TextIO

from ..errors import ConfigError
from ..pipeline.outcome import Delivered, Outcome, Rejected
from ..records import AgentMetrics
from .address import flag, parse
from .base import BatchingMetricsSink

_GREEN, _RED, _YELLOW, _DIM, _PLAIN = "\x1b[32m", "\x1b[31m", "\x1b[33m", "\x1b[2m", "\x1b[0m"


class ConsoleMetricsSink(BatchingMetricsSink):
    """A line per call: time, status, provider/model, latency, first token, tokens, dollars, retries, error class.

    Args:
        stream: where to print; standard error without one, whichever that is at the time.
        color: True or False; without it, colours on a terminal unless `NO_COLOR` is set.
    """

    spools = False  # nobody waits for the lines of a program that has ended

    def __init__(self, stream: TextIO | None = None, color: bool | None = None) -> None:
        super().__init__()
        self._stream = stream
        self._color = color

    @classmethod
    def from_url(cls, url: str) -> ConsoleMetricsSink:
        """`console:`, with the option `color` (true or false)."""
        address = parse(url)
        if address.location not in ("", "//"):
            raise ConfigError(f"{address.shown}: console: has no place; write console: or console:?color=false")
        return cls(**address.read(color=flag))

    def send(self, batch: Sequence[AgentMetrics], deadline: float) -> Outcome:
        """Print the batch with one write; a stream that is closed rejects it."""
        stream = sys.stderr if self._stream is None else self._stream
        if stream is None:  # a program without a console
            return Rejected("stream_closed")
        try:
            color = _wants_color(stream) if self._color is None else self._color
            text = "".join(f"{line(record, color=color)}\n" for record in batch)
            encoding = getattr(stream, "encoding", None) or "utf-8"
            stream.write(text.encode(encoding, "replace").decode(encoding))
            stream.flush()
        except (OSError, ValueError):
            return Rejected("stream_closed")
        return Delivered()


def line(record: AgentMetrics, *, color: bool = False) -> str:
    """The line of one record. Texts of a record hold no control characters, so none reaches the terminal."""
    good = record.status == "success"
    words = [
        _clock(record.timestamp),
        _painted("ok" if good else record.status, _GREEN if good else _RED if record.failed else _YELLOW, color=color),
        f"{record.provider}/{record.model}",
        _milliseconds(record.latency_ms),
    ]
    if record.ttft_ms is not None:
        words.append(f"ttft {_milliseconds(record.ttft_ms)}")
    cached = f" ({record.cached_tokens:,} cached)" if record.cached_tokens else ""
    estimated = "~" if record.tokens_estimated else ""
    words.append(f"{estimated}{record.input_tokens:,}{cached} in, {estimated}{record.output_tokens:,} out")
    words.append("$?" if record.cost_usd is None else _dollars(record.cost_usd))
    if record.retries:
        words.append("1 retry" if record.retries == 1 else f"{record.retries:,} retries")
    if record.error_class is not None:
        words.append(_painted(record.error_class, _RED if record.failed else _YELLOW, color=color))
    between = f" {_DIM}|{_PLAIN} " if color else " | "
    return " ".join(words[:2]) + " " + between.join(words[2:])


def _wants_color(stream: TextIO) -> bool:
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _painted(text: str, paint: str, *, color: bool) -> str:
    return f"{paint}{text}{_PLAIN}" if color else text


def _clock(timestamp: float) -> str:
    try:
        return time.strftime("%H:%M:%S", time.localtime(timestamp))
    except (OverflowError, OSError, ValueError):  # beyond what the system's calendar knows
        return "--:--:--"


def _milliseconds(value: float) -> str:
    return f"{value:.0f} ms" if value < 10_000 else f"{value / 1000:,.1f} s"


def _dollars(value: float) -> str:
    """Cents for dollars, four digits that count for parts of a cent."""
    if value >= 1:
        return f"${value:,.2f}"
    return f"${value:.4f}" if value >= 0.001 or value == 0 else f"${value:.2g}"
