import datetime
import json
import time
from fractions import Fraction

import botocore.serialize
import botocore.session
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tellmeter.records import AgentMetrics
from tellmeter.sinks.cloudwatch.encoder import COSTS, LARGEST_COSTS, Encoder
from tellmeter.sinks.cloudwatch.limits import REQUEST_BYTES
from tellmeter.sinks.cloudwatch.metrics import METRICS, check_dimensions, check_metrics, series_of
from tests.support.cloudwatch import Statistics, broken_limits, sent
from tests.support.varied import varied
from tests.unit.sinks import made
from tests.unit.sinks.made import record

NOW = float(int(time.time()) // 60 * 60 - 3600)
PROTOCOLS = ["smithy-rpc-v2-cbor", "json", "query"]
MODEL = botocore.session.get_session().get_service_model("cloudwatch").operation_model("PutMetricData")


def encoder(dimensions=None, protocol="json", metrics=None, **options):
    chosen = check_metrics(metrics)
    return Encoder(chosen, check_dimensions(dimensions, chosen), protocol=protocol, **options)


def requests_of(parts, namespace="LLM/Metrics"):
    return [{"Namespace": namespace, "MetricData": part.data} for part in parts if part.data]


def ascii_of(text):
    return text.encode("ascii", "backslashreplace").decode()[:1024] if text.strip() else "unknown"


def expected(batch, dimensions=None, period=60):
    """What records come to, point by point, as `sent` has it."""
    found = {}
    for one in batch:
        for metric in METRICS:
            value = metric.value(one)
            if value is None:
                continue
            value = min(float(value), 2.0**360)
            value = value if value >= 2.0**-360 else 0.0
            for series in series_of(one, check_dimensions(dimensions, METRICS)):
                label = ((metric.label, ascii_of(metric.label_value(one))),) if metric.label else ()
                dims = tuple(sorted(series + label))
                key = (metric.name, dims), int(one.timestamp // period * period)
                found.setdefault(key, Statistics()).add(value)
    return found


def test_records_are_added_up_by_metric_dimensions_and_minute():
    batch = [record(latency_ms=one, timestamp=NOW + at) for one, at in ((5, 0), (7, 59), (5, 30), (5, 60))]
    parts = list(encoder([[]], metrics=["RequestLatency"]).parts(batch, range(4)))
    assert [part.indexes for part in parts] == [[0, 1, 2, 3]]
    about = {"MetricName": "RequestLatency", "Dimensions": [], "Unit": "Milliseconds", "StorageResolution": 60}
    minute = datetime.datetime.fromtimestamp(NOW, datetime.UTC)
    assert parts[0].data == [
        {**about, "Timestamp": minute, "Values": [5.0, 7.0], "Counts": [2.0, 1.0]},
        {**about, "Timestamp": minute + datetime.timedelta(minutes=1), "Values": [5.0]},
    ]


def test_high_resolution_is_by_the_second():
    batch = [record(timestamp=NOW + at) for at in (0.1, 0.9, 1.0)]
    (part,) = encoder([[]], metrics=["Requests"], high_resolution=True).parts(batch, range(3))
    assert [(one["Timestamp"].timestamp() - NOW, one.get("Counts"), one["StorageResolution"]) for one in part.data] == [
        (0.0, [2.0], 1),
        (1.0, None, 1),
    ]


def test_more_than_150_values_are_several_data():
    batch = [record(latency_ms=float(one), timestamp=NOW) for one in range(401)]
    (part,) = encoder([[]], metrics=["RequestLatency"]).parts(batch, range(401))
    assert [len(one["Values"]) for one in part.data] == [150, 150, 101]


def test_only_the_records_that_were_asked_for():
    batch = [record(latency_ms=float(one), timestamp=NOW) for one in range(5)]
    (part,) = encoder([[]], metrics=["RequestLatency"]).parts(batch, [3, 1])
    assert part == ([3, 1], [{**part.data[0], "Values": [3.0, 1.0]}])


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("dimensions", [None, [["provider", "model", "feature"], ["status"]]])
def test_varied_records_keep_to_every_limit_and_add_up_exactly(protocol, dimensions):
    batch = [
        msgspec.structs.replace(one, timestamp=NOW + index / 50, cached_tokens=0, cache_write_tokens=0)
        for index, one in enumerate(varied(1500))
    ]
    parts = list(encoder(dimensions, protocol).parts(batch, range(1500)))
    assert [index for part in parts for index in part.indexes] == list(range(1500))
    assert len(parts) > 1
    requests = requests_of(parts)
    for request in requests:
        assert not broken_limits(request, encoded(protocol, request), now=NOW + 60)
    assert sent(requests) == expected(batch, dimensions)


batches = st.lists(made.records, max_size=12).map(
    lambda some: [msgspec.structs.replace(one, timestamp=NOW + one.timestamp % 600) for one in some]
)
hostile_texts = st.text(st.characters(codec="utf-8"), max_size=1500)


@settings(max_examples=60)
@given(batches, st.sampled_from(PROTOCOLS), st.sampled_from([None, [["provider", "a"], ["model", "%"]]]))
def test_any_batch_keeps_to_the_limits_and_adds_up_exactly(batch, protocol, dimensions):
    parts = list(encoder(dimensions, protocol).parts(batch, range(len(batch))))
    assert [index for part in parts for index in part.indexes] == list(range(len(batch)))
    requests = requests_of(parts)
    for request in requests:
        assert not broken_limits(request, encoded(protocol, request), now=NOW + 600)
    assert sent(requests) == expected(batch, dimensions)
    total = sum(
        (Fraction(min(float(one.latency_ms), 2.0**360)) for one in batch if one.latency_ms > 1e-100), Fraction()
    )
    model = ("RequestLatency", "Provider") if dimensions is None else None
    if model:
        found = [one for ((name, dims), _), one in sent(requests).items() if name == model[0] and len(dims) == 1]
        assert sum((one.sum for one in found), Fraction()) == total


@settings(max_examples=60)
@given(hostile_texts, hostile_texts, st.floats(0, 1e308), st.integers(1, 400), st.sampled_from(PROTOCOLS))
def test_the_estimate_is_never_below_what_a_request_takes(model, tag, value, number, protocol):
    one = AgentMetrics(model=model, timestamp=NOW, tags={"t": tag}, status="error", error_class=tag, cost_usd=1 / 3)
    batch = [msgspec.structs.replace(one, latency_ms=value / (at + 1)) for at in range(number)]
    made_by = encoder([["model", "t"], ["t"], []], protocol)
    (part, *_) = made_by.parts(batch, range(number))
    costs = COSTS.get(protocol, LARGEST_COSTS)
    estimate = costs.head
    for datum in part.data:
        letters = len(datum["MetricName"]) + len(datum["Unit"])
        letters += sum(len(d["Name"]) + len(d["Value"]) for d in datum["Dimensions"])
        estimate += costs.datum + costs.dimension * len(datum["Dimensions"]) + costs.letter * letters
        estimate += costs.value * len(datum["Values"])
    assert len(encoded(protocol, {"Namespace": "N" * 255, "MetricData": part.data})) <= estimate


def test_large_requests_are_split_by_their_size():
    batch = [record(tags={f"t{n}": f"{index}{'y' * 250}" for n in range(28)}, timestamp=NOW) for index in range(200)]
    parts = list(encoder([[f"t{n}" for n in range(28)]], "json").parts(batch, range(200)))
    sizes = [len(encoded("json", request)) for request in requests_of(parts)]
    assert len(parts) > 5
    assert max(sizes) <= REQUEST_BYTES


def encoded(protocol, request):
    """The body of a request, as botocore makes it."""
    serializer = botocore.serialize.create_serializer(protocol, include_validation=False)
    body = serializer.serialize_to_request(request, MODEL)["body"]
    if isinstance(body, dict):
        from urllib.parse import urlencode

        return urlencode(body).encode()
    if isinstance(body, str):
        json.loads(body)
        return body.encode()
    return body
