"""Programs that ask the openai SDK, with a meter and without: what call_overhead.py and streams.py measure.

No network: the transports are in memory. Peers (`requirements/bench.txt`): a hand-written prometheus_client wrapper (the
floor), OpenTelemetry's genai-openai instrumentation, OpenInference and OpenLLMetry, each with a no-op exporter.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

TOKENS = 200
CHUNKS = TOKENS + 2  # events a stream yields: content, finish, usage
MODEL = "gpt-4o-mini"
MESSAGES = [{"role": "user", "content": "Tell me about the sea. " * 8}]
STREAMED = {"stream": True, "stream_options": {"include_usage": True}}
URL = "http://llm.invalid/v1"
USAGE = {
    "prompt_tokens": 42,
    "completion_tokens": TOKENS,
    "total_tokens": 42 + TOKENS,
    "prompt_tokens_details": {"cached_tokens": 16, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 64, "audio_tokens": 0},
}
HEAD = {"id": "chatcmpl-1", "created": 1700000000, "model": "gpt-4o-mini-2024-07-18", "system_fingerprint": "fp_1"}


def compact(value) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def answer() -> bytes:
    message = {"role": "assistant", "content": "The sea is wide. " * 30}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    return compact({**HEAD, "object": "chat.completion", "choices": [choice], "usage": USAGE})


def events(tokens: int = TOKENS) -> list[bytes]:
    """A stream's chunks, one event each: `tokens` pieces of text, the finish, the usage, [DONE]."""

    def event(delta, finish):
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return {**HEAD, "object": "chat.completion.chunk", "choices": [choice], "usage": None}

    made = [event({"content": f"w{number} "}, None) for number in range(tokens)]
    made[0]["choices"][0]["delta"]["role"] = "assistant"
    made += [event({}, "stop"), {**event({}, None), "choices": [], "usage": USAGE}]
    return [b"data: " + compact(one) + b"\n\n" for one in made] + [b"data: [DONE]\n\n"]


def bodies() -> type:
    """The class of a body that is there at once: `Body(parts)`."""
    import httpx2

    class Body(httpx2.SyncByteStream, httpx2.AsyncByteStream):
        def __init__(self, parts):
            self.parts = parts

        def __iter__(self):
            return iter(self.parts)

        async def __aiter__(self):
            for part in self.parts:
                yield part

    return Body


def http_clients(respond: Callable[[Any], Any]) -> tuple[Any, Any]:
    """A sync and an async httpx2 client whose requests `respond(request)` answers."""
    import httpx2

    class Transport(httpx2.BaseTransport):
        def handle_request(self, request):
            return respond(request)

    class AsyncTransport(httpx2.AsyncBaseTransport):
        async def handle_async_request(self, request):
            return respond(request)

    return httpx2.Client(transport=Transport()), httpx2.AsyncClient(transport=AsyncTransport())


def sdk_clients(http: Any, async_http: Any) -> tuple[Any, Any]:
    """The openai SDK's clients on top of these."""
    import openai

    settings = {"api_key": "sk-x", "base_url": URL, "max_retries": 0}
    return openai.OpenAI(http_client=http, **settings), openai.AsyncOpenAI(http_client=async_http, **settings)


def streamed(parts) -> Any:
    """The response that a streamed body is in."""
    import httpx2

    return httpx2.Response(200, headers={"content-type": "text/event-stream"}, stream=parts)


def ask(client, stream: bool):
    return client.chat.completions.create(model=MODEL, messages=MESSAGES, **(STREAMED if stream else {}))


class Subject(NamedTuple):
    """A way to meter: switched `on` and `off`, `seen` tells how many calls it saw, `call` is how its user asks."""

    on: Callable[[], object]
    off: Callable[[], object]
    seen: Callable[[], int] = lambda: 0
    call: Callable[[Any, bool], Any] = ask
    acall: Callable[[Any, bool], Any] = ask


def nothing() -> None:
    """What is switched where nothing is."""


def bare() -> Subject:
    return Subject(nothing, nothing)


def tellmeter(**settings) -> Subject:
    import tellmeter

    sink = tellmeter.InMemoryMetricsSink()
    collector = tellmeter.MetricsCollector(tellmeter.MetricsConfig(**settings), sinks=[sink])

    def seen():
        collector.flush_sync()
        return collector.stats().recorded

    return Subject(lambda: tellmeter.instrument(collector=collector), tellmeter.uninstrument, seen)


def tellmeter_spans(mode: str = "finished") -> Subject:
    """With a span for every call, on the provider that the peers have."""
    from tellmeter import trace_llm_calls

    metered, (tracing, _, exported) = tellmeter(), open_telemetry()

    def on():
        metered.on()
        trace_llm_calls(tracing, mode)

    return Subject(on, metered.off, lambda: (metered.seen(), exported())[1])


