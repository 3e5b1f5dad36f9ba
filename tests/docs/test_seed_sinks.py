"""The guides that the sinks come from: each of their Python blocks runs with only its imports changed, with servers that
are well and with servers that are down. Their client is the LLMClient, and the simulator answers it. The application
notices nothing of the sinks, and the ledger adds up.

The guides' own sinks are used as a user who wrote them would, on our collector; then ours of the same names in their place.
What the guides' sinks swallow is theirs. The guides are not part of the project: without
them the tests skip.
"""

import os
import re
import subprocess
import sys
from contextlib import ExitStack
from functools import cache
from typing import NamedTuple

import pytest

from tellmeter.simulator.server import SimulatorServer
from tellmeter.simulator.traffic import Traffic
from tests.support.exchanges import SHARED, need_shared
from tests.support.guide_backends import backend
from tests.support.guide_program import read_told
from tests.unit.sinks.made import PATHS

GUIDES = {"000": SHARED / "seeds" / "000_42622352e2b8ebd1.txt", "001": SHARED / "seeds" / "001_2fa0d0aec5d2b246.txt"}
# Their packages' names -> ours.
NAMES = {
    r"^from steer_llm_sdk import": "from tellmeter import",
    r"\bSteerLLMClient\b": "LLMClient",
    r"^from steer_llm_sdk\.observability\.sinks import": "from tellmeter.sinks import",
    r"^from steer_llm_sdk\.observability(\.metrics)? import": "from tellmeter import",
    r'"steer_llm_sdk\.observability"': '"tellmeter"',
}
# What the blocks take as imported.
IMPORTS = """
import asyncio, logging, os, time
import httpx
from tellmeter import AgentMetrics, LLMClient, MetricsConfig
from tellmeter.sinks import InMemoryMetricsSink, MetricsSink
logger = logging.getLogger("guide")
"""
CLIENT = """
client = LLMClient(metrics_config=MetricsConfig(), metrics_sinks=[InMemoryMetricsSink()])
answer = await client.generate("Hi", model="gpt-4")
"""
ASK = "answer = await client.generate('Hi', model='gpt-4'); assert answer.text and answer.usage.total_tokens"


class Case(NamedTuple):
    guide: str
    block: int
    after: str = ""
    before: str = ""
    earlier: tuple[int, ...] = ()  # blocks of the guide that come before it
    only: str | None = ""  # of the block, from here on; None for nothing of it, where it only defines the sink
    backends: tuple[str, ...] = ()
    ours: bool = False  # with our sinks in place of the guide's own
    name: str = ""

    @property
    def id(self) -> str:
        return f"{self.guide}-{self.block}{self.name and '-'}{self.name}"


