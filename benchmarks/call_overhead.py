"""What metering adds to a call, a streamed chunk and an unrelated HTTP request, beside peers in the same run.

    python benchmarks/call_overhead.py [--rounds 15] [--only tellmeter,prometheus_client]

Two long-lived processes a subject: the plain openai SDK and the SDK with the subject switched on, asked in turn, the order
alternating; no network (a transport in memory). Printed: medians over rounds of the paired differences, wall and CPU
(all threads of the process, background ones included), in microseconds.

Peers (`requirements/bench.txt`): a hand-written prometheus_client wrapper (the floor), OpenTelemetry's genai-openai instrumentation and
OpenInference, each with a no-op exporter. A peer that is not installed is left out, and said so.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time

TOKENS = 200
CHUNKS = TOKENS + 2  # events a stream yields: content, finish, usage
KINDS = {"call": 100, "stream": 6, "async call": 100, "async stream": 4, "http": 400}
NEEDS = {
    "tellmeter": "tellmeter",
    "prometheus_client": "prometheus_client",
    "opentelemetry genai-openai": "opentelemetry.instrumentation.genai",
    "openinference": "openinference",
}
MODEL = "gpt-4o-mini"
MESSAGES = [{"role": "user", "content": "Tell me about the sea. " * 8}]
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


def events() -> list[bytes]:
    def event(delta, finish):
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return {**HEAD, "object": "chat.completion.chunk", "choices": [choice], "usage": None}

    made = [event({"content": f"w{number} "}, None) for number in range(TOKENS)]
    made[0]["choices"][0]["delta"]["role"] = "assistant"
    made += [event({}, "stop"), {**event({}, None), "choices": [], "usage": USAGE}]
    return [b"data: " + compact(one) + b"\n\n" for one in made] + [b"data: [DONE]\n\n"]


def clients():
    import httpx2
    import openai

    full, chunks = answer(), events()

    class Body(httpx2.SyncByteStream, httpx2.AsyncByteStream):
        def __init__(self, parts):
            self.parts = parts

        def __iter__(self):
            return iter(self.parts)

        async def __aiter__(self):
            for part in self.parts:
                yield part

    def respond(request):
        if b'"stream":true' in request.content:
            return httpx2.Response(200, headers={"content-type": "text/event-stream"}, stream=Body(chunks))
        return httpx2.Response(200, headers={"content-type": "application/json"}, stream=Body([full]))

    class Transport(httpx2.BaseTransport):
        def handle_request(self, request):
            return respond(request)

    class AsyncTransport(httpx2.AsyncBaseTransport):
        async def handle_async_request(self, request):
            return respond(request)

    bare = httpx2.Client(transport=Transport())
    settings = {"api_key": "sk-x", "base_url": "http://llm.invalid/v1", "max_retries": 0}
    return (
        openai.OpenAI(http_client=httpx2.Client(transport=Transport()), **settings),
        openai.AsyncOpenAI(http_client=httpx2.AsyncClient(transport=AsyncTransport()), **settings),
        bare,
    )


def ask(client, stream: bool):
    more = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
    return client.chat.completions.create(model=MODEL, messages=MESSAGES, **more)


def set_up_tellmeter():
    import tellmeter

    collector = tellmeter.configure(sinks=[tellmeter.InMemoryMetricsSink()])
    tellmeter.instrument()
    return ask, ask, lambda: (collector.flush_sync(), collector.stats().recorded)[1]


def set_up_prometheus_client():
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

    return call, acall, lambda: done[0]


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


def set_up_opentelemetry_genai_openai():
    from opentelemetry.instrumentation.genai.openai import OpenAIInstrumentor

    tracing, metering, seen = open_telemetry()
    OpenAIInstrumentor().instrument(tracer_provider=tracing, meter_provider=metering)
    return ask, ask, seen


def set_up_openinference():
    from openinference.instrumentation.openai import OpenAIInstrumentor

    tracing, _, seen = open_telemetry()
    OpenAIInstrumentor().instrument(tracer_provider=tracing)
    return ask, ask, seen


def set_up_bare():
    return ask, ask, lambda: 0


def work(subject: str) -> None:
    """One worker process: reads `<kind>\t<n>` lines, answers with a JSON line each."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # peers print banners
    import openai.types.chat  # noqa: F401  # the user's own import, not the subject's cost

    call, acall, seen = globals()["set_up_" + subject.replace(" ", "_").replace("-", "_")]()
    client, async_client, bare = clients()
    loop = asyncio.new_event_loop()

    def http(number):
        for _ in range(number):
            bare.post("http://shop.invalid/v1/orders", content=b"{}")

    def calls(number):
        for _ in range(number):
            call(client, False)

    def streams(number):
        for _ in range(number):
            for _chunk in call(client, True):
                pass

    async def async_calls(number):
        for _ in range(number):
            await acall(async_client, False)

    async def async_streams(number):
        for _ in range(number):
            async for _chunk in await acall(async_client, True):
                pass

    kinds = {
        "call": calls,
        "stream": streams,
        "async call": lambda number: loop.run_until_complete(async_calls(number)),
        "async stream": lambda number: loop.run_until_complete(async_streams(number)),
        "http": http,
    }
    for line in sys.stdin:
        kind, number = line.rstrip("\n").split("\t")
        if kind == "seen":
            reply = {"seen": seen()}
        else:
            gc.collect()
            cpu, wall = time.process_time(), time.perf_counter()
            kinds[kind](int(number))
            if subject == "tellmeter":
                seen()  # what the router thread does for these calls belongs to them
            reply = {
                "wall": (time.perf_counter() - wall) / int(number) * 1e6,
                "cpu": (time.process_time() - cpu) / int(number) * 1e6,
            }
        out.write(json.dumps(reply) + "\n")
        out.flush()
    os._exit(0)