def tellmeter_live_spans() -> Subject:
    return tellmeter_spans("live")


def prometheus_client() -> Subject:
    """What a careful user writes by hand around the client."""
    from prometheus_client import Counter, Histogram

    seconds = Histogram("llm_duration_seconds", "d", ["provider", "model"])
    tokens = Counter("llm_tokens_total", "t", ["provider", "model", "kind"])
    requests = Counter("llm_requests_total", "r", ["provider", "model", "status"])
    first_token = Histogram("llm_ttft_seconds", "f", ["provider", "model"])
    done = [0]

    def finish(started, usage):
        requests.labels("openai", MODEL, "ok").inc()
        seconds.labels("openai", MODEL).observe(time.perf_counter() - started)
        tokens.labels("openai", MODEL, "input").inc(usage.prompt_tokens)
        tokens.labels("openai", MODEL, "output").inc(usage.completion_tokens)
        done[0] += 1

    def call(client, stream):
        started = time.perf_counter()
        reply = ask(client, stream)
        if not stream:
            finish(started, reply.usage)
            return reply

        def watched():
            usage = first = None
            for chunk in reply:
                if first is None:
                    first = time.perf_counter() - started
                    first_token.labels("openai", MODEL).observe(first)
                usage = chunk.usage or usage
                yield chunk
            finish(started, usage)

        return watched()

    async def acall(client, stream):
        started = time.perf_counter()
        reply = await ask(client, stream)
        if not stream:
            finish(started, reply.usage)
            return reply

        async def watched():
            usage = first = None
            async for chunk in reply:
                if first is None:
                    first = time.perf_counter() - started
                    first_token.labels("openai", MODEL).observe(first)
                usage = chunk.usage or usage
                yield chunk
            finish(started, usage)

        return watched()

    return Subject(nothing, nothing, lambda: done[0], call, acall)


def open_telemetry():
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

    done = [0]

    class Null(SpanExporter):
        def export(self, spans):
            done[0] += len(spans)
            return SpanExportResult.SUCCESS

    tracing = TracerProvider()
    tracing.add_span_processor(BatchSpanProcessor(Null(), max_queue_size=100_000))
    return tracing, MeterProvider([InMemoryMetricReader()]), lambda: (tracing.force_flush(), done[0])[1]


def opentelemetry_genai_openai() -> Subject:
    from opentelemetry.instrumentation.genai.openai import OpenAIInstrumentor

    tracing, metering, seen = open_telemetry()
    instrumentor = OpenAIInstrumentor()
    return Subject(
        lambda: instrumentor.instrument(tracer_provider=tracing, meter_provider=metering),
        instrumentor.uninstrument,
        seen,
    )


def openinference() -> Subject:
    from openinference.instrumentation.openai import OpenAIInstrumentor

    tracing, _, seen = open_telemetry()
    instrumentor = OpenAIInstrumentor()
    return Subject(lambda: instrumentor.instrument(tracer_provider=tracing), instrumentor.uninstrument, seen)


def openllmetry() -> Subject:
    from opentelemetry.instrumentation.openai import OpenAIInstrumentor

    tracing, metering, seen = open_telemetry()
    instrumentor = OpenAIInstrumentor()
    return Subject(
        lambda: instrumentor.instrument(tracer_provider=tracing, meter_provider=metering),
        instrumentor.uninstrument,
        seen,
    )


OURS: dict[str, Callable[[], Subject]] = {
    "tellmeter": tellmeter,
    "tellmeter, spans": tellmeter_spans,
    "tellmeter, live spans": tellmeter_live_spans,
}
PEERS: dict[str, tuple[str, Callable[[], Subject]]] = {
    "prometheus_client": ("prometheus_client", prometheus_client),
    "opentelemetry genai-openai": ("opentelemetry.instrumentation.genai.openai", opentelemetry_genai_openai),
    "openinference": ("openinference.instrumentation.openai", openinference),
    "openllmetry": ("opentelemetry.instrumentation.openai", openllmetry),
}
"""By name: the module that it needs, and how it is set up."""


def installed_peers() -> list[str]:
    """The names of the peers that are here; of the others it is said that they are not."""
    found = []
    for name, (module, _) in PEERS.items():
        spec = None
        with contextlib.suppress(ImportError):
            spec = importlib.util.find_spec(module)
        if spec is None:
            print(f"# {name}: not installed (requirements/bench.txt)", file=sys.stderr)
        else:
            found.append(name)
    return found