DATADOG = """
theirs = DatadogMetricsSink.__init__
def pointed(self, *given, **named):
    theirs(self, *given, **named)
    self.api_url = os.environ["DD_URL"] + "/api/v2/series"
DatadogMetricsSink.__init__ = pointed
"""
OURS_HTTP = """
from tellmeter import sinks
def HTTPMetricsSink(endpoint, api_key):
    assert endpoint.startswith("https://")
    return sinks.HTTPMetricsSink(endpoint=os.environ["HTTP_URL"] + "/v1/ingest", api_key=api_key)
"""
OURS = """
from tellmeter.sinks import CloudWatchMetricsSink, DatadogMetricsSink, PostgreSQLMetricsSink
"""
OURS_OTEL = "from tellmeter.sinks import OTelMetricsSink\n"
CASES = [
    Case(
        "000",
        0,
        """
(record,) = await client.metrics_collector.sinks[0].get_metrics()
assert (record.model, record.provider, record.status, record.error_class) == ("gpt-4", "openai", "success", None)
assert record.total_tokens == response.usage.total_tokens == response.usage["total_tokens"] > 0
assert record.cost_usd == response.cost_usd == response.cost_breakdown["total_cost"] > 0
assert response.text and response.metrics is record and record.latency_ms > 0
""",
    ),
    Case(
        "000",
        1,
        "assert (summary.count, summary.error_rate, summary.models) == (1, 0.0, {'gpt-4': 1})\n"
        "assert summary.avg_latency_ms == metrics[0].latency_ms > 0\n"
        "assert summary.total_tokens == metrics[0].total_tokens == answer.usage.total_tokens > 0",
        CLIENT,
    ),
    Case("000", 2, ASK, backends=("otlp",), ours=True),
    Case("000", 3, "assert config.streaming_sampling_rate == 0.5 and config.enable_cost_tracking"),
    Case(
        "000",
        4,
        """
sink = InMemoryMetricsSink()
client = LLMClient(metrics_config=config, metrics_sinks=[sink])
client.metrics_collector.record(AgentMetrics(model="a", input_tokens=1001))
os.environ["ENVIRONMENT"] = "production"
await client.metrics_collector.flush()
for tokens in (1000, 1001):
    client.metrics_collector.record(AgentMetrics(model="a", input_tokens=tokens))
client.metrics_collector.record(AgentMetrics(model="a", error_class="E"))
os.environ["ENVIRONMENT"] = "production"
assert [one.total_tokens for one in await sink.get_metrics()] == [0, 1001]
""",
        "os.environ['ENVIRONMENT'] = 'test'\n",
    ),
    Case("000", 5, "assert (config.batch_size, config.batch_timeout_seconds) == (500, 5.0)"),
    Case(
        "000",
        6,
        f"{ASK}; await client.metrics_collector.flush()\nassert [one.id for one in kept] == [answer.metrics.id]",
        "kept = []\nclass CustomDataWarehouseSink:\n  async def record(self, metrics): kept.append(metrics)\n",
        backends=("otlp",),
        ours=True,
    ),
    Case(
        "000",
        7,
        f"{ASK}\n"
        "assert (await client.metrics_collector.sinks[0].get_summary()).count == 1\n"
        "assert client.metrics_collector.config.batch_size == 7",
        "os.environ.update(ENVIRONMENT='development', METRICS_BATCH_SIZE='7')\n",
    ),
    Case(
        "000",
        7,
        f"{ASK}; assert len(client.metrics_collector.sinks) == 1",
        OURS_OTEL,
        backends=("otlp",),
        ours=True,
        name="otlp",
    ),
    Case(
        "000",
        8,
        ASK
        + """
async with app.router.lifespan_context(app):
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://guide") as web:
        summary = (await web.get("/metrics/summary")).json()
        assert (summary["requests"], summary["error_rate"]) == (1, 0.0) and summary["p95_latency_ms"] > 0
        assert (summary["providers"], summary["models"]) == ({"openai": 1}, {"gpt-4": 1})
        assert summary["total_tokens"] == answer.usage.total_tokens
        (recent,) = (await web.get("/metrics/recent?limit=5")).json()
        assert (recent["tokens"], recent["error"]) == (answer.usage.total_tokens, None) and recent["timestamp"] > 0
        assert (await web.delete("/metrics")).json() == {"status": "cleared"}
        assert (await web.get("/metrics/recent")).json() == []
""",
    ),
    Case(
        "000",
        9,
        "(sink,) = client.metrics_collector.sinks; sink.endpoint = os.environ['HTTP_URL']; sink.api_key = 'k'\n"
        "for _ in range(120): await client.generate('Hi', model='gpt-4')\nawait client.metrics_collector.flush()",
        backends=("http",),
    ),
    Case(
        "000",
        9,
        f"{ASK}; await client.metrics_collector.flush(2)",
        OURS_HTTP,
        only="# Use custom sink",
        backends=("http",),
        ours=True,
        name="ours",
    ),
    Case("000", 11, "import sys; logging.basicConfig(stream=sys.stdout); await use(InMemoryMetricsSink())"),
    Case("000", 12, "", CLIENT),
    Case("000", 13, "assert stats['stored_metrics'] == 1", CLIENT),
    Case(
        "001",
        0,
        "kept = []\nclass Mine(MetricsSink):\n  async def record(self, metrics): kept.append(metrics)\n"
        "await use(Mine())\nassert len(kept) == 25",
    ),
    Case("001", 1, "await use(CloudWatchMetricsSink())", backends=("cloudwatch",)),
    Case("001", 2, DATADOG + "await use(DatadogMetricsSink('key'))", backends=("datadog",)),
    Case(
        "001",
        3,
        "await use(InfluxDBMetricsSink(os.environ['INFLUX_URL'], 'token', 'org', 'bucket'))",
        backends=("influxdb",),
    ),
    Case(
        "001",
        3,
        "await use(InfluxDBMetricsSink(os.environ['INFLUX_URL'], 'token', 'org', 'bucket'))",
        "from tellmeter.sinks import InfluxDBMetricsSink\n",
        only=None,
        backends=("influxdb",),
        ours=True,
        name="ours",
    ),
    Case(
        "001",
        4,
        "await use(PostgreSQLMetricsSink('postgresql://user:pass@localhost/metrics'))",
        backends=("postgresql",),
    ),
    Case(
        "001",
        5,
        """
kept = []
class Mine(ResilientMetricsSink):
    async def _do_record(self, metrics):
        if metrics.failed: raise ConnectionError("down")
        kept.append(metrics)
    async def _do_flush(self): raise ConnectionError("down")
await use(Mine())
assert len(kept) == 20
""",
    ),
    Case(
        "001",
        6,
        "kept = []\nclass Mine(BufferedMetricsSink):\n  async def _send_batch(self, batch): kept.extend(batch)\n"
        "await use(Mine(batch_size=10))\nassert len(kept) == 25",
    ),
    Case(
        "001",
        7,
        """
class Local(httpx.AsyncHTTPTransport):
    async def handle_async_request(self, request):
        request.url = httpx.URL(os.environ["HTTP_URL"] + request.url.path)
        return await super().handle_async_request(request)
AsyncMetricsSink._serialize = lambda self, metrics: {"metrics": [{"id": metrics.id}]}
sink = AsyncMetricsSink()
sink.session = httpx.AsyncClient(transport=Local())
await use(sink)
""",
        backends=("http",),
    ),
    Case(
        "001",
        8,
        """
import asyncpg
made = []
async def create_connection():
    made.append(await asyncpg.connect("postgresql://user:pass@localhost/metrics"))
    return made[-1]
class Mine(ManagedMetricsSink):
    async def record(self, metrics): await self.connection.execute("CREATE TABLE IF NOT EXISTS llm_metrics ()")
await use(Mine())
try:
    async with Mine() as entered:
        await entered.record(AgentMetrics(model="gpt-4"))
except OSError:
    assert not made
else:
    assert made[-1].is_closed()
""",
        backends=("postgresql",),
    ),
    Case("001", 10, "", DATADOG, earlier=(1, 2, 4), backends=("cloudwatch", "datadog", "postgresql"), name="theirs"),
    Case(
        "001",
        10,
        "",
        OURS,
        backends=("cloudwatch", "datadog", "postgresql"),
        ours=True,
        name="ours",
    ),
]
# Blocks that are tests themselves: what they take as given -> how many pass.
CUSTOM = """
class CustomMetricsSink(MetricsSink):
    async def record(self, metrics):
        try:
            await self._send_to_backend(metrics)
        except Exception as error:
            logger.error("not recorded: %s", type(error).__name__)
"""
TESTS = {("000", 10): ("", 2), ("001", 9): (CUSTOM, 2)}


