"""The tracing blocks of the guide that tracing comes from: each runs as it is written, but for its import line.

With OpenTelemetry the spans are asserted; without it, that everything runs. Without the guide the tests skip.
"""

import os
import re
import subprocess
import sys
from functools import cache
from typing import NamedTuple

import pytest

from tests.support.exchanges import SHARED, need_shared

GUIDE = SHARED / "seeds" / "003_e1ea7cb610df1312.txt"
OURS = re.compile(r"^from tldw_Server_API\.app\.core\.Metrics import", re.MULTILINE)
WITH = """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
exporter = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)
def spans(): return {span.name: span for span in exporter.get_finished_spans()}
"""
WITHOUT = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if f"{name}.".startswith("{blocked}."): raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Blocked())
"""
SENT = "00-12345678901234567890123456789012-1234567890123456-01"
REQUEST = f"""
import types, tellmeter
request = types.SimpleNamespace(headers={{"Traceparent": "{SENT}", "TraceState": "foo=1", "baggage": "user=u"}})
url = "http://there"
asked = []
async def get(url, headers): asked.append(dict(headers))
httpx = types.SimpleNamespace(get=get)
"""
ASGI = """
def post(path):
    out = []
    async def receive(): return {"type": "http.request", "body": b"", "more_body": False}
    async def send(message): out.append(message)
    scope = {"type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "root_path": "", "headers": [],
             "query_string": b"", "scheme": "http", "server": ("t", 80), "client": ("c", 1), "http_version": "1.1"}
    asyncio.run(app(scope, receive, send))
    return out[0]["status"], b"".join(m.get("body", b"") for m in out)
"""


class Case(NamedTuple):
    block: int
    before: str
    after: str  # with OpenTelemetry and without
    spans: str = ""  # with it
    awaits: bool = False  # at the top of the block, as in a notebook
    blocked: str = "opentelemetry"  # what is not installed


CASES = [
    Case(
        0,
        "",
        "asyncio.run(query_database('select'))",
        "assert list(spans()) == ['database_query']\nassert spans()['database_query'].status.is_unset",
    ),
    Case(
        6,
        "async def process_batch(): return [1, 2, 3]\n",
        "assert asyncio.run(complex_operation()) == [1, 2, 3]",
        "span = spans()['complex_operation']\n"
        "assert dict(span.attributes) == {'operation.type': 'batch_processing'}\n"
        "assert [(event.name, dict(event.attributes)) for event in span.events] == [\n"
        "    ('Processing started', {'batch_size': 100}), ('Processing completed', {'items_processed': 3})]\n"
        "assert span.parent is None and span.status.is_unset",
    ),
    Case(
        7,
        REQUEST,
        "assert context is not None and asked == [{}]\n"  # extracting attaches nothing
        "with manager.start_span('child', context=context): sent = manager.inject_context({})\n"
        f"assert sent['tracestate'] == 'foo=1' and sent['baggage'] == 'user=u' and sent['traceparent'][:36] == '{SENT[:36]}'\n",
        "child = spans()['child']\n"
        "assert f'{child.context.trace_id:032x}' == '12345678901234567890123456789012'\n"
        "assert f'{child.parent.span_id:016x}' == '1234567890123456' and child.parent.is_remote\n"
        "assert sent['traceparent'] == f'00-{child.context.trace_id:032x}-{child.context.span_id:016x}-01'",
        awaits=True,
    ),
    Case(
        8,
        "import fastapi\napp = fastapi.FastAPI()\n",
        ASGI + "assert post('/api/v1/process') == (200, b'{\"status\":\"processed\"}')",
        "assert spans()['process_endpoint'].parent is not None",  # FastAPI's own span
        blocked="opentelemetry.sdk",  # FastAPI needs the API itself
    ),
    Case(
        13,
        "from tellmeter import *\nimport random\nrandom.random = lambda: 0.05\n",
        "asyncio.run(high_volume_endpoint())\n"
        "async def inside():\n    async with start_span('endpoint'): await high_volume_endpoint()\nasyncio.run(inside())",
        "assert dict(spans()['endpoint'].attributes) == {'sampled': True}",
    ),
    Case(14, "", "assert OTEL_AVAILABLE is ('provider' in globals())"),
    Case(16, REQUEST, ""),
]


@cache
def blocks():
    need_shared(GUIDE)
    return re.findall(r"^```python\n(.*?)^```", GUIDE.read_text("utf-8"), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("opentelemetry", [True, False], ids=["with", "without"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"003-{case.block}")
def test_a_block_about_tracing_does_what_it_says(case, opentelemetry, tmp_path):
    block = OURS.sub("from tellmeter import", blocks()[case.block])
    program = f"{WITH if opentelemetry else WITHOUT.replace('{blocked}', case.blocked)}\nimport ast, asyncio, inspect\n{case.before}\n"
    if case.awaits:
        program += f"code = compile({block!r}, 'block', 'exec', ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)\n"
        program += "found = eval(code, globals())\nif inspect.iscoroutine(found): asyncio.run(found)\n"
    else:
        program += block
    program += f"\n{case.after}\n{case.spans if opentelemetry else ''}\n"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning:fastapi", "-c", program],
        cwd=tmp_path,
        env={key: value for key, value in os.environ.items() if not key.startswith("TELLMETER_")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
