from __future__ import annotations

import math
import re
import time
import uuid
from decimal import Decimal
from typing import Any

import msgspec
import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tellmeter import AgentMetrics, StreamMetrics, counts
from tellmeter.cleaning import MAX_INT, MAX_TAGS, MODEL_LENGTH, TEXT_LENGTH
from tellmeter.records import STATUSES, uuid7

ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=10**30, max_value=10**400),
    st.floats(),
    st.decimals(),
    st.text(),
    st.text(alphabet="\ud800\udfff\x00\n"),
    st.binary(),
    st.lists(st.integers(), max_size=3),
    st.sampled_from([numpy.float32(1.5), numpy.int64(7), numpy.float64("nan"), numpy.bool_(True), object(), -0.0]),
)
KEYS = st.one_of(st.text(), st.integers(), st.none(), st.booleans(), st.binary())
NUMBERS = ("latency_ms", "timestamp", "retry_delay_ms", "sample_rate", "cost_usd", "status_code")
WHOLE = ("input_tokens", "output_tokens", "cached_tokens", "cache_write_tokens", "reasoning_tokens", "retries")
TEXTS = ("provider", "operation", "method", "status", "error_class", "error_category", "finish_reason", "request_id")


def sanitised(field: str) -> int:
    return counts.snapshot().get("sanitised", {}).get(field, 0)


@given(
    st.fixed_dictionaries(
        {"model": ANYTHING},
        optional={
            **dict.fromkeys((*NUMBERS, *WHOLE, *TEXTS), ANYTHING),
            "tokens_estimated": ANYTHING,
            "tools_used": st.one_of(ANYTHING, st.lists(ANYTHING)),
            "tags": st.one_of(ANYTHING, st.dictionaries(KEYS, ANYTHING)),
        },
    )
)
def test_whatever_is_given_the_invariants_hold(fields: dict[str, Any]) -> None:
    record = AgentMetrics(**fields)
    for name in NUMBERS[:4]:
        value = getattr(record, name)
        assert type(value) is float and math.isfinite(value) and value >= 0
    assert record.sample_rate <= 1
    assert record.cost_usd is None or (type(record.cost_usd) is float and 0 <= record.cost_usd < math.inf)
    for name in WHOLE:
        value = getattr(record, name)
        assert type(value) is int and 0 <= value <= MAX_INT
    assert record.cached_tokens + record.cache_write_tokens <= record.input_tokens
    assert record.reasoning_tokens <= record.output_tokens
    assert record.status in STATUSES
    assert len(record.model) <= MODEL_LENGTH
    assert len(record.tags) <= MAX_TAGS
    assert type(record.tools_used) is tuple
    if record.status != "success":
        assert record.error_category
    # Valid JSON, and the same record when it is read back.
    assert msgspec.json.decode(msgspec.json.encode(record), type=AgentMetrics) == record


def test_values_of_other_libraries_are_taken_as_what_they_mean() -> None:
    record = AgentMetrics(
        model="m",
        latency_ms=Decimal("12.5"),
        input_tokens=numpy.int64(7),
        output_tokens=3.0,
        cost_usd=numpy.float32(0.5),
    )
    assert (record.latency_ms, record.input_tokens, record.output_tokens, record.cost_usd) == (12.5, 7, 3, 0.5)


@pytest.mark.parametrize(
    ("given_value", "kept"),
    [(math.nan, 0.0), (math.inf, 0.0), (-math.inf, 0.0), (-1.0, 0.0), (None, 0.0), ("12", 0.0), (10**400, 0.0)],
)
def test_a_duration_that_is_none_becomes_zero_and_is_counted(given_value: Any, kept: float) -> None:
    before = sanitised("latency_ms")
    assert AgentMetrics(model="m", latency_ms=given_value).latency_ms == kept
    if given_value is not None:
        assert sanitised("latency_ms") > before


