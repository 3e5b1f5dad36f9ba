"""A program with the real openai SDK and one line of telemetry, as stores of others show its spans and its metrics.

What they have to show is what the SDK itself told the program: usage, models and ids of its answers.
"""

import json
import subprocess
import sys
from collections import Counter
from importlib.util import find_spec

import pytest

from tellmeter.simulator.server import SimulatorServer
from tellmeter.simulator.traffic import Traffic
from tests.support.interpreters import environment
from tests.support.otlp import Rotel, settled
from tests.support.span_stores import Phoenix, SpanRotel, arrived

pytest.importorskip("opentelemetry.sdk.trace")

PROGRAM = """
import asyncio, json, os, sys, urllib.request
import openai, tellmeter

telemetry = tellmeter.initialize_telemetry(trace_calls=sys.argv[1])
tellmeter.instrument()
client = openai.OpenAI(max_retries=0)
told = {}

def faults(*script):
    url = os.environ["OPENAI_BASE_URL"].removesuffix("/v1") + "/__faults"
    urllib.request.urlopen(urllib.request.Request(url, json.dumps(script).encode(), method="POST")).close()

def tell(name, answer, usage_in, usage_out=None):
    told[name] = {"id": getattr(answer, "id", None), "model": answer.model, "in": usage_in, "out": usage_out}

async def embed():
    async with openai.AsyncOpenAI(max_retries=0) as embedder:
        answer = await embedder.embeddings.create(model="text-embedding-3-small", input=["a zebra"], dimensions=16)
    tell("embeddings text-embedding-3-small", answer, answer.usage.prompt_tokens)

with tellmeter.start_span("handle", kind="server"), tellmeter.tags(feature="shop"):
    with tellmeter.agent_run("planner", agent_id="a-1"):
        messages = [{"role": "user", "content": "Where is the zebra?"}]
        answer = client.chat.completions.create(
            model="gpt-4.1-mini", messages=messages, temperature=0.5, max_tokens=50, seed=7
        )
        tell("chat gpt-4.1-mini", answer, answer.usage.prompt_tokens, answer.usage.completion_tokens)
        with tellmeter.tool_call("search", call_id="call_1"):
            for event in client.responses.create(model="gpt-4.1", input="A zebra?", stream=True):
                if event.type == "response.completed":
                    answer = event.response
        tell("chat gpt-4.1", answer, answer.usage.input_tokens, answer.usage.output_tokens)
        asyncio.run(embed())
    faults("401")
    try:
        client.chat.completions.create(model="gpt-4o", messages=messages)
    except openai.AuthenticationError as error:
        told["chat gpt-4o"] = type(error).__name__

print(json.dumps({"flushed": telemetry.flush(60), "told": told}))
"""
PARENTS = {
    "handle": None,
    "invoke_agent planner": "handle",
    "chat gpt-4.1-mini": "invoke_agent planner",
    "execute_tool search": "invoke_agent planner",
    "chat gpt-4.1": "execute_tool search",
    "embeddings text-embedding-3-small": "invoke_agent planner",
    "chat gpt-4o": "handle",
}
CALLS = [name for name in PARENTS if name.partition(" ")[0] in ("chat", "embeddings")]
needs_grpc = pytest.mark.skipif(
    find_spec("opentelemetry.exporter.otlp.proto.grpc") is None,
    reason="opentelemetry-exporter-otlp-proto-grpc is not installed",
)
HTTP, GRPC = "http/protobuf", pytest.param("grpc", marks=needs_grpc)


def run(store, protocol=HTTP, mode="finished", metrics=None, project="default"):
    """What the SDK told the program, whose spans went to `store`, and its metrics to `metrics`."""

    def place(receiver):
        return receiver.grpc_url if protocol == "grpc" else receiver.url

    plain = {name: value for name, value in environment().items() if not name.startswith(("OTEL_", "TELLMETER_"))}
    settings = {
        "OTEL_SERVICE_NAME": "shop",
        "OTEL_RESOURCE_ATTRIBUTES": f"openinference.project.name={project}",
        "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
        "OTEL_EXPORTER_OTLP_ENDPOINT": place(store),
        "OTEL_METRICS_EXPORTER": "otlp" if metrics else "none",
    }
    if metrics:
        path = "" if protocol == "grpc" else "/v1/metrics"
        settings["OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"] = place(metrics) + path
    with SimulatorServer(Traffic(speed=0)) as simulator:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", PROGRAM, mode],
            env={**plain, **settings, "OPENAI_BASE_URL": simulator.openai_url, "OPENAI_API_KEY": "sk-zebra"},
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["flushed"]
    return found["told"]


