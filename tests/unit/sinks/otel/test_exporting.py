"""Our own provider: what is exported when, what failures cost, and that it ends."""

import logging
import os
import threading

import pytest
from opentelemetry.sdk.metrics.export import MetricExportResult

from tellmeter import counts
from tellmeter.sinks.otel.exporting import OwnMeterProvider, refused_in
from tellmeter.sinks.otel.settings import export_settings
from tellmeter.testing import Answer, Dribble, Hang
from tests.support.otlp import Receiver, partial_success, settled


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.4")  # so that nothing is tried again by the SDK


@pytest.fixture
def receiver():
    with Receiver() as one:
        yield one


@pytest.fixture
def make(receiver):
    made = []

    def provider(**options):
        options = {"endpoint": receiver.url, "interval_seconds": 3600, **options}
        names = {name: options.pop(name) for name in ("service_name", "namespace") if name in options}
        one = OwnMeterProvider(export_settings(**options), **names)
        one.start()
        made.append(one)
        return one

    yield provider
    for one in made:
        one.close(10)


@pytest.fixture
def exports():
    """What was counted since the beginning of the test."""
    before = counts.snapshot().get("otlp_exports", {})

    def since():
        now = counts.snapshot().get("otlp_exports", {})
        return {name: number - before.get(name, 0) for name, number in now.items() if number > before.get(name, 0)}

    return since


def counter(own, name="calls"):
    return own.provider.get_meter("tellmeter").create_counter(name)


def total(receiver, name="calls"):
    return {dict(attributes).get("n", ""): value for (found, attributes), value in settled(receiver.points()).items()}


def test_a_flush_exports_what_was_measured(make, receiver, exports):
    own = make(service_name="svc", namespace="prod", headers={"X-Key": "secret"})
    calls = counter(own)
    calls.add(2)
    assert own.flush(10)
    calls.add(3)
    assert own.flush(10)
    assert total(receiver) == {"": 5}
    assert exports() == {"delivered": 2}
    request = receiver.requests[0]
    assert (request.path, request.headers["x-key"]) == ("/v1/metrics", "secret")
    assert request.headers["content-type"] == "application/x-protobuf"
    resource = receiver.points()[0].resource
    assert (resource["service.name"], resource["service.namespace"]) == ("svc", "prod")


def test_the_environment_says_where_to_and_how(monkeypatch, make, receiver):
    for name, value in {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"{receiver.url}/base/",
        "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Basic%20dTpw==,x-key=a",
        "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
        "OTEL_SERVICE_NAME": "from-env",
        "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment=test,service.instance.id=me",
        "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "delta",
    }.items():
        monkeypatch.setenv(name, value)
    own = make(endpoint=None)
    counter(own).add(1)
    own.flush(10)
    (request,) = receiver.requests
    assert request.path == "/base/v1/metrics"
    assert (request.headers["authorization"], request.headers["x-key"]) == ("Basic dTpw==", "a")
    assert request.headers["content-encoding"] == "gzip"
    (point,) = receiver.points()
    assert point.delta
    assert (
        point.resource.items()
        >= {
            "service.name": "from-env",
            "deployment.environment": "test",
            "service.instance.id": "me",
        }.items()
    )


def test_two_providers_are_two_instances(make, receiver):
    for number in range(2):
        own = make()
        counter(own).add(number + 1)
        own.flush(10)
    assert len({point.resource["service.instance.id"] for point in receiver.points()}) == 2
    assert total(receiver) == {"": 3}


def test_it_exports_by_itself(make, receiver):
    own = make(interval_seconds=0.02)
    counter(own).add(7)
    receiver.wait_for(3)
    assert total(receiver) == {"": 7}


def test_a_close_exports_ends_the_thread_and_may_come_twice(make, receiver):
    own = make()
    counter(own).add(4)
    own.close(10)
    own.close(10)
    assert total(receiver) == {"": 4}
    assert not [thread for thread in threading.enumerate() if thread.name == "tellmeter-otlp"]


def test_where_no_thread_starts_a_flush_exports_itself(monkeypatch, make, receiver):
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=test")

    start = threading.Thread.start

    def refuse(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    own = OwnMeterProvider(export_settings(endpoint=receiver.url), namespace="prod")
    own.start()
    monkeypatch.setattr(threading.Thread, "start", start)
    counter(own).add(4)
    assert own.flush(10)
    own.close(10)
    assert total(receiver) == {"": 4}
    assert (
        receiver.points()[0].resource.items()
        >= {
            "service.name": "unknown_service",
            "service.namespace": "prod",
            "deployment.environment": "test",
        }.items()
    )


@pytest.mark.parametrize(
    "answer", [Answer(503, headers={"Retry-After": "7"}), Answer(429), Answer(500), Answer(401), Hang()]
)
@pytest.mark.parametrize("temporality", ["cumulative", "delta"])
def test_what_could_not_be_exported_is_in_a_later_export(monkeypatch, make, receiver, exports, answer, temporality):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", temporality)
    own = make()
    calls = counter(own)
    receiver.default = answer
    calls.add(2)
    own.flush(10)
    calls.add(3)
    own.flush(10)
    refused = receiver.received
    receiver.default = Answer()
    calls.add(4)
    own.flush(10)
    arrived = [point.value for point in receiver.points()[refused:]]
    assert arrived == ([2, 3, 4] if temporality == "delta" else [9])
    assert exports() == {"failed": 2, "delivered": len(arrived)}


def test_of_delta_exports_that_failed_the_newest_are_kept(monkeypatch, make, receiver, exports):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "delta")
    monkeypatch.setattr("tellmeter.sinks.otel.exporting.KEPT_EXPORTS", 3)
    own = make()
    calls = counter(own)
    receiver.default = Answer(500)
    for number in range(5):
        calls.add(number)
        own.flush(10)
    refused, receiver.default = receiver.received, Answer()
    own.flush(10)
    assert [point.value for point in receiver.points()[refused:]] == [2, 3, 4]
    assert exports() == {"failed": 5, "lost": 2, "delivered": 3}