class Worker:
    def __init__(self, subject: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--worker", subject],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def ask(self, kind: str, number: int) -> dict[str, float]:
        self.process.stdin.write(f"{kind}\t{number}\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("a worker ended")
        return json.loads(line)

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait(20)


def installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ImportError:
        return False


def measure(subject: str, rounds: int) -> dict[str, dict[str, float]]:
    bare, metered = Worker("bare"), Worker(subject)
    differences = {kind: {"wall": [], "cpu": [], "base": []} for kind in KINDS}
    try:
        for kind in KINDS:
            bare.ask(kind, 5), metered.ask(kind, 5)
        for number in range(rounds):
            for kind, count in KINDS.items():
                pair = [bare, metered]
                results = [one.ask(kind, count) for one in (pair if number % 2 else pair[::-1])]
                base, other = results if number % 2 else results[::-1]
                differences[kind]["wall"].append(other["wall"] - base["wall"])
                differences[kind]["cpu"].append(other["cpu"] - base["cpu"])
                differences[kind]["base"].append(base["cpu"])
        seen = metered.ask("seen", 1)["seen"]
    finally:
        bare.close(), metered.close()
    calls = sum((count * rounds + 5) for kind, count in KINDS.items() if kind != "http")
    if seen != calls:
        print(f"# {subject} saw {seen:.0f} of {calls} calls", file=sys.stderr)
    return {
        kind: {name: statistics.median(values) / (CHUNKS if "stream" in kind else 1) for name, values in found.items()}
        for kind, found in differences.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--worker")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    if options.worker:
        work(options.worker)
        return
    chosen = [name for name in NEEDS if not options.only or name in options.only.split(",")]
    results = {}
    for subject in chosen:
        if installed(NEEDS[subject]):
            results[subject] = measure(subject, options.rounds)
        else:
            print(f"# {subject}: not installed (requirements/bench.txt)", file=sys.stderr)
    if not results:
        return
    base = next(iter(results.values()))
    told = ", ".join(f"{kind} {base[kind]['base']:.0f}" for kind in KINDS)
    print(f"plain openai SDK, us of CPU (streams: a chunk): {told}")
    print(f"\n{'added us, wall (CPU)':28}" + "".join(f"{kind:>19}" for kind in KINDS))
    for subject, found in results.items():
        cells = "".join(f"{found[kind]['wall']:>11.2f} ({found[kind]['cpu']:.2f})".rjust(19) for kind in KINDS)
        print(f"{subject:28}{cells}")
    ours = results.get("tellmeter")
    for subject, found in results.items():
        if ours and subject != "tellmeter":
            ratios = {
                kind: found[kind]["cpu"] / ours[kind]["cpu"]
                for kind in KINDS
                if ours[kind]["cpu"] > 0 and kind != "http"
            }
            print(
                f"{subject} costs, in CPU: " + ", ".join(f"{kind} {ratio:.1f}x ours" for kind, ratio in ratios.items())
            )


if __name__ == "__main__":
    main()
