"""TelemetryManager: what the settings name is started, each on its own, and ended in time."""

import sys
import types
import urllib.request

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import tellmeter
from tellmeter import process
from tellmeter.collector import MetricsCollector
from tellmeter.errors import ConfigError
from tellmeter.records import AgentMetrics
from tellmeter.registry.registry import MetricsRegistry
from tellmeter.serve.server import MetricsServer
from tellmeter.telemetry import exporter_arguments, manager
from tellmeter.telemetry.manager import get_telemetry_manager, initialize_telemetry, shutdown_telemetry
from tellmeter.telemetry.settings import TelemetrySettings
from tests.support.otlp import Receiver
from tests.support.otlp_spans import SpanReceiver
from tests.support.tracing import global_provider

pytestmark = pytest.mark.usefixtures("fresh")
SECONDS = 20.0
NOTHING = {"traces_exporters": [], "metrics_exporters": []}


@pytest.fixture(autouse=True)
def settable(monkeypatch):
    """The API lets a process set its provider once; here once a test."""
    monkeypatch.setattr(trace, "_TRACER_PROVIDER_SET_ONCE", trace.Once())


class Kept:
    """A sink without a thread."""

    def __init__(self):
        self.records = []

    def write(self, record):
        self.records.append(record)


@pytest.fixture
def collector(monkeypatch):
    """The process's collector, for a test."""
    made = MetricsCollector(sinks=[Kept()], registry=MetricsRegistry())
    monkeypatch.setattr(process, "_process_collector", made)
    yield made
    made.shutdown_sync()


def warnings(caplog):
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


def test_spans_go_out_over_otlp():
    with SpanReceiver() as receiver:
        running = initialize_telemetry(
            service_name="shop", otlp_endpoint=receiver.url, metrics_exporters=[], deployment_environment="test"
        )
        with running.trace_context("work", {"answer": 42}):
            pass
        assert running.flush(SECONDS)
        (span,) = receiver.spans()
    assert (span.name, span.attributes) == ("work", {"answer": 42})
    assert span.resource["service.name"] == running.resource["service.name"] == "shop"
    assert span.resource["deployment.environment.name"] == "test"


def test_metrics_go_out_over_otlp():
    with Receiver() as receiver:
        running = initialize_telemetry(
            service_name="shop", otlp_endpoint=receiver.url, metrics_exporters="otlp", traces_exporters=[]
        )
        running.get_meter("mine").create_counter("manager_jobs").add(3)
        assert running.flush(SECONDS)
        point = [point for point in receiver.points() if point.name == "manager_jobs"][-1]
    assert (point.value, point.resource["service.name"]) == (3, "shop")


def test_the_page_for_prometheus_and_its_end():
    running = initialize_telemetry(traces_exporters=[], metrics_exporters="prometheus", prometheus_port=0)
    url = running.server.url
    running.get_meter("mine").create_counter("manager_page").add(1)
    with urllib.request.urlopen(url, timeout=20) as answer:
        assert b"manager_page_total" in answer.read()
    shutdown_telemetry()
    with pytest.raises(OSError):
        urllib.request.urlopen(url, timeout=20)


def test_the_console(capsys):
    running = initialize_telemetry(traces_exporters="console", metrics_exporters="console")
    running.get_meter("mine").create_counter("manager_console").add(1)
    with running.trace_context("printed"):
        pass
    shutdown_telemetry(SECONDS)
    printed = capsys.readouterr().out
    assert "manager_console_total" in printed and '"name": "printed"' in printed


def test_each_that_fails_is_off_alone(caplog, monkeypatch):
    monkeypatch.setattr(exporter_arguments, "has_exporter", lambda protocol: protocol != "grpc")
    with MetricsServer(port=0) as other, SpanReceiver() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", f"{receiver.url}/v1/traces")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "grpc")
        monkeypatch.setenv("OTEL_METRICS_EXPORTER", "prometheus,otlp")
        monkeypatch.setenv("PROMETHEUS_PORT", str(other.port))
        running = initialize_telemetry()
        with running.trace_context("work"):
            pass
        assert running.flush(SECONDS)
        assert [span.name for span in receiver.spans()] == ["work"]
    page, metrics = warnings(caplog)
    assert page.startswith("metrics prometheus is off: 127.0.0.1") and "another program listens there" in page
    assert metrics == (
        "metrics otlp is off: OTLP over gRPC is not installed: pip install opentelemetry-exporter-otlp-proto-grpc"
    )


def test_what_raises_is_told_by_its_class(caplog, monkeypatch):
    def fail(self):
        raise RuntimeError("canary")

    monkeypatch.setitem(manager._STARTS, "metrics otlp", fail)
    initialize_telemetry(traces_exporters=[], metrics_exporters="otlp")
    assert "metrics otlp is off: it raised RuntimeError" in warnings(caplog)
    assert "canary" not in caplog.text


def test_the_programs_own_tracer_provider_is_used_and_neither_replaced_nor_ended():
    kept = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(kept))
    with SpanReceiver() as receiver, global_provider(provider):
        running = initialize_telemetry(otlp_endpoint=receiver.url, metrics_exporters=[])
        with running.trace_context("before"):
            pass
        shutdown_telemetry(SECONDS)
        assert trace.get_tracer_provider() is provider
        with running.tracing.start_span("after"):
            pass
        assert [span.name for span in kept.get_finished_spans()] == ["before", "after"]
        assert receiver.requests == []


