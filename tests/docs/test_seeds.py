"""The guides that the metrics come from: each of their code blocks about metrics runs with only its imports changed, and
the numbers that it should have produced are on the page.

What a block takes for granted (a database, a web server's request) is set up before it; what it only defines is called
after it. The guides are not part of the project: without them the tests skip.
"""

import os
import re
import subprocess
import sys
from functools import cache
from typing import NamedTuple

import pytest

from tests.support.exchanges import SHARED, need_shared

GUIDES = {"002": SHARED / "seeds" / "002_a959a5bae2dceff4.txt", "003": SHARED / "seeds" / "003_e1ea7cb610df1312.txt"}
OURS = re.compile(r"^from (observability|metrics_logger|tldw_Server_API\.app\.core\.Metrics) import", re.MULTILINE)


class Case(NamedTuple):
    guide: str
    block: int
    lines: str  # of the page, after it
    before: str = ""
    after: str = ""


COLLECTOR = "from tellmeter import *; metrics = get_metrics_collector()\n"
ANY = "class Any_:\n  def __getattr__(self, name): return lambda *a, **k: self\n"
REQUESTS = 'request_count_total{endpoint="/query",method="POST",status="200"} 1.0'
QUERY = 'request_duration_seconds_count{endpoint="/query",method="POST"} 1.0'
BEDROCK_RESULT = """
import io, json, sys, types
class Bedrock:
    fails = False
    def invoke_model(self, **given):
        if self.fails: raise RuntimeError("throttled")
        return {"body": io.BytesIO(json.dumps({"usage": {"input_tokens": 12, "output_tokens": 30}}).encode())}
utils = types.ModuleType("utils"); utils.get_bedrock_client = lambda: Bedrock(); sys.modules["utils"] = utils
"""
ASGI = """
def get(path, method="GET"):
    import asyncio
    out = []
    async def receive(): return {"type": "http.request", "body": b"", "more_body": False}
    async def send(message): out.append(message)
    scope = {"type": "http", "method": method, "path": path, "raw_path": path.encode(), "root_path": "", "headers": [],
             "query_string": b"", "scheme": "http", "server": ("t", 80), "client": ("c", 1), "http_version": "1.1"}
    asyncio.run(app(scope, receive, send))
    return out[0]["status"], b"".join(m.get("body", b"") for m in out)
"""

