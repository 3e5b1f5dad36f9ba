from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given

from tellmeter.cleaning import MAX_INT
from tellmeter.records import AgentMetrics, StreamMetrics
from tellmeter.sinks.clickhouse import rows
from tests.unit.sinks import made
from tests.unit.sinks.made import T0, record


def back(line):
    """The record of a line, as another program's JSON and the reading half have it."""
    found = json.loads(line)
    named = [name.strip() for name in rows.SELECTED.split(",")]
    absent = {"tools_used": [], "tags": {}}
    row = [found.get(name, absent.get(name)) for name in named]
    return rows.record_of(msgspec.json.decode(json.dumps(row), type=rows.Row))


@given(made.records)
def test_any_record_comes_back_from_its_line(row):
    (line,) = rows.lines_of([row], 5)
    assert b"\n" not in line
    assert set(json.loads(line)) <= set(rows.COLUMNS)
    assert back(line) == row


def test_what_is_not_there_is_left_out_and_zeros_are_not():
    (line,) = rows.lines_of([record()], 7)
    found = json.loads(line)
    assert not {"tags", "tools_used", "stream", "stalls"} & set(found)
    assert (found["input_tokens"], found["unix_seconds"], found["cost_usd"]) == (0, T0, None)
    assert "timestamp" not in found  # the server makes it


def test_what_comes_first_precedes():
    lines = rows.lines_of([record(), record(), record()], MAX_INT)
    assert [json.loads(line)["precedence"] for line in lines] == [MAX_INT, MAX_INT - 1, MAX_INT - 2]


def test_a_stream_is_in_columns_and_whole():
    stream = StreamMetrics(time_to_first_token_ms=1.5, stalls=2, raw_chunks=(b"\xff",))
    (line,) = rows.lines_of([record(stream=stream)], 1)
    found = json.loads(line)
    assert (found["time_to_first_token_ms"], found["stalls"], found["time_to_first_chunk_ms"]) == (1.5, 2, None)
    assert msgspec.json.decode(found["stream"], type=StreamMetrics) == stream


def test_every_field_has_a_column():
    assert set(rows.COLUMNS) >= set(AgentMetrics.__struct_fields__)


def test_a_row_changed_by_hand_is_a_decode_error():
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(json.dumps(["x"] * 3), type=rows.Row)
    (line,) = rows.lines_of([record(stream=StreamMetrics())], 1)
    with pytest.raises(msgspec.DecodeError):
        back(line.replace(b'"stream":"{', b'"stream":"[{'))