def test_it_may_be_started_again_after_its_end():
    with SpanReceiver() as receiver:
        for number in range(3):
            running = initialize_telemetry(otlp_endpoint=receiver.url, metrics_exporters=[])
            with running.trace_context(f"work {number}"):
                pass
            shutdown_telemetry(SECONDS)
        assert [span.name for span in receiver.spans()] == ["work 0", "work 1", "work 2"]


def test_a_second_call_changes_nothing_and_says_so_where_it_would(caplog):
    running = initialize_telemetry(service_name="one", **NOTHING)
    assert initialize_telemetry() is get_telemetry_manager() is running
    assert initialize_telemetry(service_name="one", **NOTHING) is running
    assert initialize_telemetry(running.settings) is running
    assert warnings(caplog) == []
    assert initialize_telemetry(service_name="two", **NOTHING) is running
    (told,) = warnings(caplog)
    assert "shutdown_telemetry()" in told


def test_the_first_question_starts_it_as_the_environment_says(monkeypatch):
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "none")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "shop")
    assert get_telemetry_manager().settings.service_name == "shop"


def test_settings_and_single_ones_are_one_too_many():
    with pytest.raises(ConfigError, match="not both"):
        initialize_telemetry(TelemetrySettings(), service_name="x")
    with pytest.raises(ConfigError, match="sevice_name"):
        initialize_telemetry(sevice_name="x")


@pytest.mark.parametrize("variable", ["OTEL_SDK_DISABLED", "neither"])
def test_switched_off_nothing_is_started(variable, monkeypatch, caplog):
    if variable == "neither":
        monkeypatch.setenv("ENABLE_METRICS", "false")
        monkeypatch.setenv("ENABLE_TRACING", "false")
    else:
        monkeypatch.setenv(variable, "true")
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "prometheus,otlp,console")
    running = initialize_telemetry()
    assert (running.exports, running.server) == ([], None)
    with running.trace_context("work") as span:
        assert not span.is_recording()
    assert running.flush(SECONDS)
    assert not running.instrument_fastapi_app(object()) or variable == "neither"


def test_without_metrics_no_record_comes_but_calls_are_counted(collector):
    initialize_telemetry(enable_metrics=False, **NOTHING)
    (sink,) = collector.sinks
    collector.record(AgentMetrics(model="m", provider="p", latency_ms=1.0))
    assert collector.flush_sync().complete
    assert sink.records == []
    assert collector.registry.get_metric_stats("llm_requests_total")["sum"] == 1
    assert collector.stats().dropped == {"filtered": 1}
    shutdown_telemetry()
    collector.record(AgentMetrics(model="m", provider="p", latency_ms=1.0))
    assert collector.flush_sync().complete
    assert len(sink.records) == 1


def test_nor_do_they_with_a_collector_that_is_configured_later(collector):
    initialize_telemetry(enable_metrics=False, **NOTHING)
    sink = Kept()
    later = tellmeter.configure(sinks=[sink], registry=MetricsRegistry())
    later.record(AgentMetrics(model="m", provider="p", latency_ms=1.0))
    assert later.flush_sync().complete
    assert sink.records == []


def test_calls_become_spans_until_its_end(collector):
    with SpanReceiver() as receiver:
        running = initialize_telemetry(otlp_endpoint=receiver.url, metrics_exporters=[])
        for _ in range(2):
            with tellmeter.meter_call(provider="openai", model="gpt-4o"):
                pass
            collector.flush_sync()
            assert running.flush(SECONDS)
            shutdown_telemetry(SECONDS)
        assert [span.attributes["gen_ai.request.model"] for span in receiver.spans()] == ["gpt-4o"]


def test_libraries_are_instrumented_on_request(monkeypatch):
    seen = []
    monkeypatch.setattr(manager, "instrument_libraries", seen.append)
    initialize_telemetry(instrument_libraries=["httpx"], **NOTHING)
    assert seen == [("httpx",)]


def test_without_opentelemetry_it_says_what_to_install_and_serves_the_page(monkeypatch, caplog):
    monkeypatch.setattr(manager, "OTEL_AVAILABLE", False)
    monkeypatch.setitem(sys.modules, "tellmeter.telemetry.provider", types.ModuleType("nothing"))
    running = initialize_telemetry(metrics_exporters="prometheus,otlp", prometheus_port=0)
    assert running.server is not None
    (told,) = warnings(caplog)
    assert told == "OpenTelemetry is not installed (metrics otlp, traces otlp): pip install 'tellmeter[otel]'"


def test_a_receiver_that_is_down_does_not_hold_up_the_end():
    class Hangs:
        closed = None

        def flush(self, seconds):
            return False

        def close(self, seconds):
            self.closed = seconds
            raise RuntimeError("canary")

    running = initialize_telemetry(**NOTHING)
    first, second = Hangs(), Hangs()
    running.exports += [first, second]
    assert not running.flush(0.01)
    shutdown_telemetry(0.5)
    assert first.closed <= 0.5 and second.closed <= 0.5
