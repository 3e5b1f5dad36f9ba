"""The convention's metrics: https://github.com/open-telemetry/semantic-conventions/tree/v1.41.1/docs/gen-ai."""

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from tellmeter.records import StreamMetrics
from tellmeter.sinks.otel import gen_ai
from tellmeter.sinks.otel.gen_ai import HISTOGRAMS, GenAIMetrics
from tests.unit.sinks.made import record

WHO = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "openai",
    "gen_ai.request.model": "gpt-4o",
}


@pytest.fixture
def measure():
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)

    def run(*records, tag_names=()):
        metrics = GenAIMetrics(provider.get_meter("tellmeter"), tag_names)
        for one in records:
            metrics.record(one)
        data = reader.get_metrics_data()
        scopes = data.resource_metrics[0].scope_metrics if data else []
        return {metric.name: metric for scope in scopes for metric in scope.metrics}

    yield run
    provider.shutdown()


def points(metric):
    return {tuple(sorted(point.attributes.items())): point for point in metric.data.data_points}


def key(**more):
    return tuple(sorted({**WHO, **{name.replace("__", "."): value for name, value in more.items()}}.items()))


def test_names_units_and_boundaries_are_the_conventions(measure):
    stream = StreamMetrics(time_to_first_chunk_ms=100.0, duration_ms=1100.0, chunks_received=11)
    found = measure(record(latency_ms=1500.0, input_tokens=5, output_tokens=7, stream=stream))
    assert {name: metric.unit for name, metric in found.items()} == {
        "gen_ai.client.operation.duration": "s",
        "gen_ai.client.token.usage": "{token}",
        "gen_ai.client.operation.time_to_first_chunk": "s",
        "gen_ai.client.operation.time_per_output_chunk": "s",
    }
    for name, metric in found.items():
        (_, _, boundaries) = HISTOGRAMS[name]
        assert all(tuple(point.explicit_bounds) == tuple(boundaries) for point in metric.data.data_points)
    assert HISTOGRAMS["gen_ai.client.operation.duration"][2][-1] == 81.92
    assert HISTOGRAMS["gen_ai.client.token.usage"][2][-1] == 67108864
    duration = points(found["gen_ai.client.operation.duration"])[key()]
    assert (duration.count, duration.sum) == (1, 1.5)
    tokens = points(found["gen_ai.client.token.usage"])
    assert tokens[key(gen_ai__token__type="input")].sum == 5
    assert tokens[key(gen_ai__token__type="output")].sum == 7
    assert points(found["gen_ai.client.operation.time_to_first_chunk"])[key()].sum == 0.1
    per_chunk = points(found["gen_ai.client.operation.time_per_output_chunk"])[key()]
    assert (per_chunk.count, per_chunk.sum) == (1, pytest.approx(0.1))


def test_the_time_that_the_application_held_the_stream_is_not_the_providers(measure):
    stream = StreamMetrics(time_to_first_chunk_ms=100.0, duration_ms=1100.0, consumer_wait_ms=500.0, chunks_received=11)
    found = measure(record(stream=stream), record(stream=StreamMetrics(time_to_first_chunk_ms=9.0, chunks_received=2)))
    point = points(found["gen_ai.client.operation.time_per_output_chunk"])[key()]
    assert (point.count, point.min, point.max) == (2, 0.0, pytest.approx(0.05))


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"status": "error", "error_class": "RateLimitError"}, "RateLimitError"),
        ({"status": "timeout"}, "timeout"),
        ({"status": "cancelled", "error_class": "CancelledError"}, None),
        ({"status": "closed_early"}, None),
        ({}, None),
    ],
)
def test_an_error_has_a_type_in_the_duration_alone(measure, fields, expected):
    found = measure(record(input_tokens=1, **fields))
    more = {} if expected is None else {"error__type": expected}
    assert set(points(found["gen_ai.client.operation.duration"])) == {key(**more)}
    assert set(points(found["gen_ai.client.token.usage"])) == {key(gen_ai__token__type="input")}


def test_estimated_and_missing_tokens_are_not_reported(measure):
    found = measure(record(input_tokens=5, output_tokens=5, tokens_estimated=True), record())
    assert "gen_ai.client.token.usage" not in found


def test_attributes_are_there_where_they_are_known(measure):
    found = measure(
        record(response_model="gpt-4o-2024", tags={"feature": "search", "secret": "x"}),
        record(),
        tag_names=["feature"],
    )
    assert set(points(found["gen_ai.client.operation.duration"])) == {
        key(gen_ai__response__model="gpt-4o-2024", feature="search"),
        key(),
    }


def test_too_many_series_are_one(measure, monkeypatch):
    monkeypatch.setattr(gen_ai, "MAX_SERIES", 2)
    found = measure(*(record(model=f"m{number % 4}", input_tokens=1) for number in range(8)))
    duration = points(found["gen_ai.client.operation.duration"])
    assert len(duration) == 3
    assert duration[("otel.metric.overflow", True),].count == 4
    assert points(found["gen_ai.client.token.usage"])[("otel.metric.overflow", True),].sum == 4