CASES = [
    Case(
        "002",
        0,
        f'{REQUESTS}\n{QUERY}\nbedrock_duration_seconds_count{{model_id="claude-3"}} 2.0',
        ANY + "process_request = lambda: None; bedrock = Any_()\n",
        "invoke_bedrock('a'); invoke_bedrock('b')",
    ),
    Case("002", 1, f'{REQUESTS}\ncache_hits_total{{cache_name="embeddings",operation="get",cache=""}} 5.0'),
    Case("002", 2, QUERY, COLLECTOR + "process_request = lambda: None\n"),
    Case(
        "002",
        3,
        'cache_size_bytes{cache_name="embeddings"} 104857600.0\nactive_requests{endpoint="/query"} 0.0',
        COLLECTOR,
    ),
    Case("002", 4, REQUESTS, COLLECTOR),
    Case("002", 5, f'{QUERY}\nrequest_duration_seconds_sum{{endpoint="/query",method="POST"}} 0.5', COLLECTOR),
    Case("002", 6, 'active_requests{endpoint="/query"} 10.0', COLLECTOR),
    Case("002", 7, 'active_requests{endpoint="/query"} 1.0', COLLECTOR),
    Case("002", 8, 'active_requests{endpoint="/query"} -1.0', COLLECTOR),
    Case(
        "002",
        9,
        'database_query_duration_seconds_count{operation="select",table="users"} 1.0',
        COLLECTOR + ANY + "db = Any_()\n",
    ),
    Case(
        "002",
        10,
        'active_requests{endpoint="/query"} 0.0\nseen{} 1.0'.replace("{}", ""),
        COLLECTOR
        + "def process_request():\n  set_gauge('seen', get_metrics_registry().get_metric_stats('active_requests')['sum'])\n",
    ),
    Case(
        "002",
        11,
        'bedrock_duration_seconds_count{model_id="claude-3"} 1.0',
        ANY + "get_bedrock_client = Any_\n",
    ),
    Case(
        "002",
        12,
        'api_call_duration_seconds_count{service="external"} 1.0',
        """
import asyncio, types
from tellmeter import track_duration
class Both:
    async def __aenter__(self): return self
    async def __aexit__(self, *error): return None
    def get(self, url): return self
    async def json(self): return {"url": 1}
aiohttp = types.SimpleNamespace(ClientSession=Both)
""",
        "assert asyncio.run(fetch_data('u')) == {'url': 1}",
    ),
    Case("002", 13, 'error_count_total{error_type="ValueError",endpoint="/query",function="process_query"} 1.0'),
    Case(
        "002",
        14,
        'request_duration_seconds_count{endpoint="/query",method=""} 2.0\n'
        'error_count_total{error_type="KeyError",endpoint="/query",function="handle_request"} 1.0',
        "from tellmeter import track_duration, track_errors\nprocess = lambda data: data['a']\n",
        "assert handle_request({'a': 3}) == 3\n"
        "try: handle_request({})\nexcept KeyError: pass\nelse: raise SystemExit('swallowed')",
    ),
    Case(
        "002",
        15,
        'request_count_total{endpoint="/health",method="GET",status="200"} 1.0',
        after=ASGI + "assert get('/health')[0] == 200 and b'request_count_total' in get('/metrics/')[1]",
    ),
    Case("002", 16, "", after=ASGI + "assert get('/metrics/')[0] == 200"),
    Case("002", 17, ""),
    Case(
        "002",
        18,
        'request_count_total{endpoint="/ok",method="GET",status="200"} 1.0\n'
        'request_duration_seconds_count{endpoint="/ok",method="GET"} 1.0\n'
        'error_count_total{error_type="ZeroDivisionError",endpoint="/bad",function="middleware"} 1.0\n'
        'active_requests{endpoint="/bad"} 0.0',
        after=ASGI
        + """
@app.get("/ok")
def ok(): return 1
@app.get("/bad")
def bad(): return 1 / 0
assert get("/ok")[0] == 200
try: get("/bad")
except ZeroDivisionError: pass
""",
    ),
    Case(
        "002",
        19,
        'bedrock_invocations_total{model_id="claude-3",status="started"} 2.0\n'
        'bedrock_invocations_total{model_id="claude-3",status="success"} 1.0\n'
        'bedrock_invocations_total{model_id="claude-3",status="failed"} 1.0\n'
        'token_usage_sum{model_id="claude-3",token_type="input"} 12.0\n'
        'token_usage_sum{model_id="claude-3",token_type="output"} 30.0\n'
        'bedrock_duration_seconds_count{model_id="claude-3"} 2.0\n'
        'error_count_total{error_type="RuntimeError",endpoint="",function="invoke_bedrock"} 1.0',
        BEDROCK_RESULT,
        "assert invoke_bedrock('a')['usage']['input_tokens'] == 12\nBedrock.fails = True\n"
        "try: invoke_bedrock('b')\nexcept RuntimeError: pass",
    ),
    Case(
        "002",
        20,
        'cache_hits_total{cache_name="embeddings",operation="get",cache=""} 1.0\n'
        'cache_misses_total{cache_name="embeddings",operation="get",cache=""} 1.0\n'
        'cache_size_bytes{cache_name="embeddings"} 10.0',
    ),
    Case(
        "002",
        21,
        'rag_queries_total{operation="vector_search",pipeline="",status="started"} 1.0\n'
        'rag_queries_total{operation="vector_search",pipeline="",status="success"} 1.0\n'
        'retrieval_time_seconds_count{operation="vector_search",source="chroma"} 1.0',
        ANY + "vector_db = Any_()\n",
        "vector_search('q')",
    ),
    Case(
        "002",
        22,
        'active_connections{connection_type="database"} 0.0\n'
        'database_query_duration_seconds_count{operation="select",table="users"} 1.0',
        ANY + "db_pool = Any_()\n",
        "query_users('u1')",
    ),
    Case(
        "002",
        23,
        f'{REQUESTS}\nrequest_count_total{{endpoint="",method="",status=""}} 1.0',
        COLLECTOR,
    ),
    Case(
        "002",
        25,
        'operations_total{operation="process",status="success"} 1.0',
        COLLECTOR + "process = lambda: 1\n",
    ),
    Case("002", 26, 'active_requests{endpoint="/query"} 0.0', COLLECTOR + "process_request = lambda: None\n"),
    Case("002", 27, 'request_count_total{endpoint="",method="",status=""} 1.0', after="process_request()"),
    Case(
        "003",
        0,
        'custom_events_total{type="user_action"} 1.0\nprocessing_time_seconds_sum{operation="embedding"} 0.234\n'
        'process_request_calls_total{service="api"} 1.0',
        "",
        "import asyncio; asyncio.run(process_request('r'))",
    ),
    Case(
        "003",
        1,
        'custom_operation_calls_total{component="processor"} 1.0\n'
        'custom_operation_duration_seconds_count{component="processor",status="success"} 1.0',
        "from tellmeter import track_metrics\n",
        "import asyncio; asyncio.run(process_data({}))",
    ),
    Case(
        "003",
        2,
        "api_latency_seconds_count 1.0",
        "from tellmeter import measure_latency\n",
        "import asyncio; asyncio.run(api_call())",
    ),
    Case(
        "003",
        3,
        'function_calls_total{user_id="u1"} 1.0\nfunction_calls_total{user_id=""} 1.0',
        "from tellmeter import count_calls\n",
        "process_user_request(user_id='u1'); process_user_request('u2')",
    ),
    Case(
        "003",
        4,
        'llm_requests_total{provider="openai",model="gpt-4",method="generate",status="success"} 1.0\n'
        'llm_tokens_used_total{provider="openai",model="gpt-4",type="prompt"} 1000.0\n'
        'llm_tokens_used_total{provider="openai",model="gpt-4",type="completion"} 500.0\n'
        'llm_cost_dollars_total{provider="openai",model="gpt-4"} 0.06',
        "from tellmeter import track_llm_usage\n",
        "import asyncio\nasked = call_llm.__wrapped__\n"
        "async def answer(prompt): return {'usage': {'prompt_tokens': 1000, 'completion_tokens': 500}}\n"
        "call = track_llm_usage(provider='openai', model='gpt-4', cost_per_1k_prompt=0.03, "
        "cost_per_1k_completion=0.06)(answer)\nasyncio.run(call('p'))",
    ),
    Case(
        "003",
        5,
        'cache_hits_total{cache_name="",operation="",cache="embedding_cache"} 1.0\n'
        'cache_misses_total{cache_name="",operation="",cache="embedding_cache"} 1.0\n'
        'cache_hit_ratio{cache="embedding_cache"} 0.5',
        "from tellmeter import cache_metrics\n",
        "import asyncio\nasync def get(hit): return [1.0], hit\ncached = cache_metrics(cache_name='embedding_cache')(get)\n"
        "assert asyncio.run(cached(True)) == ([1.0], True) and asyncio.run(cached(False)) == ([1.0], False)",
    ),
    Case(
        "003",
        8,
        'process_endpoint_calls_total{endpoint="process",method="POST"} 1.0',
        "import fastapi\napp = fastapi.FastAPI()\n",
        ASGI + "assert get('/api/v1/process', 'POST') == (200, b'{\"status\":\"processed\"}')",
    ),
    Case(
        "003",
        9,
        'db_query_duration_seconds_count{database="",operation="",query_type="select"} 1.0\n'
        'resource_active{resource="database_connection"} 0.0',
        "class db:\n  async def execute(query): return [query]\n",
        "import asyncio; assert asyncio.run(execute_query('q')) == ['q']",
    ),
    Case(
        "003",
        10,
        'rag_queries_total{operation="",pipeline="standard",status=""} 2.0\n'
        'rag_cache_hits_total{cache_type=""} 1.0\nrag_cache_misses_total{cache_type=""} 1.0\n'
        'rag_documents_retrieved_sum{source="",pipeline=""} 3.0\n'
        'rag_retrieval_latency_seconds_count{source="",pipeline=""} 1.0',
        "import time\nasync def check_cache(query): return query == 'known'\n"
        "async def retrieve_documents(query): return [1, 2, 3]\n",
        "import asyncio; asyncio.run(rag_search('known')); asyncio.run(rag_search('new'))",
    ),
    Case("003", 11, 'custom_business_metric_sum{category="orders",status="completed"} 42.0'),
    Case(
        "003",
        12,
        "error_rate 0.07\nalerts_total 1.0",
        "from tellmeter import *\nregistry = get_metrics_registry()\nsend_alert = lambda text: increment_counter('alerts')\n",
        "registry.set_gauge('error_rate', 0.07)",
    ),
    Case(
        "003",
        13,
        "high_volume_endpoint_calls_total 1.0",
        "from tellmeter import set_span_attribute, track_metrics\n",
        "import asyncio; asyncio.run(high_volume_endpoint())",
    ),
    Case(
        "003",
        17,
        'events_total{type="click"} 2.0\nduration_seconds_sum 1.0',
        "import warnings; warnings.simplefilter('ignore', DeprecationWarning)\n",
    ),
    Case(
        "003",
        18,
        'evaluations_total{type="rag",status="success"} 1.0\nevaluation_duration_seconds_sum 2.5',
        "import sys, types\n"
        + ANY
        + "old = types.ModuleType('app.core.Evaluations.metrics'); old.EvaluationMetrics = Any_\n"
        "for name in ('app', 'app.core', 'app.core.Evaluations'): sys.modules[name] = types.ModuleType(name)\n"
        "sys.modules[old.__name__] = old; duration = 2.5\n",
    ),
]
# Blocks about tracing, about other people's packages, or of nothing but labels.
NOT_ABOUT_METRICS = {"002": {24}, "003": {6, 7, 14, 15, 16}}


@cache
def blocks(guide):
    need_shared(GUIDES[guide])
    return re.findall(r"^```python\n(.*?)^```", GUIDES[guide].read_text("utf-8"), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.guide}-{case.block}")
def test_a_block_of_a_guide_does_what_it_says(case, tmp_path):
    block = OURS.sub("from tellmeter import", blocks(case.guide)[case.block])
    program = f"{case.before}\n{block}\n{case.after}\nimport tellmeter\nprint('=====')\n"
    program += "print(tellmeter.get_metrics_text().decode())\n"
    environ = {key: value for key, value in os.environ.items() if not key.startswith("TELLMETER_")}
    run = subprocess.run(
        [sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning:fastapi", "-c", program],
        cwd=tmp_path,
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    page = run.stdout.rpartition("=====")[2].splitlines()
    assert [line for line in case.lines.splitlines() if line not in page] == [], "\n".join(
        line for line in page if not line.startswith("#") and "_bucket" not in line
    )


@pytest.mark.parametrize("guide", GUIDES)
def test_every_block_about_metrics_is_run(guide):
    run = {case.block for case in CASES if case.guide == guide}
    assert run | NOT_ABOUT_METRICS[guide] == set(range(len(blocks(guide))))