def test_what_is_refused_for_good_does_not_hold_up_the_rest(monkeypatch, make, receiver, exports):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "delta")
    own = make()
    calls = counter(own)
    receiver.script(Answer(400))
    calls.add(2)
    own.flush(10)
    calls.add(3)
    own.flush(10)
    assert [point.value for point in receiver.points()] == [2, 3]
    assert exports() == {"rejected": 1, "delivered": 1}


def test_a_receiver_that_wants_less_at_once_gets_it(make, receiver, exports):
    taken = []

    def at_most_ten(request):
        points = len(receiver.points()) - sum(taken)
        taken.append(points)
        return Answer(413 if points > 10 else 200)

    receiver.default = at_most_ten
    own = make()
    calls = counter(own)
    for number in range(45):
        calls.add(number, {"n": str(number)})
    own.flush(10)
    accepted = [number for number in taken if number <= 10]
    assert sum(accepted) == 45
    assert exports() == {"delivered": len(accepted)}
    assert total(receiver) == {str(number): number for number in range(45)}
    tried = len(taken)
    own.flush(10)
    assert max(taken[tried:]) <= 10, "it asks again for what it knows"


def test_refused_points_are_a_failure_told_once_without_the_receivers_words(make, receiver, exports, caplog):
    receiver.default = Answer(200, partial_success(3))
    own = make()
    counter(own).add(1)
    with caplog.at_level(logging.WARNING):
        own.flush(10)
        own.flush(10)
    assert exports() == {"partial": 2}
    assert [record.message for record in caplog.records] == [
        "OTelMetricsSink: the receiver of OTLP refused 3 data points"
    ]


def test_a_redirect_is_not_followed_and_no_success(make, receiver, exports, caplog):
    receiver.default = Answer(307, headers={"Location": f"{receiver.url}/elsewhere"})
    own = make(headers={"X-Key": "canary"})
    counter(own).add(1)
    with caplog.at_level(logging.WARNING):
        own.flush(10)
        own.flush(10)
    assert exports() == {"failed": 2}
    assert {request.path for request in receiver.requests} == {"/v1/metrics"}
    assert caplog.text.count("answers with a redirect") == 1
    assert "canary" not in caplog.text


def test_a_receiver_that_dribbles_holds_nobody_up(make, receiver):
    receiver.default = Dribble(bytes_per_second=20, answer=Answer(200, b"\x00" * 4000))
    own = make()
    counter(own).add(1)
    assert not own.flush(0.2)
    own.close(0.1)


def test_measuring_goes_on_while_an_export_hangs(monkeypatch, make, receiver):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "30")
    receiver.default = Hang()
    own = make()
    calls = counter(own)
    calls.add(1)
    assert not own.flush(0.05)
    calls.add(1)
    assert not own.flush(0.05)
    receiver.default = Answer()
    receiver.drop_connections()
    assert own.flush(20)
    assert total(receiver) == {"": 2}


def test_an_export_that_raises_is_counted_and_the_next_one_comes(monkeypatch, make, receiver):
    own = make()
    counter(own).add(1)
    before = counts.snapshot().get("guarded_errors", {}).get("otlp_export", 0)

    def fail(**options):
        raise RuntimeError("canary")

    monkeypatch.setattr(own.provider, "force_flush", fail)
    assert own.flush(10)
    monkeypatch.undo()
    assert counts.snapshot()["guarded_errors"]["otlp_export"] == before + 1
    assert own.flush(10)
    assert total(receiver) == {"": 1}


def test_the_port_of_grpc_is_told_to_who_speaks_http(monkeypatch, caplog):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4317")
    with caplog.at_level(logging.WARNING):
        OwnMeterProvider(export_settings(protocol="http/protobuf")).provider.shutdown()
    assert "4318" in caplog.text


def test_a_credential_provider_of_the_environment_is_left_to_the_exporter(monkeypatch, receiver):
    monkeypatch.setenv("OTEL_PYTHON_EXPORTER_OTLP_HTTP_CREDENTIAL_PROVIDER", "nobody")
    with pytest.raises(RuntimeError, match="nobody"):  # the exporter's own words
        OwnMeterProvider(export_settings(endpoint=receiver.url))


@pytest.mark.parametrize(("content", "number"), [(b"", 0), (b"\xff\xff", 0), (b"<html>", 0), (None, 12)])
def test_the_answer_is_read_with_care(content, number):
    assert refused_in(partial_success(12) if content is None else content) == number


def test_shutting_down_an_exporter_twice_does_nothing(make):
    own = make()
    own.close(10)
    own._exporter.shutdown()
    assert own._exporter.force_flush()
    assert own._exporter.export(_nothing()) is MetricExportResult.FAILURE


def _nothing():
    from opentelemetry.sdk.metrics.export import MetricsData

    return MetricsData([])
