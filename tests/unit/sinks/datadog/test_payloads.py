"""What is sent to the API, held against the vendor's own models and the documented limits."""

from __future__ import annotations

import json
import time
import zlib

import pytest
from datadog_api_client import Configuration
from datadog_api_client.model_utils import validate_and_convert_types
from datadog_api_client.v1.model.distribution_points_payload import DistributionPointsPayload
from datadog_api_client.v1.model.metrics_payload import MetricsPayload
from datadog_api_client.v2.model.metric_payload import MetricPayload
from hypothesis import given, settings
from hypothesis import strategies as st

from tellmeter.sinks.datadog import payloads
from tellmeter.sinks.datadog.labels import Labels
from tellmeter.sinks.datadog.payloads import OLDEST_SECONDS, Series, fitting, forms, halves, samples, sums, taken
from tellmeter.sinks.datadog.schema import METRICS, added_up
from tests.support.datadog import FUTURE_SECONDS, PAST_SECONDS
from tests.support.datadog_records import varied
from tests.unit.sinks.made import record, records

LABELS = Labels(["team:a"], ["a"], ("", "", ""))
FORMS = forms("llm.", "host-1", 10)
MODELS = {"distributions": DistributionPointsPayload, "series": MetricPayload, "series-v1": MetricsPayload}


def series_of(kind, batch, now):
    if kind == "distributions":
        return samples(batch, LABELS, now, measures_only=False)
    return sums(added_up(batch, LABELS), int(now))


@pytest.mark.parametrize("kind", list(MODELS))
@settings(deadline=None)
@given(batch=st.lists(records, min_size=1, max_size=4))
def test_any_payload_is_one_by_the_vendors_models(kind, batch):
    now = time.time()
    body = json.loads(FORMS[kind].body(series_of(kind, batch, now), now))
    config = Configuration()
    model = validate_and_convert_types(body, (MODELS[kind],), ["body"], True, True, config)
    assert len(model.series) == len(body["series"])
    assert not getattr(model, "_unparsed", False)
    assert json.loads(json.dumps(model.to_dict(), default=str))["series"] == body["series"]
    for one in body["series"]:
        assert not one.keys() - type(model.series[0]).attribute_map.keys() and one["metric"].startswith("llm.")


def test_the_forms_as_they_are_documented():
    now = 1_700_000_100.5
    batch = [record(0, input_tokens=3, latency_ms=1500.0)]
    (one,) = [one for one in series_of("series", batch, now) if one.metric.name == "tokens.input"]
    tags = ["provider:openai", "model:gpt-4o", "operation:chat", "status:success", "team:a"]
    assert json.loads(FORMS["series"].body([one], now)) == {
        "series": [
            {
                "metric": "llm.tokens.input",
                "type": 1,
                "points": [{"timestamp": 1_700_000_100, "value": 3.0}],
                "tags": tags,
                "interval": 10,
                "resources": [{"type": "host", "name": "host-1"}],
            }
        ]
    }
    assert json.loads(FORMS["series-v1"].body([one], now)) == {
        "series": [
            {
                "metric": "llm.tokens.input",
                "points": [[1_700_000_100, 3.0]],
                "tags": tags,
                "type": "count",
                "interval": 10,
                "host": "host-1",
            }
        ]
    }
    (one,) = [one for one in series_of("distributions", batch, now) if one.metric.name == "request.latency"]
    assert json.loads(FORMS["distributions"].body([one], now)) == {
        "series": [
            {
                "metric": "llm.request.latency",
                "points": [[1_700_000_001, [1500.0]]],  # when the call ended
                "tags": tags,
                "type": "distribution",
                "host": "host-1",
            }
        ]
    }


def test_without_a_host_there_is_none():
    now = time.time()
    for kind, form in forms("llm.", "", 10).items():
        assert b'"host"' not in form.body(series_of(kind, [record()], now), now)


@given(st.floats(0, 1e308), st.floats(1e9, 2e9))
def test_every_time_becomes_one_that_is_taken(second, now):
    found = taken(second, now)
    assert now - PAST_SECONDS < found < now + FUTURE_SECONDS
    if now - OLDEST_SECONDS <= second <= now:
        assert found == int(second)


def test_records_of_any_time_are_sent_with_times_that_are_taken():
    now = time.time()
    batch = [record(timestamp=at, latency_ms=length) for at in (0.0, 1.7e308, now) for length in (0.0, 1e308, 5.0)]
    assert all(now - PAST_SECONDS < one.second <= now for one in samples(batch, LABELS, now, measures_only=False))


def test_what_waits_for_an_hour_is_sent_with_a_time_that_is_taken():
    now = time.time()
    (one, *_) = samples([record(timestamp=now)], LABELS, now, measures_only=False)
    later = now + 100_000
    body = json.loads(FORMS["distributions"].body([one], later))
    assert body["series"][0]["points"][0][0] == int(later - OLDEST_SECONDS)


series = st.builds(
    Series,
    st.sampled_from(METRICS),
    st.lists(st.text("abc:é", min_size=1, max_size=30), max_size=4).map(tuple),
    st.just(1_700_000_000),
    st.lists(st.floats(0, 1e300), min_size=1, max_size=60),
)


@given(st.lists(series, max_size=20), st.integers(150, 4000), st.booleans())
def test_payloads_are_within_any_limits_and_hold_everything_once(given_series, limit, compress):
    form, now = FORMS["distributions"], 1_700_000_000.0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(payloads, "SENT_BYTES", limit)
        patch.setattr(payloads, "PLAIN_BYTES", 3 * limit)
        pieces = list(fitting(form, given_series, now, compress=compress))
    found = []
    for piece, packed in pieces:
        found += [(one.metric, one.tags, value) for one in piece for value in one.values]
        if packed is None:  # as small as it gets
            assert len(piece) == 1 and len(piece[0].values) == 1
            continue
        body = zlib.decompress(packed) if compress else packed
        assert len(packed) <= limit and len(body) <= 3 * limit
        assert body == form.body(piece, now)
    assert found == [(one.metric, one.tags, value) for one in given_series for value in one.values]


def test_ten_thousand_records_are_a_few_payloads_within_the_documented_limits():
    now = time.time()
    pieces = list(
        fitting(FORMS["distributions"], series_of("distributions", varied(2000) * 5, now), now, compress=True)
    )
    assert len(pieces) >= 2
    for _, packed in pieces:
        assert packed is not None and len(packed) <= 512_000 and len(zlib.decompress(packed)) < 5_242_880


def test_halves_of_what_cannot_be_halved():
    one = Series(METRICS[0], (), 0, [1.0])
    assert halves([one]) is None
    assert halves([one, one]) == ([one], [one])
    assert halves([one._replace(values=[1.0, 2.0])]) == ([one], [one._replace(values=[2.0])])
