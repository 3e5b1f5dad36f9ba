"""Summaries as a table for people: one row per model (or whatever is asked for), and a total."""

from __future__ import annotations

import sys
from collections.abc import Container
from itertools import compress
from typing import TYPE_CHECKING, TextIO

from ..records import MetricsSummary
from .stores import Answers

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_COLUMNS = ("calls", "errors", "retries", "p50", "p95", "TTFT", "in", "cached", "out", "cost")
_LEAVE_OUT = ("cached", "retries", "TTFT", "p50", "in", "out")  # in this order
_MIN_NAME = 12
# A pipe or file has no width of its own; nothing is cut there.
_WIDE = 200


def print_table(answers: Answers, by: str, *, title: str = "", to: TextIO | None = None) -> None:
    """Print the table, in colours where `to` (standard output without one) is a terminal."""
    console = console_for(to or sys.stdout)
    console.print(table(answers, by, console, title=title))
    for note in notes(answers.total):
        console.print(note, style="dim", highlight=False)


def console_for(to: TextIO) -> Console:
    """A console that writes to `to`; wide where that is no terminal."""
    from rich.console import Console

    return Console(file=to, width=None if to.isatty() else _WIDE, highlight=False, markup=False, emoji=False)


def table(answers: Answers, by: str, console: Console, *, title: str = "") -> Table:
    """The table itself, for a console or a live display; without the columns that a narrow terminal has no room for."""
    from rich.measure import Measurement

    unbounded = console.options.update(max_width=10_000)
    for number in range(len(_LEAVE_OUT) + 1):
        made = _table(answers, by, title, _LEAVE_OUT[:number])
        if Measurement.get(console, unbounded, made).minimum <= console.width:
            break
    return made


def _table(answers: Answers, by: str, title: str, left_out: Container[str]) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    made = Table(
        title=Text(title) if title else None,
        title_justify="left",
        title_style="bold",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    longest = max(map(len, answers), default=0)
    made.add_column(by.removeprefix("tag:"), overflow="fold", min_width=min(longest, _MIN_NAME))
    shown = [name not in left_out for name in _COLUMNS]
    for name in compress(_COLUMNS, shown):
        made.add_column(name, justify="right", no_wrap=True)
    for value, summary in answers.items():
        made.add_row(Text(value), *compress(_cells(summary), shown))
    if len(answers) != 1:
        made.add_section()
        made.add_row(Text("total", style="bold"), *compress(_cells(answers.total), shown))
    return made


def notes(total: MetricsSummary) -> list[str]:
    """What the table cannot say."""
    if not total.unpriced:
        return []
    calls = "1 call has" if total.unpriced == 1 else f"{total.unpriced:,} calls have"
    return [f"+?: {calls} no known price"]


def line(total: MetricsSummary) -> str:
    """The total in one line, for a log."""
    calls, errors, retries, p50, p95, ttft, tokens_in, _, tokens_out, cost = _cells(total)
    return (
        f"{calls} calls, {errors} errors, {retries} retries, p50 {p50}, p95 {p95}, TTFT {ttft},"
        f" {tokens_in} tokens in, {tokens_out} out, {cost}"
    )


def duration(milliseconds: float | None) -> str:
    """Three digits and a unit."""
    if milliseconds is None:
        return "-"
    if milliseconds < 9.995:
        return f"{milliseconds:.2f} ms"
    if milliseconds < 999.5:
        return f"{milliseconds:.0f} ms"
    if milliseconds < 99_950:
        return f"{milliseconds / 1000:.3g} s"
    minutes, seconds = divmod(round(milliseconds / 1000), 60)
    return f"{minutes}m{seconds:02}s"


def tokens(number: int) -> str:
    """Exact up to 9,999, then three digits and k, M or G."""
    if number < 10_000:
        return f"{number:,}"
    for unit, size in (("k", 1e3), ("M", 1e6)):
        if number < 999.5 * size:
            return f"{number / size:.3g}{unit}"
    return f"{number / 1e9:,.2f}G"


def dollars(summary: MetricsSummary) -> str:
    """US dollars; `+?` where some calls have no known price, `?` where none has."""
    if summary.unpriced and summary.unpriced == summary.count:
        return "?"
    digits = 2 if summary.total_cost >= 100 else 4 if summary.total_cost >= 0.001 or not summary.total_cost else 6
    return f"${summary.total_cost:,.{digits}f}" + ("+?" if summary.unpriced else "")


def _cells(summary: MetricsSummary) -> list[str]:
    return [
        f"{summary.count:,}",
        f"{summary.error_count:,}",
        f"{summary.retries:,}",
        duration(summary.p50_latency_ms) if summary.count else "-",
        duration(summary.p95_latency_ms) if summary.count else "-",
        duration(summary.p50_ttft_ms),
        tokens(summary.input_tokens),
        tokens(summary.cached_tokens),
        tokens(summary.output_tokens),
        dollars(summary),
    ]