def check(spans, told):
    """What holds in every store."""
    assert {span.trace_id for span in spans.values()} == {spans["handle"].trace_id}
    for name, parent in PARENTS.items():
        assert spans[name].parent_id == (spans[parent].span_id if parent else "")
        assert spans[name].status == ("ERROR" if name == "chat gpt-4o" else "UNSET")
        if parent:  # microseconds of rounding aside
            assert spans[parent].start - 1e-5 <= spans[name].start <= spans[name].end <= spans[parent].end + 1e-5
    for name in CALLS:
        attributes = spans[name].attributes
        operation, model = name.split(" ")
        assert attributes["gen_ai.operation.name"] == operation
        assert attributes["gen_ai.request.model"] == model
        assert attributes["gen_ai.provider.name"] == "openai"
        assert attributes["tellmeter.tags.feature"] == "shop"
        if name == "chat gpt-4o":
            assert (attributes["error.type"], attributes["http.response.status_code"]) == (told[name], 401)
            continue
        answer = told[name]
        assert attributes["gen_ai.response.model"] == answer["model"]
        assert attributes.get("gen_ai.response.id") == answer["id"]
        assert attributes["gen_ai.usage.input_tokens"] == answer["in"]
        assert attributes.get("gen_ai.usage.output_tokens") == answer["out"]
        assert attributes["tellmeter.cost_usd"] > 0
    asked = spans["chat gpt-4.1-mini"].attributes
    assert asked["gen_ai.request.temperature"] == 0.5
    assert (asked["gen_ai.request.max_tokens"], asked["gen_ai.request.seed"]) == (50, 7)
    assert spans["embeddings text-embedding-3-small"].attributes["gen_ai.embeddings.dimension.count"] == 16
    streamed = spans["chat gpt-4.1"]
    assert streamed.attributes["gen_ai.request.stream"] is True
    seconds = streamed.attributes["gen_ai.response.time_to_first_chunk"]
    assert 0 < seconds <= streamed.end - streamed.start + 1e-5
    assert streamed.attributes["tellmeter.tags.agent"] == "planner"
    assert streamed.attributes["tellmeter.tags.tool"] == "search"
    assert spans["invoke_agent planner"].attributes["gen_ai.agent.id"] == "a-1"
    assert spans["execute_tool search"].attributes["gen_ai.tool.call.id"] == "call_1"
    assert "zebra" not in repr(spans)  # neither prompts nor keys


@pytest.mark.parametrize(
    ("protocol", "mode"),
    [(HTTP, "finished"), (HTTP, "live"), pytest.param("grpc", "finished", marks=needs_grpc)],
)
def test_rotel_has_the_spans_and_the_metrics(protocol, mode):
    traces, metrics = SpanRotel(), Rotel()
    try:
        told = run(traces, protocol, mode, metrics)
        spans = arrived(traces.spans, PARENTS)
        points = metrics.points()
    finally:
        traces.close()
        metrics.close()
    check(spans, told)
    expected = {**dict.fromkeys(PARENTS, "INTERNAL"), **dict.fromkeys(CALLS, "CLIENT"), "handle": "SERVER"}
    assert {name: span.kind for name, span in spans.items()} == expected
    check_metrics(points, told)


def check_metrics(points, told):
    assert {point.resource["service.name"] for point in points} == {"shop"}
    units = {point.name: point.unit for point in points}
    assert (units["llm_request_duration"], units["gen_ai.client.operation.duration"]) == ("s", "s")
    assert units["gen_ai.client.token.usage"] == "{token}"
    calls, tokens, usage = Counter(), Counter(), Counter()
    for (name, pairs), value in settled(points).items():
        attributes = dict(pairs)
        if name == "llm_requests":
            calls[attributes["model"], attributes["status"]] += value
        elif name == "llm_tokens" and attributes["type"] in ("input", "output"):
            tokens[attributes["model"], attributes["type"]] += value
        elif name == "gen_ai.client.token.usage":
            usage[attributes["gen_ai.request.model"], attributes["gen_ai.token.type"]] += value[1]
        elif name in ("agent_runs", "tool_calls"):
            calls[attributes.get("agent") or attributes["tool"], attributes["status"]] += value
    names = {name: name.split(" ")[1] for name in CALLS}
    assert calls == {
        **{(model, "error" if model == "gpt-4o" else "success"): 1 for model in names.values()},
        ("planner", "success"): 1,
        ("search", "success"): 1,
    }
    expected = {
        (names[name], kind): answer[key]
        for name, answer in told.items()
        if isinstance(answer, dict)
        for key, kind in (("in", "input"), ("out", "output"))
        if answer[key]
    }
    assert {key: value for key, value in tokens.items() if value} == expected == dict(usage)


@pytest.fixture(scope="module")
def phoenix():
    one = Phoenix()
    yield one
    one.close()


@pytest.mark.heavy
@pytest.mark.timeout(300)  # Phoenix starts in it
@pytest.mark.parametrize("protocol", [HTTP, GRPC])
def test_phoenix_shows_the_calls_as_llm_spans(phoenix, protocol):
    project = protocol.partition("/")[0]
    told = run(phoenix, protocol, project=project)
    spans = arrived(lambda: phoenix.spans(project), PARENTS)
    check(spans, told)
    # The span that is none of the conventions' has no kind to speak of.
    assert {name: span.kind for name, span in spans.items() if name != "handle"} == {
        **dict.fromkeys(CALLS, "LLM"),
        "embeddings text-embedding-3-small": "EMBEDDING",
        "invoke_agent planner": "AGENT",
        "execute_tool search": "TOOL",
    }
    for name in ("chat gpt-4.1-mini", "chat gpt-4.1"):
        attributes, answer = spans[name].attributes, told[name]
        assert attributes["llm.token_count.prompt"] == answer["in"]
        assert attributes["llm.token_count.completion"] == answer["out"]
        assert attributes["llm.model_name"] == name.split(" ")[1]
        assert attributes["llm.provider"] == "openai"
    assert json.loads(spans["chat gpt-4.1-mini"].attributes["llm.invocation_parameters"])["temperature"] == 0.5
    assert spans["execute_tool search"].attributes["tool.name"] == "search"