@cache
def blocks(guide):
    need_shared(GUIDES[guide])
    return re.findall(r"^```python\n(.*?)^```", GUIDES[guide].read_text("utf-8"), re.MULTILINE | re.DOTALL)


def block_of(guide, number, only=""):
    """A block with our names in place of the guide's."""
    text = blocks(guide)[number]
    text = "" if only is None else text[text.index(only) :]
    for theirs, ours in NAMES.items():
        text = re.sub(theirs, ours, text, flags=re.MULTILINE)
    return text


@pytest.fixture(scope="module")
def provider():
    """What the SDKs' own environment variables say: a simulator, and a key that is made up."""
    with SimulatorServer(Traffic(speed=0)) as server:
        yield {"OPENAI_BASE_URL": server.openai_url, "OPENAI_API_KEY": "made-up"}


def run(program, folder, *command, **environ):
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("TELLMETER_", "METRICS_"))}
    return subprocess.run(
        [sys.executable, *command],
        input=program,
        cwd=folder,
        env={**inherited, **PATHS, **environ},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )


def runs():
    for case in CASES:
        for up in (True, False) if case.backends else (True,):
            slow = [pytest.mark.heavy] if case.ours and not up else []  # its flush has 10 s
            yield pytest.param(case, up, id=f"{case.id}{'' if up else '-down'}", marks=slow)


@pytest.mark.parametrize(("case", "up"), list(runs()))
def test_a_block_of_a_guide_does_no_harm_to_the_application(case, up, provider, tmp_path):
    block = block_of(case.guide, case.block, case.only)
    earlier = "".join(block_of(case.guide, number) for number in case.earlier)
    program = f"{IMPORTS}\n{earlier}\n{case.before}\n{block}\n{case.after}"
    with ExitStack() as stack:
        backends = [stack.enter_context(backend(name, up=up)) for name in case.backends]
        environ = provider | {name: value for one in backends for name, value in one.environ.items()}
        command = f"from tests.support.guide_program import main; main({60 if up else 2})"
        done = run(program, tmp_path, "-c", command, **environ)
        said = done.stdout + done.stderr
        assert done.returncode == 0, said
        assert "Traceback" not in said and "Exception ignored" not in said, said
        sinks = [sink for told in read_told(done.stdout) for sink in told.sinks.values()]
        if case.backends:
            assert sinks and all(sink.accepted for sink in sinks)
        if up:
            assert not any(sink.dropped for sink in sinks), said
            for name, one in zip(case.backends, backends, strict=True):
                if not case.ours and not one.has_come(5):
                    # A guide's own sink may write on threads that the end of the program does not wait for.
                    run(program, tmp_path, "-c", command, **environ)
                one.wait(f"nothing reached {name}: {said}")
        elif case.ours and "otlp" not in case.backends:  # OpenTelemetry has what is measured, in memory
            assert not any(sink.delivered for sink in sinks), said


@pytest.mark.parametrize(("guide", "number"), TESTS, ids=str)
def test_the_tests_of_a_guide_pass(guide, number, provider, tmp_path):
    block = block_of(guide, number)
    given, passing = TESTS[guide, number]
    (tmp_path / "test_guide.py").write_text(f"{IMPORTS}\n{given}\n{block}", "utf-8")
    options = ["-o", "asyncio_default_fixture_loop_scope=function", "-p", "no:cacheprovider", "-W", "error"]
    done = run("", tmp_path, "-m", "pytest", "-q", *options, "test_guide.py", **provider)
    assert done.returncode == 0 and f"{passing} passed" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize("guide", GUIDES)
def test_every_block_is_run(guide):
    covered = {case.block for case in CASES if case.guide == guide} | {number for of, number in TESTS if of == guide}
    assert covered == set(range(len(blocks(guide))))
