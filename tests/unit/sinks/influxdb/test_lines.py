"""Lines are read back by a strict parser, and are the ones that the vendor's encoder makes."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from influxdb_client import Point

from tellmeter import counts
from tellmeter.cleaning import MAX_INT
from tellmeter.errors import ConfigError
from tellmeter.records import AgentMetrics, StreamMetrics
from tellmeter.sinks.influxdb.lines import FIELDS, TAGS, Lines, nanoseconds
from tests.support.influxdb import record_of
from tests.support.line_protocol import points
from tests.support.varied import varied
from tests.unit.sinks import made
from tests.unit.sinks.made import T0, record

LINES = Lines("llm_request", ("feature",))


def read(*batch, lines=LINES):
    return points("\n".join(lines.encode(batch)))


def as_kept(one: AgentMetrics) -> AgentMetrics:
    """What InfluxDB keeps of a record: no backslash in tags, no raw chunks, no empty tag of an optional field."""
    changed = {name: value.replace("\\", "/") for name in TAGS if (value := getattr(one, name))}
    if one.stream is not None:
        changed["stream"] = msgspec.structs.replace(one.stream, raw_chunks=None)
    return msgspec.structs.replace(one, **changed)


@given(st.lists(made.records, max_size=5))
def test_any_record_comes_back_from_its_line(batch):
    found = read(*batch) if batch else []
    assert [record_of({**point.tags, **point.fields}) for point in found] == [as_kept(one) for one in batch]


def test_many_hard_records_come_back():
    batch = varied(2000)
    found = read(*batch)
    assert [record_of({**point.tags, **point.fields}) for point in found] == [as_kept(one) for one in batch]


@given(made.records)
def test_a_line_is_that_of_the_vendors_encoder(one):
    (line,) = Lines("llm_request", ()).encode([one])
    (point,) = points(line)
    theirs = Point(point.measurement).time(point.time)
    for name, value in point.tags.items():
        theirs.tag(name, value)
    for name, value in point.fields.items():
        theirs.field(name, value)
    assert points(theirs.to_line_protocol()) == [point]


@given(st.lists(made.records, min_size=2, max_size=6))
def test_a_field_has_one_type_for_ever(batch):
    types: dict[str, type] = {}
    for point in read(*batch):
        for name, value in point.fields.items():
            assert types.setdefault(name, type(value)) is type(value)
            assert name in FIELDS


def test_whole_floats_stay_floats_and_zeros_are_there():
    (line,) = LINES.encode([record(latency_ms=100, cost_usd=0)])
    assert " latency_ms=100.0," in line
    (point,) = points(line)
    assert (point.fields["cost_usd"], type(point.fields["cost_usd"])) == (0.0, float)
    assert point.fields["retries"] == 0
    assert point.fields["tokens_estimated"] is False
    assert "status_code" not in point.fields


def test_the_names_of_older_queries_are_there():
    (point,) = read(record(input_tokens=3, output_tokens=4, cached_tokens=1, retries=2, error_class="RateLimitError"))
    assert point.measurement == "llm_request"
    assert point.tags | {"feature": ""} == {
        "provider": "openai",
        "model": "gpt-4o",
        "status": "error",
        "operation": "chat",
        "method": "generate",
        "error_class": "RateLimitError",
        "error": "RateLimitError",
        "feature": "",
    }
    names = ("prompt_tokens", "completion_tokens", "total_tokens", "cached_tokens", "retries", "latency_ms")
    assert [point.fields[name] for name in names] == [3, 4, 7, 1, 2, 0.0]


def test_a_total_that_is_no_int64_is_the_largest():
    (point,) = read(record(input_tokens=MAX_INT, output_tokens=MAX_INT))
    assert point.fields["total_tokens"] == MAX_INT


def test_chosen_tags_are_tags_and_all_tags_are_a_field():
    (point,) = read(record(tags={"feature": "a, b=c", "team": 'x"y'}))
    assert point.tags["feature"] == "a, b=c"
    assert "team" not in point.tags
    assert json.loads(point.fields["tags"]) == {"feature": "a, b=c", "team": 'x"y'}
    (point,) = read(record(tags={"feature": ""}))
    assert "feature" not in point.tags


def test_a_tags_name_is_escaped():
    (point,) = read(record(tags={"a, b=c": "x"}), lines=Lines("my points, all", ["a, b=c"]))
    assert point.tags["a, b=c"] == "x"
    assert point.measurement == "my points, all"


@given(st.text(alphabet='\\,= "ab', min_size=1, max_size=8))
def test_a_tag_cannot_add_tags_or_fields(text):
    (point,) = read(record(model=text, tags={"feature": text}))
    assert point.tags["model"] == point.tags["feature"] == text.replace("\\", "/")
    assert set(point.tags) == {"provider", "model", "status", "operation", "method", "feature"}


def test_a_backslash_in_a_tag_is_counted():
    before = counts.snapshot().get("sanitised", {}).get("influxdb_tag", 0)
    read(record(model="unheard\\of"))
    assert counts.snapshot()["sanitised"]["influxdb_tag"] == before + 1


def test_times_are_the_records_milliseconds_and_digits_of_its_id():
    one = record(timestamp=T0 + 0.1234567)
    assert nanoseconds(one) // 1_000_000 == 1_700_000_000_123
    assert nanoseconds(one) == nanoseconds(msgspec.structs.replace(one, latency_ms=5.0))
    assert len({nanoseconds(record(timestamp=T0)) for _ in range(100)}) > 90


@pytest.mark.parametrize("timestamp", [1e12, 1e300])
def test_a_time_that_influxdb_cannot_hold_is_its_last_one_and_counted(timestamp):
    before = counts.snapshot().get("sanitised", {}).get("influxdb_time", 0)
    (point,) = read(record(timestamp=timestamp))
    assert point.time // 10**9 == 9_223_372_036
    assert point.fields["unix_seconds"] == timestamp
    assert counts.snapshot()["sanitised"]["influxdb_time"] == before + 1


def test_the_first_time_of_all():
    (point,) = read(record(timestamp=0.0))
    assert 0 <= point.time < 1_000_000


def keys(found):
    return [(tuple(sorted(point.tags.items())), point.time) for point in found]


def test_no_two_calls_of_a_batch_are_one_point():
    """3000 calls with the same tags in the same millisecond: some of them have the same digits."""
    batch = [record(id=f"call-{number}") for number in range(3000)]
    assert len({nanoseconds(one) for one in batch}) < len(batch)
    found = keys(read(*batch))
    assert len(set(found)) == len(batch)
    assert keys(read(*batch[::-1])) == found[::-1]


def test_a_call_that_is_twice_in_a_batch_is_one_point():
    one = record()
    assert len(set(keys(read(one, one, record(id=one.id))))) == 1


@pytest.mark.parametrize("name", ["", "#a", "_a", "a\\b", "a\nb", "x" * 65, None, 5])
def test_measurements_that_cannot_be_are_refused(name):
    with pytest.raises(ConfigError, match="measurement"):
        Lines(name, ())


@pytest.mark.parametrize("name", ["", "_a", "a\\b", "a\nb", "x" * 65, None, "time", "model", "id", "error", "retries"])
def test_tags_that_cannot_be_are_refused(name):
    with pytest.raises(ConfigError, match="tags"):
        Lines("m", (name,))


def test_one_tag_may_be_a_text():
    (point,) = read(record(tags={"team": "a"}), lines=Lines("m", "team"))
    assert point.tags["team"] == "a"


def test_raw_chunks_stay_away():
    stream = StreamMetrics(status="completed", raw_chunks=(b"canary",))
    assert "canary" not in LINES.encode([record(stream=stream)])[0]
