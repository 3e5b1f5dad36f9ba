"""Real instrumentations beside us: one record a call, from the wire where it is hooked, else from their spans.

The environment `.venv-telemetry` has them all (`make test-telemetry`).
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import itertools
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import anthropic
import openai
import pytest

from tellmeter import instrument, uninstrument
from tests.support.sdk import http
from tests.support.sse import JSON, SSE, answer, bodies, stream
from tests.support.told import Told, told

pytestmark = pytest.mark.filterwarnings("ignore")  # theirs

INSTRUMENTORS = {
    "openllmetry": ("opentelemetry.instrumentation.openai", "OpenAIInstrumentor"),
    "openinference": ("openinference.instrumentation.openai", "OpenAIInstrumentor"),
    "opentelemetry": ("opentelemetry.instrumentation.genai.openai", "OpenAIInstrumentor"),
    "openllmetry-anthropic": ("opentelemetry.instrumentation.anthropic", "AnthropicInstrumentor"),
    "openinference-anthropic": ("openinference.instrumentation.anthropic", "AnthropicInstrumentor"),
    "openllmetry-langchain": ("opentelemetry.instrumentation.langchain", "LangchainInstrumentor"),
    "openinference-langchain": ("openinference.instrumentation.langchain", "LangChainInstrumentor"),
}
OPENAI = ("openllmetry", "openinference", "opentelemetry", "openinference+openllmetry+opentelemetry")
ANTHROPIC = ("", "openllmetry-anthropic", "openinference-anthropic")  # the SDK's own spans, alone and beside others
LANGCHAIN = (
    "openllmetry-langchain",
    "openinference-langchain",
    "openinference-langchain+openinference",
    "openllmetry-langchain+opentelemetry",
)
# What both sides say of a call.
FIELDS = [
    "model",
    "provider",
    "operation",
    "method",
    "status",
    "error_class",
    "error_category",
    "input_tokens",
    "output_tokens",
    "cached_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
    "cost_usd",
]

Body, AsyncBody = bodies(http)
CHAT = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "canary"}]}
STREAMED = {**CHAT, "stream": True, "stream_options": {"include_usage": True}}
MESSAGE = {"model": "claude-sonnet-4-5", "max_tokens": 10, "messages": CHAT["messages"]}
EMBEDDING = {
    "object": "list",
    "model": "text-embedding-3-small",
    "data": [{"object": "embedding", "index": 0, "embedding": [0.1, 0.2]}],
    "usage": {"prompt_tokens": 5, "total_tokens": 5},
}
RESPONSE = {
    "object": "response",
    "created_at": 1,
    "model": "gpt-4o-mini-2024-07-18",
    "status": "completed",
    "output": [
        {
            "type": "message",
            "id": "msg_1",
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "text": "hi", "annotations": []}],
        }
    ],
    "parallel_tool_calls": True,
    "tool_choice": "auto",
    "tools": [],
    "usage": {
        "input_tokens": 42,
        "input_tokens_details": {"cached_tokens": 16},
        "output_tokens": 200,
        "output_tokens_details": {"reasoning_tokens": 64},
        "total_tokens": 242,
    },
}
CLAUDE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-sonnet-4-5",
    "content": [{"type": "text", "text": "hi"}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {
        "input_tokens": 10,
        "cache_creation_input_tokens": 20,
        "cache_read_input_tokens": 30,
        "output_tokens": 40,
    },
}
CLAUDE_EVENTS = [
    {"type": "message_start", "message": {**CLAUDE, "content": [], "stop_reason": None}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "hi"}},
    {"type": "content_block_stop", "index": 0},
    {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn", "stop_sequence": None},
        "usage": {"output_tokens": 40},
    },
    {"type": "message_stop"},
]


numbers = itertools.count()


def respond(request: Any, body: Callable[[list[bytes]], Any]) -> Any:
    asked, path = json.loads(request.content), request.url.path
    if asked["model"] == "bad":
        return http.Response(429, headers=JSON, json={"error": {"message": "canary", "type": "rate_limit_error"}})
    if path.endswith("/messages"):
        events = [f"event: {one['type']}\ndata: {json.dumps(one)}\n\n".encode() for one in CLAUDE_EVENTS]
        whole = json.dumps(CLAUDE).encode()
    else:
        events, whole = stream(3), answer()
    if asked.get("stream"):
        return http.Response(200, headers=SSE, stream=body(events))
    answered = {**RESPONSE, "id": f"resp_{next(numbers)}"}  # OpenLLMetry takes those with the same id for one
    other = {"/v1/embeddings": EMBEDDING, "/v1/responses": answered}.get(path)
    return http.Response(200, headers=JSON, content=json.dumps(other).encode() if other else whole)


class Transport(http.BaseTransport):  # type: ignore[name-defined, misc]
    def handle_request(self, request: Any) -> Any:
        return respond(request, Body)


class AsyncTransport(http.AsyncBaseTransport):  # type: ignore[name-defined, misc]
    async def handle_async_request(self, request: Any) -> Any:
        await asyncio.sleep(0)  # other tasks run meanwhile
        return respond(request, AsyncBody)


def sdk(kind: Any) -> Any:
    transport = http.AsyncClient(transport=AsyncTransport()) if "Async" in kind.__name__ else None
    return kind(api_key="k", max_retries=0, http_client=transport or http.Client(transport=Transport()))


@contextmanager
def instrumented(names: str) -> Iterator[Told]:
    """A provider with our processor, that those instrumentations give their spans to."""
    wanted = [INSTRUMENTORS[name] for name in names.split("+") if name]
    for module, _ in wanted:
        try:
            importlib.import_module(module)
        except ImportError:
            pytest.skip(f"no {module} here: make test-telemetry")
    with told(leaks="openllmetry-anthropic" in names) as seen:  # it never ends the span of a stream closed early
        made = [getattr(importlib.import_module(module), kind)() for module, kind in wanted]
        for one in made:
            one.instrument(tracer_provider=seen.provider, skip_dep_check=True)
        try:
            yield seen
        finally:
            for one in made:
                one.uninstrument()


def both(seen: Told, call: Callable[[], object], *, number: int = 1, whole: bool = True) -> None:
    """Make a call with the wire hooked and without: one record each, which say the same."""
    found: list[list[Any]] = []
    for hooked in (True, False):
        before = {one.id for one in seen.records()}
        if hooked:
            instrument(collector=seen.collector)
        try:
            call()
        except (openai.APIStatusError, anthropic.APIStatusError):
            pass
        finally:
            uninstrument()
        if not whole:
            gc.collect()  # some end the span of a stream that was closed early when it goes
        made = [one for one in seen.records() if one.id not in before]
        assert len(made) == number, (hooked, made)
        assert "canary" not in str(made)
        found.append(made)
    for wire, span in zip(*found, strict=True) if whole else ():
        assert wire.status_code in (200, 429)
        assert {name: getattr(span, name) for name in FIELDS} == {name: getattr(wire, name) for name in FIELDS}


def consume(chunks: Any) -> None:
    for _ in chunks:
        pass


@pytest.mark.parametrize("names", OPENAI)
def test_openai(names: str) -> None:
    with instrumented(names) as seen:
        one = sdk(openai.OpenAI)
        both(seen, lambda: one.chat.completions.create(**CHAT))
        both(seen, lambda: consume(one.chat.completions.create(**STREAMED)))
        both(seen, lambda: one.chat.completions.create(**{**CHAT, "model": "bad"}))
        both(seen, lambda: one.embeddings.create(model="text-embedding-3-small", input="canary"))
        both(seen, lambda: one.responses.create(model="gpt-4o-mini", input="canary"))
        both(seen, lambda: one.responses.create(model="bad", input="canary"))

        def close_early() -> None:
            chunks = one.chat.completions.create(**STREAMED)
            next(iter(chunks))
            chunks.close()

        both(seen, close_early, whole=False)


@pytest.mark.parametrize("names", OPENAI)
def test_async_openai(names: str) -> None:
    async def ask(**request: Any) -> None:
        answered = await sdk(openai.AsyncOpenAI).chat.completions.create(**request)
        if request.get("stream"):
            async for _ in answered:
                pass

    async def at_once() -> None:
        await asyncio.gather(*(ask(**(STREAMED if number % 2 else CHAT)) for number in range(20)))

    with instrumented(names) as seen:
        both(seen, lambda: asyncio.run(ask(**CHAT)))
        both(seen, lambda: asyncio.run(ask(**STREAMED)))
        both(seen, lambda: asyncio.run(ask(**{**CHAT, "model": "bad"})))
        both(seen, lambda: asyncio.run(at_once()), number=20, whole=False)


@pytest.mark.parametrize("names", ANTHROPIC)
def test_anthropic(names: str) -> None:
    if not names and not hasattr(anthropic, "OpenTelemetryOptions"):
        pytest.skip("this release of the SDK makes no spans")
    with instrumented(names) as seen:
        one = sdk(anthropic.Anthropic)
        both(seen, lambda: one.messages.create(**MESSAGE))
        both(seen, lambda: consume(one.messages.create(**MESSAGE, stream=True)))
        both(seen, lambda: one.messages.create(**{**MESSAGE, "model": "bad"}))

        def helper() -> None:
            with one.messages.stream(**MESSAGE) as chunks:
                consume(chunks)

        def close_early() -> None:
            with one.messages.stream(**MESSAGE) as chunks:
                next(iter(chunks))

        both(seen, helper)
        both(seen, close_early, whole=False)


@pytest.mark.parametrize("names", LANGCHAIN)
def test_langchain_whose_spans_are_in_other_contexts(names: str) -> None:
    with instrumented(names) as seen:
        from langchain_openai import ChatOpenAI

        one, other = sdk(openai.OpenAI), sdk(openai.AsyncOpenAI)
        model = ChatOpenAI(
            model="gpt-4o-mini",
            api_key="k",
            stream_usage=True,
            client=one.chat.completions,
            async_client=other.chat.completions,
            root_client=one,
            root_async_client=other,
        )

        async def stream_it() -> None:
            async for _ in model.astream("canary"):
                pass

        async def at_once() -> None:
            await asyncio.gather(*(model.ainvoke("canary") for _ in range(20)))

        both(seen, lambda: model.invoke("canary"))
        both(seen, lambda: consume(model.stream("canary")), whole=False)  # their spans do not say that it is a stream
        both(seen, lambda: asyncio.run(model.ainvoke("canary")))
        both(seen, lambda: asyncio.run(stream_it()), whole=False)
        both(seen, lambda: asyncio.run(at_once()), number=20)
