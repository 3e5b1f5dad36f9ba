"""Whole programs with telemetry: the guide's environment, ends, forks, gRPC, and a Python without OpenTelemetry."""

import os
import subprocess
import sys
import textwrap
from importlib.util import find_spec

import pytest

from tellmeter.testing import Hang
from tests.support.interpreters import environment
from tests.support.otlp import Receiver, Rotel
from tests.support.otlp_spans import GRPCSpanReceiver, SpanReceiver
from tests.support.ports import free_port

SECONDS = 60
BLOCKED = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "opentelemetry":
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Blocked())
"""
# As the guide has it (seed 003), but for the places.
GUIDE = {
    "OTEL_SERVICE_NAME": "tldw_server",
    "OTEL_SERVICE_VERSION": "1.0.0",
    "DEPLOYMENT_ENV": "production",
    "OTEL_METRICS_EXPORTER": "prometheus,otlp",
    "OTEL_TRACES_EXPORTER": "otlp",
    "PROMETHEUS_HOST": "0.0.0.0",
    "ENABLE_METRICS": "true",
    "ENABLE_TRACING": "true",
    "METRICS_SAMPLE_RATE": "1.0",
}
needs_grpc = pytest.mark.skipif(
    find_spec("opentelemetry.exporter.otlp.proto.grpc") is None,
    reason="opentelemetry-exporter-otlp-proto-grpc is not installed",
)


def run(program, before="", **variables):
    """What a program prints, and what it logs."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "PROMETHEUS_"))}
    done = subprocess.run(
        [sys.executable, "-c", before + textwrap.dedent(program)],
        env={**plain, "PYTHONPATH": environment()["PYTHONPATH"], **variables},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


WORK = """
import urllib.request
from tellmeter.telemetry.manager import get_telemetry_manager, initialize_telemetry

running = initialize_telemetry()
with running.trace_context("outer", {"n": 1}), running.tracing.start_span("inner"):
    pass
running.get_meter("mine").create_counter("jobs").add(2, {"kind": "a"})
page = urllib.request.urlopen(f"http://localhost:{running.server.port}/metrics", timeout=30).read()
print(b'jobs_total{kind="a"} 2.0' in page)
"""


def check_trace(spans):
    by_name = {span.name: span for span in spans}
    inner, outer = by_name["inner"], by_name["outer"]
    assert len(spans) == 2
    assert (inner.trace_id, inner.parent_id, outer.parent_id) == (outer.trace_id, outer.span_id, "")
    assert outer.attributes == {"n": 1}
    assert outer.resource["service.name"] == "tldw_server"
    assert outer.resource["service.version"] == "1.0.0"
    assert outer.resource["deployment.environment.name"] == "production"


def test_the_guides_environment_over_http():
    with SpanReceiver() as traces, Receiver() as metrics:
        told, logged = run(
            WORK,
            **GUIDE,
            PROMETHEUS_PORT=str(free_port()),
            OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=f"{traces.url}/v1/traces",
            OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=f"{metrics.url}/v1/metrics",
        )
        check_trace(traces.spans())
        (point,) = [point for point in metrics.points() if point.name == "jobs"][-1:]
    assert told == "True\n"
    assert (point.value, point.resource["service.name"]) == (2, "tldw_server")
    (only,) = logged.strip().split("\n")  # 0.0.0.0 without a token
    assert "PROMETHEUS_TOKEN" in only


@needs_grpc
def test_the_guides_environment_as_it_stands_over_grpc():
    receiver = GRPCSpanReceiver()
    try:
        told, _ = run(
            WORK,
            **GUIDE,
            PROMETHEUS_PORT=str(free_port()),
            OTEL_EXPORTER_OTLP_PROTOCOL="grpc",
            OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url,
            OTEL_EXPORTER_OTLP_METRICS_ENDPOINT="http://127.0.0.1:1",
            OTEL_EXPORTER_OTLP_HEADERS="x-key=a%20b",
            OTEL_EXPORTER_OTLP_COMPRESSION="gzip",
        )
        check_trace(receiver.spans())
        assert receiver.metadata["x-key"] == "a b"
    finally:
        receiver.close()
    assert told == "True\n"


@pytest.mark.parametrize("protocol", ["http/protobuf", pytest.param("grpc", marks=needs_grpc)])
def test_rotel_decodes_the_spans(protocol):
    class TracingRotel(Rotel):
        def _command(self):
            return [*super()._command(), "--debug-log", "traces"]

    agent = TracingRotel()
    try:
        run(
            WORK,
            **GUIDE,
            PROMETHEUS_PORT=str(free_port()),
            OTEL_EXPORTER_OTLP_PROTOCOL=protocol,
            OTEL_EXPORTER_OTLP_ENDPOINT=agent.url if protocol != "grpc" else agent.grpc_url,
        )
        printed = (agent.folder / "log").read_text("utf-8", "replace")
    finally:
        agent.close()
    assert "outer" in printed and "inner" in printed and "tldw_server" in printed


def test_without_opentelemetry_it_says_so_once_and_serves_the_page():
    told, logged = run(WORK, BLOCKED, **GUIDE, PROMETHEUS_PORT=str(free_port()))
    assert told == "True\n"
    assert logged.count("pip install 'tellmeter[otel]'") == 1


def test_without_opentelemetry_all_has_the_same_methods():
    told, _ = run(
        """
        from tellmeter.telemetry.manager import get_telemetry_manager, initialize_telemetry, shutdown_telemetry
        running = initialize_telemetry(metrics_exporters=[], instrument_libraries=True)
        with running.get_tracer("mine").start_as_current_span("a") as span:
            span.set_attribute("k", "v")
        meter = running.get_meter("mine")
        for made in (meter.create_counter("a"), meter.create_up_down_counter("b")):
            made.add(1)
        meter.create_histogram("c").record(1.5)
        print(running.resource["service.name"], running.instrument_fastapi_app(object()), running.flush(5))
        shutdown_telemetry(5)
        """,
        BLOCKED,
        OTEL_SERVICE_NAME="shop",
    )
    assert told == "shop False True\n"


def test_calls_and_spans_of_the_last_moment_go_out_at_the_exit():
    with SpanReceiver() as receiver:
        run(
            """
            import tellmeter
            from tellmeter.telemetry.manager import initialize_telemetry
            running = initialize_telemetry(metrics_exporters=[])
            with running.trace_context("work"):
                with tellmeter.meter_call(provider="openai", model="gpt-4o"):
                    pass
            """,
            OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url,
        )
        spans = {span.name: span for span in receiver.spans()}
    assert set(spans) == {"work", "chat gpt-4o"}
    assert spans["chat gpt-4o"].parent_id == spans["work"].span_id


def test_the_programs_own_processors_on_our_provider_are_ended_at_the_exit():
    told, _ = run(
        """
        from opentelemetry import trace
        from opentelemetry.sdk.trace import SpanProcessor
        from tellmeter.telemetry.manager import initialize_telemetry, shutdown_telemetry

        class Own(SpanProcessor):
            def shutdown(self):
                print("ended")

        initialize_telemetry(traces_exporters="console", metrics_exporters=[])
        trace.get_tracer_provider().add_span_processor(Own())
        shutdown_telemetry()
        """
    )
    assert told == "ended\n"


def test_a_receiver_that_hangs_does_not_hold_up_the_exit():
    with SpanReceiver(default=Hang()) as receiver:
        run(
            """
            from tellmeter.telemetry.manager import initialize_telemetry
            running = initialize_telemetry(metrics_exporters="otlp")
            with running.trace_context("work"):
                pass
            """,
            OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url,
            OTEL_EXPORTER_OTLP_TIMEOUT="3000",  # seconds, which the SDK's own processor would wait for
        )


FORKS = """
import os
from tellmeter.telemetry.manager import initialize_telemetry
running = initialize_telemetry(metrics_exporters=[])
with running.trace_context("before"):
    pass
assert running.flush(30)
with running.trace_context("parent"):
    pass
children = []
for number in range(4):
    child = os.fork()
    if not child:
        with running.trace_context(f"child {number}"):
            pass
        assert running.flush(30)
        os._exit(0)
    children.append(child)
assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
"""
FORKED = sorted(["before", "parent", *(f"child {number}" for number in range(4))])


def test_forked_children_export_their_own_spans_once():
    with SpanReceiver() as receiver:
        run(FORKS, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url)
        assert sorted(span.name for span in receiver.spans()) == FORKED
        instances = {span.resource["service.instance.id"] for span in receiver.spans()}
    assert len(instances) == 5


@needs_grpc
def test_forked_children_export_their_own_spans_once_over_grpc():
    receiver = GRPCSpanReceiver()
    try:
        run(FORKS, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url, OTEL_EXPORTER_OTLP_PROTOCOL="grpc")
        assert sorted(span.name for span in receiver.spans()) == FORKED
    finally:
        receiver.close()


def test_nothing_of_opentelemetry_is_imported_before_it_is_wanted():
    told, _ = run(
        """
        import sys
        import tellmeter.telemetry.manager
        from tellmeter.telemetry.settings import TelemetrySettings
        TelemetrySettings.from_env()
        print(*[name for name in sys.modules if name.startswith("opentelemetry.")])
        """
    )
    assert set(told.split()) <= {"opentelemetry.sdk"}  # an empty package, which is looked into


@pytest.mark.parametrize("how", ["instrument_libraries", "instrument_fastapi_app"])
def test_opentelemetrys_own_instrumentations_join_the_trace(how):
    for name in ("fastapi", "httpx"):
        pytest.importorskip(f"opentelemetry.instrumentation.{name}")
    with SpanReceiver() as receiver:
        told, logged = run(
            f"""
            import sys
            from tellmeter.telemetry.manager import initialize_telemetry
            running = initialize_telemetry(
                metrics_exporters=[],
                instrument_libraries=["fastapi", "httpx"] if {how!r} == "instrument_libraries" else ["httpx"],
            )
            import asyncio, fastapi, httpx

            app = fastapi.FastAPI()

            @app.get("/items/{{number}}")
            async def item(number: int):
                async with httpx.AsyncClient() as client:
                    return (await client.get("{receiver.url}/asked")).status_code

            if {how!r} != "instrument_libraries":
                assert running.instrument_fastapi_app(app) and running.instrument_fastapi_app(app)

            async def ask():
                async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app") as client:
                    print((await client.get("/items/7")).text)

            asyncio.run(ask())
            """,
            OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url,
        )
        spans = {span.name: span for span in receiver.spans()}
    assert told == "200\n"
    assert "warn" not in logged.lower()
    server, client = spans["GET /items/{number}"], spans["GET"]
    assert (client.trace_id, client.parent_id) == (server.trace_id, server.span_id)
