from __future__ import annotations

import io
import re
import sys
from pathlib import Path

import pytest
from hypothesis import given

from tellmeter.errors import ConfigError
from tellmeter.pipeline.outcome import Delivered, Rejected
from tellmeter.records import StreamMetrics
from tellmeter.sinks.console import ConsoleMetricsSink, line
from tests.unit.sinks import made
from tests.unit.sinks.made import deadline, python, record


class Terminal(io.StringIO):
    def isatty(self):
        return True


def after_clock(text):
    assert re.match(r"\d\d:\d\d:\d\d ", text)
    return text[9:]


def test_a_plain_call_is_one_line():
    one = record(latency_ms=812.4, input_tokens=1234, output_tokens=56, cost_usd=0.00123)
    assert after_clock(line(one)) == "ok openai/gpt-4o | 812 ms | 1,234 in, 56 out | $0.0012"


def test_a_line_says_all_that_is_known():
    one = record(
        latency_ms=12_345.0,
        status="error",
        error_class="RateLimitError",
        input_tokens=2000,
        cached_tokens=1500,
        output_tokens=7,
        tokens_estimated=True,
        cost_usd=None,
        retries=2,
        stream=StreamMetrics(time_to_first_token_ms=321.0),
    )
    assert after_clock(line(one)) == (
        "error openai/gpt-4o | 12.3 s | ttft 321 ms | ~2,000 (1,500 cached) in, ~7 out"
        " | $? | 2 retries | RateLimitError"
    )
    assert "| 1 retry" in line(record(retries=1))


@pytest.mark.parametrize(
    ("cost", "shown"), [(0.0, "$0.0000"), (1234.5, "$1,234.50"), (0.05, "$0.0500"), (0.0000123, "$1.2e-05")]
)
def test_dollars(cost, shown):
    assert line(record(cost_usd=cost)).endswith(shown)


def test_a_time_beyond_the_calendar_does_not_raise():
    assert line(record(timestamp=1e300)).startswith("--:--:-- ok")


def test_colours_only_on_a_terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    plain, terminal = io.StringIO(), Terminal()
    for stream in (plain, terminal):
        assert ConsoleMetricsSink(stream).send([record()], deadline()) == Delivered()
    assert "\x1b" not in plain.getvalue()
    assert "\x1b[32mok\x1b[0m" in terminal.getvalue()


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_no_colours_where_they_are_not_wanted(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    stream = Terminal()
    ConsoleMetricsSink(stream).send([record(status="error")], deadline())
    assert "\x1b" not in stream.getvalue()


def test_the_argument_wins_over_the_terminal():
    stream = io.StringIO()
    ConsoleMetricsSink(stream, color=True).send([record(status="cancelled", error_class="CancelledError")], deadline())
    assert "\x1b[33mcancelled\x1b[0m" in stream.getvalue()
    terminal = Terminal()
    ConsoleMetricsSink(terminal, color=False).send([record()], deadline())
    assert "\x1b" not in terminal.getvalue()


def test_standard_error_is_whichever_it_is_at_the_time(capsys):
    sink = ConsoleMetricsSink()
    sink.send([record(), record()], deadline())
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 2


def test_a_closed_stream_rejects():
    stream = io.StringIO()
    stream.close()
    assert ConsoleMetricsSink(stream).send([record()], deadline()) == Rejected("stream_closed")


def test_a_program_without_a_console_rejects(monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    assert ConsoleMetricsSink().send([record()], deadline()) == Rejected("stream_closed")


def test_a_reader_that_went_away_rejects():
    code = """
import os, sys
from tellmeter.sinks.console import ConsoleMetricsSink
from tests.unit.sinks.made import deadline, record
reading, writing = os.pipe()
os.close(reading)
stream = os.fdopen(writing, "w")
for _ in range(2):
    print(ConsoleMetricsSink(stream).send([record()] * 500, deadline()))
os._exit(0)
"""
    answer = python(code.replace("os._exit(0)", "sys.stdout.flush(); os._exit(0)"))
    assert answer.stdout.splitlines() == ["Rejected(reason='stream_closed')"] * 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_rejects():
    with Path("/dev/full").open("w", encoding="utf-8", buffering=1) as stream:
        assert ConsoleMetricsSink(stream).send([record()], deadline()) == Rejected("stream_closed")
        with pytest.raises(OSError):
            stream.close()


def test_a_terminal_of_few_letters_gets_question_marks():
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    assert ConsoleMetricsSink(stream).send([record(model="日本-model")], deadline()) == Delivered()
    assert b"openai/??-model" in raw.getvalue()


@given(made.records)
def test_any_record_is_one_line_without_control_characters(one):
    text = line(one)
    assert text.isprintable() or not any(ord(letter) < 32 for letter in text)
    assert "\n" not in text


def test_a_url_sets_the_colour():
    assert ConsoleMetricsSink.from_url("console:?color=false")._color is False
    assert ConsoleMetricsSink.from_url("console://")._color is None
    with pytest.raises(ConfigError, match="has no place"):
        ConsoleMetricsSink.from_url("console:///dev/stdout")


def test_aligned_lines_have_their_columns_at_the_same_place() -> None:
    rows = [
        record(latency_ms=8.0, input_tokens=1, cost_usd=0.0004),
        record(latency_ms=12_345.0, input_tokens=12_000, output_tokens=999, cost_usd=12.5, retries=1),
        record(model="m", status="error", error_class="RateLimitError"),
    ]
    lines = [line(row, aligned=True) for row in rows]
    assert len({text.index(" in, ") + len(text.split(" in, ")[1].split(" out")[0]) for text in lines}) == 1
    assert len({text.index("openai/") for text in lines}) == 1
    assert lines[1].endswith("$12.50  1 retry") and lines[2].endswith("RateLimitError")
