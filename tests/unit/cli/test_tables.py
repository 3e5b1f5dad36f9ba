import io

import pytest

from tellmeter import MetricsSummary
from tellmeter.cli.stores import Answers
from tellmeter.cli.tables import dollars, duration, line, notes, print_table, table, tokens


def answers(**groups):
    found = Answers(groups)
    found.total = MetricsSummary(count=sum(one.count for one in groups.values()), total_cost=1.5)
    return found


def printed(found, by="model", **options):
    to = io.StringIO()
    print_table(found, by, to=to, **options)
    return to.getvalue()


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        (None, "-"),
        (0, "0.00 ms"),
        (1.234, "1.23 ms"),
        (9.99, "9.99 ms"),
        (9.996, "10 ms"),
        (812.4, "812 ms"),
        (999.4, "999 ms"),
        (999.6, "1 s"),
        (1234, "1.23 s"),
        (59_940, "59.9 s"),
        (99_900, "99.9 s"),
        (99_960, "1m40s"),
        (3_725_000, "62m05s"),
    ],
)
def test_durations_have_three_digits_and_a_unit(milliseconds, text):
    assert duration(milliseconds) == text


@pytest.mark.parametrize(
    ("summary", "text"),
    [
        (MetricsSummary(count=1), "$0.0000"),
        (MetricsSummary(count=1, total_cost=0.000123), "$0.000123"),
        (MetricsSummary(count=1, total_cost=0.0123), "$0.0123"),
        (MetricsSummary(count=1, total_cost=1234.5), "$1,234.50"),
        (MetricsSummary(count=3, total_cost=0.5, unpriced=1), "$0.5000+?"),
        (MetricsSummary(count=3, unpriced=3), "?"),
    ],
)
def test_dollars_say_what_is_unknown(summary, text):
    assert dollars(summary) == text


def test_one_row_per_value_and_a_total():
    text = printed(answers(**{"gpt-4o": MetricsSummary(count=2), "claude": MetricsSummary(count=1)}), title="calls")
    rows = [row.split()[:2] for row in text.splitlines() if row.split()]
    assert rows[0] == ["calls"]
    assert [row for row in rows if row[0] in {"gpt-4o", "claude", "total"}] == [
        ["gpt-4o", "2"],
        ["claude", "1"],
        ["total", "3"],
    ]


def test_one_value_needs_no_total():
    assert "total" not in printed(answers(only=MetricsSummary(count=2)))


def test_what_a_value_looks_like_changes_nothing():
    hostile = ["[red]x[/red]", ":smile:", "m" * 300]
    text = printed(answers(**{name: MetricsSummary(count=1) for name in hostile}), by="tag:user")
    assert "[red]x[/red]" in text
    assert ":smile:" in text
    assert text.count("m") >= 300  # folded, not cut


def test_no_colours_in_a_file():
    assert "\x1b" not in printed(answers(only=MetricsSummary(count=2)))


def test_notes_tell_of_unknown_prices():
    assert notes(MetricsSummary(count=2)) == []
    assert notes(MetricsSummary(count=2, unpriced=1)) == ["+?: 1 call has no known price"]
    assert notes(MetricsSummary(count=2000, unpriced=2000)) == ["+?: 2,000 calls have no known price"]


def test_the_total_in_one_line():
    total = MetricsSummary(
        count=1200, error_count=3, retries=2, p50_latency_ms=250.0, p95_latency_ms=900.0, total_cost=0.25
    )
    assert line(total) == (
        "1,200 calls, 3 errors, 2 retries, p50 250 ms, p95 900 ms, TTFT -, 0 tokens in, 0 out, $0.2500"
    )
    assert line(MetricsSummary()).startswith("0 calls")


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (9_999, "9,999"),
        (10_000, "10k"),
        (57_351, "57.4k"),
        (999_499, "999k"),
        (999_500, "1M"),
        (2.5e9, "2.50G"),
    ],
)
def test_tokens_are_exact_or_three_digits(number, text):
    assert tokens(int(number)) == text


@pytest.mark.parametrize("width", [50, 60, 80, 100, 120])
def test_a_narrow_terminal_has_fewer_columns_but_whole_ones(width):
    from rich.console import Console

    summary = MetricsSummary(
        count=33, p50_latency_ms=839.0, p95_latency_ms=2230.0, p50_ttft_ms=475.0, total_cost=0.123456
    )
    found = answers(**{"text-embedding-3-small": summary, "gpt": summary})
    console = Console(width=width, file=io.StringIO())
    console.print(table(found, "model", console))
    text = console.file.getvalue()
    assert "\u2026" not in text
    assert max(map(len, text.splitlines())) <= width
    assert [name in text for name in ("model", "calls", "errors", "p95", "cost", "$0.1235")] == [True] * 6
    assert ("cached" in text) == (width >= 100)