def test_an_unknown_price_stays_unknown() -> None:
    assert AgentMetrics(model="m").cost_usd is None
    assert AgentMetrics(model="m", cost_usd=math.nan).cost_usd is None
    assert AgentMetrics(model="m", cost_usd=0.0).cost_usd == 0.0


def test_huge_whole_numbers_are_clamped_to_64_bits() -> None:
    assert AgentMetrics(model="m", input_tokens=2**80).input_tokens == MAX_INT


def test_parts_of_the_tokens_never_exceed_their_whole() -> None:
    record = AgentMetrics(
        model="m", input_tokens=10, cached_tokens=9, cache_write_tokens=8, output_tokens=1, reasoning_tokens=5
    )
    assert (record.cached_tokens, record.cache_write_tokens, record.reasoning_tokens) == (2, 8, 1)


def test_lone_surrogates_and_control_characters_are_replaced() -> None:
    record = AgentMetrics(model="a\ud800b\x00c\n", tags={"k\n": "v\udfff"})
    assert record.model == "a\ufffdb\ufffdc\ufffd"
    assert record.tags == {"k\ufffd": "v\ufffd"}
    record.model.encode()


def test_texts_and_tags_are_bounded() -> None:
    record = AgentMetrics(model="m" * 10_000, error_class="e" * 10_000, tags={f"t{i}": "x" * 999 for i in range(100)})
    assert len(record.model) == MODEL_LENGTH
    assert record.error_class is not None and len(record.error_class) == TEXT_LENGTH
    assert len(record.tags) == MAX_TAGS
    assert {len(value) for value in record.tags.values()} == {256}


def test_an_error_class_alone_makes_an_error_with_a_category() -> None:
    record = AgentMetrics(model="m", error_class="RateLimitError")
    assert (record.status, record.error_category, record.failed) == ("error", "unknown", True)
    assert AgentMetrics(model="m", error_class="").error_class is None


def test_what_the_application_broke_off_is_no_failure() -> None:
    assert not AgentMetrics(model="m", status="closed_early").failed
    assert not AgentMetrics(model="m", status="cancelled").failed
    assert AgentMetrics(model="m", status="timeout").failed


def test_a_record_gives_itself_id_and_time() -> None:
    before = time.time()
    record = AgentMetrics(model="m")
    assert before <= record.timestamp <= time.time()
    assert uuid.UUID(record.id).version == 7


def test_ids_are_version_7_and_sort_by_time() -> None:
    ids = [uuid7() for _ in range(1000)]
    assert len(set(ids)) == 1000
    assert all(re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", one) for one in ids)
    milliseconds = [int(one.replace("-", "")[:12], 16) for one in ids]
    assert milliseconds == sorted(milliseconds)
    assert abs(milliseconds[0] / 1000 - time.time()) < 60


def test_totals_and_time_to_first_token_are_derived() -> None:
    record = AgentMetrics(model="m", input_tokens=3, output_tokens=4, stream=StreamMetrics(time_to_first_token_ms=12.5))
    assert (record.total_tokens, record.ttft_ms) == (7, 12.5)
    assert AgentMetrics(model="m").ttft_ms is None


def test_records_are_frozen() -> None:
    with pytest.raises(AttributeError):
        AgentMetrics(model="m").model = "other"  # type: ignore[misc]


@given(
    st.dictionaries(
        st.sampled_from(StreamMetrics.__struct_fields__).filter(lambda name: name != "raw_chunks"), ANYTHING
    )
)
def test_a_streams_invariants_hold_too(fields: dict[str, Any]) -> None:
    stream = StreamMetrics(**fields)
    for name, kind in StreamMetrics.__annotations__.items():
        value = getattr(stream, name)
        if kind == "float":
            assert type(value) is float and 0 <= value < math.inf
        elif kind == "int":
            assert type(value) is int and 0 <= value <= MAX_INT
    assert msgspec.json.decode(msgspec.json.encode(stream), type=StreamMetrics) == stream
