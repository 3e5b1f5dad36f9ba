"""docs/client.md: its tables say what the code does, and what it promises of records and metrics is so."""

import asyncio
import gc
import inspect
import json
import re
import subprocess
import tomllib
import warnings
from pathlib import Path

import pytest

import tellmeter
from tellmeter import (
    Budget,
    BudgetExceededError,
    CallOptions,
    CircuitBreakerConfig,
    CircuitOpenError,
    InMemoryMetricsSink,
    LLMClient,
    LLMError,
    LLMTimeoutError,
    MetricsRegistry,
    RetryPolicy,
    Timeouts,
    UnknownModelError,
)
from tellmeter.client.endpoints import _ENDPOINTS, endpoint_of, provider_named
from tellmeter.client.providers.anthropic_messages import MAX_TOKENS
from tellmeter.client.sdks import _OWN
from tellmeter.failures import CATEGORIES
from tellmeter.registry.catalogue import CATALOGUE
from tellmeter.serve.page import page
from tellmeter.simulator.server import SimulatorServer
from tellmeter.simulator.traffic import Traffic
from tellmeter.testing import recorded_calls
from tellmeter.testing.contract_kit import poll
from tests.support.exchanges import SHARED, need_shared
from tests.support.servers import require

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "client.md").read_text("utf-8")
GUIDE = SHARED / "seeds" / "000_42622352e2b8ebd1.txt"
pytestmark = pytest.mark.sdk
EXTRAS = {"openai": "openai", "anthropic": "anthropic", "bedrock": "bedrock", "gemini": "gemini"}  # of `_OWN`'s modules
# Azure's other API and watsonx have no place that one could know, and speak as nobody else does.
NOT_ASKED = {"azure.ai.inference", "ibm.watsonx.ai"}
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def section(heading):
    return PAGE[PAGE.index(f"\n## {heading}\n") :].split("\n## ", 2)[1]


def rows(heading):
    """The cells of the section's tables, by row; those of its headings too."""
    return [line.strip("|").split("|") for line in section(heading).splitlines() if line.startswith("|")]


def words(cell):
    return re.findall(r"`([^`]+)`", cell)


def first_words(heading):
    return [word for row in rows(heading) for word in words(row[0])]


# ---------------------------------------------------------------------- what the page says


@pytest.mark.parametrize("number", [0, 1, 10])
def test_a_block_of_the_guide_is_on_the_page(number):
    need_shared(GUIDE)
    block = [text for kind, text in _BLOCK.findall(GUIDE.read_text("utf-8")) if kind == "python"][number]
    shown = {bare(line) for _, text in _BLOCK.findall(PAGE) for line in text.splitlines()}
    given = [bare(line).replace("SteerLLMClient", "LLMClient") for line in block.splitlines()]
    assert [line for line in given if line not in shown and "import" not in line] == []


def bare(line):
    """A line of code without its comment, and without the comma after a last argument."""
    return line.strip().partition("#")[0].rstrip().removesuffix(",")


def test_every_option_of_a_call_is_in_the_table():
    assert set(first_words("Messages")) == set(CallOptions.__annotations__)
    assert f"of `max_tokens` {MAX_TOKENS:,} at Anthropic" in PAGE


def test_every_provider_is_in_the_table_with_its_key_and_its_extra():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    told = set()
    for row in rows("Models and providers")[2:]:
        for word in words(row[0]):
            provider = provider_named(word)
            told.add(provider)
            (extra,) = re.findall(r"`tellmeter\[(\w+)\]`", row[1])
            assert extra == EXTRAS[_OWN.get(provider, _OWN["openai"])[0]] and extra in extras
            keys, url = endpoint_of(provider).keys, endpoint_of(provider).url
            if keys and provider != "ollama":  # its key is that of its cloud
                assert set(words(row[2])) == set(keys)
            assert url in ("", *words(row[3]))
    assert told == set(_ENDPOINTS) - NOT_ASKED


def test_every_error_is_in_the_table():
    told = set(first_words("Errors"))
    raised = {
        name for name, kind in vars(tellmeter.errors).items() if inspect.isclass(kind) and issubclass(kind, LLMError)
    }
    assert told == raised | {"ConfigError", "MissingExtra", "ValueError", "TimeoutError"}
    listed = section("Errors").rpartition("`category` is one of ")[2].partition(": for every provider")[0]
    assert tuple(words(listed)) == CATEGORIES


