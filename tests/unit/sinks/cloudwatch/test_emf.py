import json

import msgspec
import pytest
from hypothesis import given, settings

from tellmeter.errors import ConfigError
from tellmeter.records import AgentMetrics, StreamMetrics
from tellmeter.sinks.cloudwatch.emf import EMFEncoder
from tellmeter.sinks.cloudwatch.metrics import check_dimensions, check_metrics
from tests.support.cloudwatch import emf_faults, metrics_in
from tests.support.varied import varied
from tests.unit.sinks import made
from tests.unit.sinks.cloudwatch.test_encoder import expected
from tests.unit.sinks.made import record


def encoder(dimensions=None, metrics=None, **options):
    chosen = check_metrics(metrics)
    return EMFEncoder("LLM/Metrics", chosen, check_dimensions(dimensions, chosen), **options)


def test_a_line():
    one = record(id="id-1", latency_ms=5, status="error", error_class="E", tags={"feature": "f"})
    made_by = encoder([["provider", "feature"], []], ["RequestLatency", "Errors"], properties=False)
    assert json.loads(made_by.line(one)) == {
        "_aws": {
            "Timestamp": 1_700_000_000_000,
            "CloudWatchMetrics": [
                {
                    "Namespace": "LLM/Metrics",
                    "Dimensions": [["Provider", "feature"], []],
                    "Metrics": [
                        {"Name": "RequestLatency", "Unit": "Milliseconds"},
                        {"Name": "Errors", "Unit": "Count"},
                    ],
                },
                {
                    "Namespace": "LLM/Metrics",
                    "Dimensions": [["Provider", "feature", "ErrorType"], ["ErrorType"]],
                    "Metrics": [{"Name": "Errors", "Unit": "Count"}],
                },
            ],
        },
        "Provider": "openai",
        "feature": "f",
        "RequestLatency": 5.0,
        "Errors": 1.0,
        "ErrorType": "E",
        "id": "id-1",
    }


def test_the_records_fields_are_there_without_what_the_provider_sent():
    stream = StreamMetrics(raw_chunks=(b"canary",), last_error="canary", status="error", time_to_first_token_ms=3.0)
    one = record(request_id="req_1", tags={"team": "a"}, stream=stream)
    line = encoder(log_places={"log_group_name": "group"}).line(one)
    assert b"canary" not in line
    root = json.loads(line)
    assert (root["id"], root["request_id"], root["tags"], root["log_group_name"]) == (
        one.id,
        "req_1",
        {"team": "a"},
        "group",
    )
    assert root["stream"]["time_to_first_token_ms"] == root["TimeToFirstToken"] == 3.0
    back = msgspec.json.decode(line, type=AgentMetrics)
    assert back == msgspec.structs.replace(
        one, stream=msgspec.structs.replace(stream, raw_chunks=None, last_error=None)
    )


def test_high_resolution():
    root = json.loads(encoder(high_resolution=True).line(record()))
    assert {one["StorageResolution"] for some in root["_aws"]["CloudWatchMetrics"] for one in some["Metrics"]} == {1}


def test_without_a_tag_of_the_only_set_it_is_a_log_line_alone():
    root = json.loads(encoder([["team"]]).line(record()))
    assert root["_aws"]["CloudWatchMetrics"] == []


@pytest.mark.parametrize("name", ["id", "stream", "tag:model", "_aws", "Cost", "log_group_name"])
def test_a_dimension_that_has_the_name_of_something_else(name):
    with pytest.raises(ConfigError, match="dimensions"):
        encoder([[name]])


@settings(max_examples=100)
@given(made.records)
def test_any_record_keeps_to_the_schema(one):
    line = encoder([["provider", "a"], ["model", "%"], []]).line(one)
    assert line.count(b"\n") == 1
    assert not emf_faults(line)


def test_many_records_add_up_exactly():
    batch = varied(2000)
    lines = [encoder().line(one) for one in batch]
    assert not [fault for line in lines for fault in emf_faults(line)]
    assert metrics_in(lines) == expected(batch)


def test_the_schema_finds_what_is_wrong():
    good = json.loads(encoder().line(record()))
    breaks = [
        lambda root: root.pop("_aws"),
        lambda root: root["_aws"].pop("Timestamp"),
        lambda root: root["_aws"].update(Timestamp=1.5),
        lambda root: root.pop("RequestLatency"),
        lambda root: root.update(RequestLatency="5"),
        lambda root: root.update(RequestLatency=1e200),
        lambda root: root.update(Provider=""),
        lambda root: root.update(Provider="é"),
        lambda root: root["_aws"]["CloudWatchMetrics"][0].update(Dimensions=[]),
        lambda root: root["_aws"]["CloudWatchMetrics"][0].update(Dimensions=[["Provider"] * 31]),
        lambda root: root["_aws"]["CloudWatchMetrics"][0].update(Metrics=[{"Name": "Cost"}] * 101),
        lambda root: root["_aws"]["CloudWatchMetrics"][0]["Metrics"][0].update(Unit="Hours"),
        lambda root: root["_aws"]["CloudWatchMetrics"][0].update(Namespace=""),
    ]
    assert not emf_faults(json.dumps(good))
    for change in breaks:
        root = json.loads(json.dumps(good))
        change(root)
        assert emf_faults(json.dumps(root))
