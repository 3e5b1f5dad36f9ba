"""One readable line per call, on the terminal."""

from __future__ import annotations

import os
import shutil
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


_ALIGNED_FROM = 120  # columns of a terminal that has room for a table


class ConsoleMetricsSink(BatchingMetricsSink):
    """A line per call: time, status, provider/model, latency, first token, tokens, dollars, retries, error class.

    On a terminal of 120 columns or more the lines are aligned as a table's are.

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
            aligned = stream.isatty() and shutil.get_terminal_size().columns >= _ALIGNED_FROM
            text = "".join(f"{line(record, color=color, aligned=aligned)}\n" for record in batch)
            encoding = getattr(stream, "encoding", None) or "utf-8"
            stream.write(text.encode(encoding, "replace").decode(encoding))
            stream.flush()
        except (OSError, ValueError):
            return Rejected("stream_closed")
        return Delivered()


def line(record: AgentMetrics, *, color: bool = False, aligned: bool = False) -> str:
    """The line of one record, `aligned` with others as the rows of a table are.

    Texts of a record hold no control characters, so none reaches the terminal.
    """
    good = record.status == "success"
    paint = _GREEN if good else _RED if record.failed else _YELLOW
    cached = f" ({record.cached_tokens:,} cached)" if record.cached_tokens else ""
    about = "~" if record.tokens_estimated else ""
    cells = [
        (_clock(record.timestamp), 8, _DIM if color else ""),
        ("ok" if good else record.status, -12, paint),
        (f"{record.provider}/{record.model}", -36, ""),
        (_milliseconds(record.latency_ms), 9, ""),
        ("" if record.ttft_ms is None else f"ttft {_milliseconds(record.ttft_ms)}", 13, _DIM if color else ""),
        (f"{about}{record.input_tokens:,}{cached} in, {about}{record.output_tokens:,} out", 24, ""),
        ("$?" if record.cost_usd is None else _dollars(record.cost_usd), 9, ""),
        (f"{record.retries:,} {'retry' if record.retries == 1 else 'retries'}" if record.retries else "", 0, _YELLOW),
        (record.error_class or "", 0, paint),
    ]
    if aligned:
        words = [
            (f"{text:>{width}}" if width > 0 else f"{text:<{-width}}", paint) for text, width, paint in cells if width
        ]
        words += [(text, paint) for text, width, paint in cells if text and not width]
        return "  ".join(_painted(text, paint, color=color) for text, paint in words).rstrip()
    plain = [_painted(text, paint, color=color) for text, _, paint in cells if text]
    return " ".join(plain[:2]) + " " + (f" {_DIM}|{_PLAIN} " if color else " | ").join(plain[2:])


def _wants_color(stream: TextIO) -> bool:
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _painted(text: str, paint: str, *, color: bool) -> str:
    return f"{paint}{text}{_PLAIN}" if color and paint else text


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
