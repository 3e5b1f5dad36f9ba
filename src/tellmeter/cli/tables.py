"""Summaries as a table for people: one row per model (or whatever is asked for), and a total."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, TextIO

from ..records import MetricsSummary
from .stores import Answers

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

# A pipe or file has no width of its own; nothing is cut there.
_WIDE = 200


def print_table(answers: Answers, by: str, *, title: str = "", to: TextIO | None = None) -> None:
    """Print the table, in colours where `to` (standard output without one) is a terminal."""
    console = console_for(to or sys.stdout)
    console.print(table(answers, by, title=title))
    for note in notes(answers.total):
        console.print(note, style="dim", highlight=False)


def console_for(to: TextIO) -> Console:
    """A console that writes to `to`; wide where that is no terminal."""
    from rich.console import Console

    return Console(file=to, width=None if to.isatty() else _WIDE, highlight=False, markup=False, emoji=False)


def table(answers: Answers, by: str, *, title: str = "") -> Table:
    """The table itself, for a console or a live display."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    made = Table(
        title=Text(title) if title else None, title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False
    )
    made.add_column(by.removeprefix("tag:"), overflow="fold")
    for name in ("calls", "errors", "retries", "p50", "p95", "TTFT", "in", "cached", "out", "cost"):
        made.add_column(name, justify="right", no_wrap=True)
    for value, summary in answers.items():
        made.add_row(Text(value), *_cells(summary))
    if len(answers) != 1:
        made.add_section()
        made.add_row(Text("total", style="bold"), *_cells(answers.total))
    return made


def notes(total: MetricsSummary) -> list[str]:
    """What the table cannot say."""
    if not total.unpriced:
        return []
    calls = "1 call has" if total.unpriced == 1 else f"{total.unpriced:,} calls have"
    return [f"+?: {calls} no known price"]


def line(total: MetricsSummary) -> str:
    """The total in one line, for a log."""
    calls, errors, retries, p50, p95, ttft, tokens_in, _, tokens_out, cost = (str(cell) for cell in _cells(total))
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


def dollars(summary: MetricsSummary) -> str:
    """US dollars; `+?` where some calls have no known price, `?` where none has."""
    if summary.unpriced and summary.unpriced == summary.count:
        return "?"
    digits = 2 if summary.total_cost >= 100 else 4 if summary.total_cost >= 0.01 or not summary.total_cost else 6
    return f"${summary.total_cost:,.{digits}f}" + ("+?" if summary.unpriced else "")


def _cells(summary: MetricsSummary) -> list[str]:
    return [
        f"{summary.count:,}",
        f"{summary.error_count:,}",
        f"{summary.retries:,}",
        duration(summary.p50_latency_ms) if summary.count else "-",
        duration(summary.p95_latency_ms) if summary.count else "-",
        duration(summary.p50_ttft_ms),
        f"{summary.input_tokens:,}",
        f"{summary.cached_tokens:,}",
        f"{summary.output_tokens:,}",
        dollars(summary),
    ]
