import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tellmeter.errors import MetricError, TellmeterError
from tellmeter.registry.definition import (
    BYTES_BUCKETS,
    GAUGE_MODES,
    MAX_BUCKETS,
    SECONDS_BUCKETS,
    TOKENS_BUCKETS,
    MetricDefinition,
    MetricType,
    differences,
)


def test_a_definition_fills_in_what_it_is_not_told():
    made = MetricDefinition("request_count", MetricType.COUNTER)
    assert (made.description, made.unit, made.labels, made.buckets, made.aliases) == ("", "", (), None, ())
    assert made.exposed == "request_count_total"
    assert made.gauge_mode == "livesum"


def test_types_are_given_as_enum_or_as_text():
    assert MetricDefinition("a", "gauge").type is MetricType.GAUGE
    assert MetricDefinition("a", "gauge") == MetricDefinition("a", MetricType.GAUGE)


def test_lists_become_tuples_so_that_equal_definitions_are_equal_and_hashable():
    one = MetricDefinition("a", "histogram", labels=["x", "y"], buckets=[1, 2], aliases=["b"])
    other = MetricDefinition("a", "histogram", labels=("x", "y"), buckets=(1.0, 2.0, math.inf), aliases=("b",))
    assert one == other and hash(one) == hash(other)
    assert one.labels == ("x", "y") and one.buckets == (1.0, 2.0)


def test_a_definition_does_not_change():
    made = MetricDefinition("a", "gauge")
    with pytest.raises(AttributeError):
        made.name = "b"


class Odd:
    def __repr__(self):
        return "odd"


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"name": ""}, "must be a text that is not empty"),
        ({"name": " \n"}, "must be a text that is not empty"),
        ({"name": None}, "not None"),
        ({"name": b"a"}, "not b'a'"),
        ({"type": "summary"}, "it must be one of counter, gauge, histogram, up_down_counter"),
        ({"type": None}, "it must be one of"),
        ({"type": []}, "it must be one of"),
        ({"description": None}, "description must be a text"),
        ({"unit": 1}, "unit must be a text"),
        ({"exposed": 1}, "exposed must be a text"),
        ({"labels": "model"}, "it must be a list of names"),
        ({"labels": 7}, "it must be a list of names"),
        ({"labels": ["a", 7]}, "7 is no name"),
        ({"labels": ["a", ""]}, "'' is no name"),
        ({"labels": ["__name__"]}, "Prometheus's own"),
        ({"labels": ["a", "a"]}, "two of them are one on /metrics"),
        ({"labels": ["a-b", "a.b"]}, "two of them are one on /metrics"),
        ({"type": "histogram", "labels": ["le"]}, "'le' is the histogram's own"),
        ({"aliases": "b"}, "it must be a list of names"),
        ({"aliases": [Odd()]}, "odd is no name"),
        ({"gauge_mode": "average"}, "it must be one of"),
        ({"type": "histogram", "buckets": []}, "1 to 200 finite numbers, each above the last"),
        ({"type": "histogram", "buckets": [math.inf]}, "1 to 200 finite numbers"),
        ({"type": "histogram", "buckets": [-math.inf, 1]}, "1 to 200 finite numbers"),
        ({"type": "histogram", "buckets": [1, 1]}, "each above the last"),
        ({"type": "histogram", "buckets": [2, 1]}, "each above the last"),
        ({"type": "histogram", "buckets": [1, math.nan]}, "each above the last"),
        ({"type": "histogram", "buckets": [math.nan]}, "1 to 200 finite numbers"),
        ({"type": "histogram", "buckets": range(MAX_BUCKETS + 1)}, "1 to 200 finite numbers"),
        ({"type": "histogram", "buckets": ["a"]}, "buckets must be numbers"),
        ({"type": "histogram", "buckets": [None]}, "buckets must be numbers"),
        ({"type": "histogram", "buckets": 5}, "buckets must be numbers"),
        ({"type": "histogram", "buckets": [1, 10**400]}, "buckets must be numbers"),
    ],
)
def test_what_cannot_work_is_said(fields, told):
    with pytest.raises(MetricError, match=told) as caught:
        MetricDefinition(**{"name": "a", "type": "counter", **fields})
    assert isinstance(caught.value, ValueError) and isinstance(caught.value, TellmeterError)


