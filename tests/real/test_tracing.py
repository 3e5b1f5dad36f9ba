"""One trace through several processes, over real HTTP: with OpenTelemetry, and through one that has none."""

import json
import subprocess
import sys
from contextlib import ExitStack

import pytest

COMMON = """
import json, sys, urllib.request
if "without" in sys.argv:
    class Blocked:
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] == "opentelemetry": raise ModuleNotFoundError(name)
    sys.meta_path.insert(0, Blocked())
    spans = lambda: []
else:
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    spans = lambda: [json.loads(span.to_json()) for span in exporter.get_finished_spans()]

from tellmeter.telemetry.tracing import get_tracing_manager, start_span
manager = get_tracing_manager()

def ask(url):
    with start_span("ask", kind="client"):
        request = urllib.request.Request(url, headers=manager.inject_context({}))
        return json.load(urllib.request.urlopen(request, timeout=30))
"""
SERVER = (
    COMMON
    + """
import http.server
following = [argument for argument in sys.argv if argument.startswith("http")]

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        with start_span("answer", context=manager.extract_context(self.headers), kind="server"):
            below = [ask(url) for url in following]
            user = manager.get_baggage("user")
        body = json.dumps({"spans": spans(), "user": user, "below": below}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *arguments): pass

server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
"""
)
CLIENT = (
    COMMON
    + """
came = {"traceparent": "00-12345678901234567890123456789012-1234567890123456-01", "tracestate": "foo=1,t@v=2"}
with start_span("program", context=manager.extract_context(came)), manager.set_baggage("user", "\\u00fc 1"):
    answer = ask(sys.argv[1])
print(json.dumps({"spans": spans(), **answer, "own": spans()}))
"""
)


@pytest.fixture
def processes():
    with ExitStack() as stack:

        def serve(*arguments):
            process = subprocess.Popen(
                [sys.executable, "-c", SERVER, *arguments], stdout=subprocess.PIPE, text=True, encoding="utf-8"
            )
            stack.callback(process.wait)
            stack.callback(process.stdout.close)
            stack.callback(process.kill)
            return f"http://127.0.0.1:{int(process.stdout.readline())}/"

        def run(url):
            done = subprocess.run(
                [sys.executable, "-c", CLIENT, url], capture_output=True, text=True, timeout=60, check=False
            )
            assert done.returncode == 0, done.stderr
            return json.loads(done.stdout)

        yield serve, run


def ids(span):
    return span["context"]["trace_id"], span["context"]["span_id"]


def test_two_processes_join_one_trace(processes):
    serve, run = processes
    answer = run(serve())
    (server,) = answer["spans"]
    client, program = answer["own"]
    assert ids(server)[0] == ids(client)[0] == ids(program)[0] == f"0x{'12345678901234567890123456789012'}"
    assert program["parent_id"] == "0x1234567890123456"
    assert server["parent_id"] == ids(client)[1]
    assert client["parent_id"] == ids(program)[1]
    assert server["kind"] == "SpanKind.SERVER" and client["kind"] == "SpanKind.CLIENT"
    for span in (server, client, program):
        assert "key=foo, value=1" in str(span["context"]["trace_state"])
        assert "key=t@v, value=2" in str(span["context"]["trace_state"])
    assert answer["user"] == "ü 1"


def test_a_process_without_opentelemetry_between_them_passes_the_trace_on(processes):
    serve, run = processes
    last = serve()
    answer = run(serve("without", last))
    assert answer["spans"] == []
    assert answer["user"] == "ü 1"
    client, _ = answer["own"]
    (below,) = answer["below"]
    (server,) = below["spans"]
    assert ids(server)[0] == ids(client)[0]
    assert server["parent_id"] == ids(client)[1]
    assert below["user"] == "ü 1"