def test_the_defaults_on_the_page_are_those_of_the_code():
    defaults = Timeouts()
    assert {word: float(row[1]) for row in rows("Timeouts")[2:] for word in words(row[0])} == vars(defaults)
    shown = dict(re.findall(r"^    (\w+)=([\d.]+),", section("Circuit breaker"), re.MULTILINE))
    known = CircuitBreakerConfig()
    assert len(shown) == 6 and {name: float(value) for name, value in shown.items()} == {
        name: getattr(known, name) for name in shown
    }
    assert RetryPolicy().max_attempts == 3 and "Three attempts in all" in section("Retries")
    assert set(words(section("Retries").partition(".\n")[0])) == RetryPolicy().retry_on


def test_every_field_of_an_answer_is_in_the_table():
    told = {re.sub(r"\(.*", "", word) for word in first_words("What an answer has")}
    fields = {name for name in dir(tellmeter.GenerationResponse) if not name.startswith("_")}
    assert told == fields | set(tellmeter.GenerationResponse.__dataclass_fields__)


def test_the_metrics_on_the_page_are_in_the_catalogue():
    known = {one.name: set(one.labels) for one in CATALOGUE}
    told = [row for row in rows("What is recorded") if words(row[0])]
    assert len(told) == 7
    for row in told:
        for name in words(row[0]):
            assert set(words(row[1])) == known[name], name


def test_the_queries_are_ones(tmp_path):
    (text,) = (text for kind, text in _BLOCK.findall(PAGE) if kind == "promql")
    queries = [line for line in text.splitlines() if line and not line.startswith("#")]
    rules = [{"record": f"query:{number}", "expr": query} for number, query in enumerate(queries)]
    (tmp_path / "rules.yml").write_text(json.dumps({"groups": [{"name": "page", "rules": rules}]}))
    command = [require("promtool"), "check", "rules", "rules.yml"]
    judged = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert judged.returncode == 0 and f"{len(queries)} rules found" in judged.stdout, judged.stdout + judged.stderr


def test_headings_that_are_linked_to_are_there():
    anchors = {
        re.sub(r"[^\w -]", "", one.lower()).replace(" ", "-") for one in re.findall(r"^##+ (.*)$", PAGE, re.MULTILINE)
    }
    linked = set(re.findall(r"\]\(#([\w-]+)\)", PAGE))
    assert linked and linked <= anchors


# ---------------------------------------------------------------------- what it promises


@pytest.fixture
def simulator():
    with SimulatorServer(Traffic(speed=0)) as server:
        yield server


def made(simulator, **options):
    """A client that asks the simulator, and where its records and metrics are."""
    sink, registry = InMemoryMetricsSink(), MetricsRegistry()
    urls = {"openai": simulator.openai_url, "anthropic": simulator.url}
    options = {"retry_policy": RetryPolicy(initial_delay=0.001), **options}
    keys = {"anthropic": "none"}
    client = LLMClient("none", api_keys=keys, base_urls=urls, metrics_sinks=[sink], registry=registry, **options)
    return client, sink, registry


async def newest(sink):
    return (await sink.get_metrics(limit=1))[0]


def lines(registry):
    return b"".join(page(registry)).decode().splitlines()


def test_every_end_is_recorded_as_the_table_says(simulator):
    client, sink, registry = made(simulator, budgets=[Budget(limit_tokens=1, per="tenant", name="small")])

    async def ends():
        simulator.script(429, 500)
        answer = await client.generate("Hello!", model="gpt-4o")
        yield "success", await newest(sink)
        assert (answer.metrics.retries, answer.metrics.error_class) == (2, None)
        simulator.script(401)
        with pytest.raises(LLMError) as raised:
            await client.generate("Hello!", model="gpt-4o", tags={"tenant": "a"})
        yield "error", await newest(sink)
        assert (await newest(sink)).error_class == type(raised.value.original_error).__name__ == "AuthenticationError"
        simulator.script("stall;after=0;seconds=3600")
        with pytest.raises(LLMTimeoutError):
            await client.generate("Hello!", model="gpt-4o", timeouts=Timeouts(total=0.05), tags={"tenant": "b"})
        yield "timeout", await newest(sink)
        with pytest.raises(UnknownModelError):
            await client.generate("Hello!", model="invalid-model")
        yield "error", await newest(sink)
        assert (await newest(sink)).provider == "unknown"
        with pytest.raises(BudgetExceededError):
            await client.generate("Hello!", model="gpt-4o")
        yield "rejected", await newest(sink)
        assert ((await newest(sink)).error_category, (await newest(sink)).total_tokens) == ("budget", 0)
        async with client.stream_with_usage("Hello!", model="gpt-4o", tags={"tenant": "c"}) as stream:
            async for _ in stream:
                break
        yield "closed_early", await newest(sink)
        assert (await newest(sink)).tokens_estimated and stream.get_usage().output_tokens > 0
        simulator.script("stall;after=0;seconds=3600")
        served = len(simulator.served)
        task = asyncio.create_task(client.generate("Hello!", model="gpt-4o", tags={"tenant": "d"}))
        await asyncio.to_thread(poll, lambda: len(simulator.served) > served, lambda: "nothing was sent")
        task.cancel()
        await asyncio.wait([task])
        yield "cancelled", await newest(sink)

    async def run():
        async with client:
            told = {word for row in rows("What is recorded") for word in words(row[1])}
            async for status, record in ends():
                assert record.status == status and status in told

    asyncio.run(run())
    assert 'llm_budget_rejections_total{budget="small"} 1.0' in lines(registry)