def test_le_is_a_label_like_others_where_there_are_no_buckets():
    assert MetricDefinition("a", "counter", labels=["le"]).exposed_labels == ("le",)


def test_buckets_follow_the_unit_where_none_are_given():
    assert MetricDefinition("a", "histogram").buckets == SECONDS_BUCKETS
    assert MetricDefinition("a", "histogram", unit="seconds").buckets == SECONDS_BUCKETS
    assert MetricDefinition("a", "histogram", unit="By").buckets == BYTES_BUCKETS
    assert MetricDefinition("size_bytes", "histogram").buckets == BYTES_BUCKETS
    assert MetricDefinition("prompt", "histogram", unit="tokens").buckets == TOKENS_BUCKETS
    assert MetricDefinition("a", "histogram", unit="By", buckets=[1]).buckets == (1.0,)
    assert MetricDefinition("a", "counter", buckets=[1]).buckets is None


@pytest.mark.parametrize("buckets", [SECONDS_BUCKETS, BYTES_BUCKETS, TOKENS_BUCKETS])
def test_our_buckets_are_valid_ones(buckets):
    assert MetricDefinition("a", "histogram", buckets=buckets).buckets == buckets


def test_llm_calls_of_ten_minutes_have_a_bucket():
    assert SECONDS_BUCKETS[0] <= 0.005 and SECONDS_BUCKETS[-1] == 600.0


def test_the_name_on_the_page_may_be_given():
    assert MetricDefinition("request_count", "counter", exposed="http_requests_total").exposed == "http_requests_total"
    assert MetricDefinition("request_count", "counter", exposed="http_requests").exposed == "http_requests_total"
    assert (
        MetricDefinition("x", "histogram", unit="s", exposed="gen_ai.call.time").exposed == "gen_ai_call_time_seconds"
    )


def test_labels_are_cleaned_for_the_page_only():
    made = MetricDefinition("a", "gauge", labels=["gen_ai.model", "2nd", "café"])
    assert made.labels == ("gen_ai.model", "2nd", "café")
    assert made.exposed_labels == ("gen_ai_model", "_2nd", "caf_")


def test_the_names_of_all_samples_are_known():
    assert set(MetricDefinition("a", "counter").sample_names()) == {"a", "a_total", "a_created"}
    assert set(MetricDefinition("a", "gauge").sample_names()) == {"a"}
    assert set(MetricDefinition("a", "up_down_counter").sample_names()) == {"a"}
    histogram = {"a", "a_bucket", "a_count", "a_sum", "a_created"}
    assert set(MetricDefinition("a", "histogram").sample_names()) == histogram


@pytest.mark.parametrize("mode", GAUGE_MODES)
def test_every_gauge_mode_is_accepted(mode):
    assert MetricDefinition("a", "gauge", gauge_mode=mode).gauge_mode == mode


def test_differences_are_told_in_words():
    one = MetricDefinition("a", "histogram", "What it is", labels=["x"], buckets=[1])
    other = MetricDefinition("a", "histogram", "Else", labels=["y"], buckets=range(1, 100))
    told = differences(one, other)
    assert told[0] == "description 'What it is' and 'Else'"
    assert told[1] == "labels ('x',) and ('y',)"
    assert told[2].startswith("buckets (1.0,) and (1.0, 2.0") and told[2].endswith("...")
    assert differences(one, one) == []
    assert differences(MetricDefinition("a", "gauge"), MetricDefinition("a", "up_down_counter")) == [
        "type gauge and up_down_counter"
    ]


anything = st.one_of(st.text(), st.none(), st.integers(), st.floats(), st.binary(), st.lists(st.text()), st.builds(Odd))


@given(
    name=anything,
    type=st.sampled_from([*MetricType, "gauge", "x", None]),
    description=anything,
    unit=anything,
    labels=anything | st.lists(anything),
    buckets=anything | st.lists(st.floats() | st.integers()) | st.lists(anything),
    exposed=anything,
    aliases=anything | st.lists(anything),
    gauge_mode=anything | st.sampled_from(GAUGE_MODES),
)
def test_any_fields_make_a_definition_or_a_metric_error(**fields):
    try:
        made = MetricDefinition(**fields)
    except MetricError as error:
        assert str(error)
    else:
        assert hash(made) is not None
        assert made.exposed and len(made.exposed_labels) == len(set(made.exposed_labels)) == len(made.labels)