def test_a_fallback_is_one_record_for_each_model_and_is_counted(simulator):
    client, sink, registry = made(simulator)
    simulator.script(401)
    with client:
        answer = client.generate_sync("Hello!", model="gpt-4o", fallback_models=["claude-haiku-4-5"])
    second, first = asyncio.run(sink.get_metrics())
    assert (first.model, first.status, second.model, second.status) == (
        "gpt-4o",
        "error",
        "claude-haiku-4-5",
        "success",
    )
    assert second.tags == {"fallback_for": "gpt-4o"} and first.request_id == second.request_id == answer.request_id
    assert 'llm_fallbacks_total{provider="openai",model="gpt-4o",fallback_model="claude-haiku-4-5"} 1.0' in lines(
        registry
    )


def test_a_provider_that_keeps_failing_is_given_a_rest(simulator):
    breaker = CircuitBreakerConfig(failure_threshold=2, failure_rate_threshold=0)
    client, sink, registry = made(simulator, circuit_breaker=breaker, retry_policy=RetryPolicy(max_attempts=1))
    simulator.script(500, 500)
    with client:
        for _ in range(2):
            with pytest.raises(LLMError):
                client.generate_sync("Hello!", model="gpt-4o")
        with pytest.raises(CircuitOpenError) as raised:
            client.generate_sync("Hello!", model="gpt-4o")
        shown = lines(registry)
    assert raised.value.retry_after > 0 and len(simulator.served) == 2
    assert [one.status for one in asyncio.run(sink.get_metrics())] == ["rejected", "error", "error"]
    for name, value in {"state": 1, "open": 1, "trips_total": 1, "rejections_total": 1}.items():
        assert f'llm_circuit_breaker_{name}{{provider="openai"}} {value}.0' in shown


def test_a_client_that_was_made_before_configure_records_to_what_that_made(simulator):
    client = LLMClient("none", base_urls={"openai": simulator.openai_url})
    with recorded_calls() as calls:
        client.generate_sync("Hello!", model="gpt-4o")
        tellmeter.configure(sinks=["memory:"])
        answer = client.generate_sync("Hello!", model="gpt-4o-mini")
        assert client.metrics_collector is tellmeter.get_metrics_collector()
        assert calls.models == {"gpt-4o": 1, "gpt-4o-mini": 1}
    assert answer.cost_usd
    client.close()


def test_an_answer_goes_on_as_a_message(simulator):
    tools = [{"type": "function", "function": {"name": "stock", "parameters": {"type": "object", "properties": {}}}}]
    client, _, _ = made(simulator)
    with client:
        for model in ("gpt-4o", "claude-haiku-4-5"):
            answer = client.generate_sync("Hello!", model=model, tools=tools, tool_choice="required")
            (call,) = answer.tool_calls
            result = {"role": "tool", "tool_call_id": call.id, "content": "12"}
            said = [{"role": "user", "content": "Hello!"}, answer.as_message(), result]
            assert client.generate_sync(said, model=model, tools=tools, tool_choice="none").text
        answer = client.generate_sync("Hello!", model="gpt-4o")
        assert answer.as_message() == {"role": "assistant", "content": answer.text}
        assert client.generate_sync("Hello!", model="gpt-4o", response_format="json").get_json()
        with pytest.raises(ValueError, match="JSON"):
            answer.get_json()


def test_an_event_loop_that_ends_takes_the_connections_of_an_unclosed_client_with_it(simulator):
    client, _, _ = made(simulator)

    async def ask():
        for model in ("gpt-4o", "claude-haiku-4-5"):
            await client.generate("Hello!", model=model)

    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        asyncio.run(ask())
        asyncio.run(ask())
        gc.collect()
    assert [str(one.message) for one in warned if issubclass(one.category, ResourceWarning)] == []
    client.close()
