"""A small real application to be metered: a shop's assistant that searches, summarises, chats and classifies.

It uses the openai and anthropic SDKs as an application does, in threads and in a loop, and knows nothing of metering
but the tags that name its features and tenants. To meter it:
`tellmeter run -- python -m tellmeter.simulator.demo_app --base-url URL`
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import contextvars
import random
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ..errors import MissingExtra, TellmeterError
from .traffic import CHAT_INPUT, CODE_INPUT, LogNormal
from .words import pieces

try:
    from tellmeter import tags  # type: ignore[attr-defined, unused-ignore]
except ImportError:  # an application of one's own would go without
    tags = contextlib.nullcontext  # type: ignore[assignment, misc]

_THREADS = 16
_TIMEOUT = 10.0  # seconds; also how long the last thread can outlive `--seconds`
_TENANTS = ("acme", "globex", "initech", "umbrella")
# The instructions that every call of a feature begins with, long enough for the providers' prompt caches.
_RULES = "You help the customers of a shop. Be brief and friendly, and never promise a delivery date. " * 60
_TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": description,
            "parameters": {"type": "object", "properties": {key: {"type": "string"}}, "required": [key]},
        },
    }
    for name, description, key in (
        ("find_order", "Where an order is", "order_id"),
        ("check_stock", "How many of an item are there", "item"),
    )
]
_LABEL = {
    "type": "object",
    "properties": {
        "label": {"type": "string", "enum": ["order", "return", "complaint", "praise"]},
        "urgent": {"type": "boolean"},
    },
    "required": ["label", "urgent"],
    "additionalProperties": False,
}


class _Shop:
    """The clients, and what one run of the application has done."""

    def __init__(self, base_url: str, seed: int) -> None:
        try:
            import anthropic
            import openai
        except ImportError:
            raise MissingExtra("openai and anthropic", "demo") from None
        where: dict[str, Any] = {"api_key": "demo", "timeout": _TIMEOUT, "max_retries": 2}
        self.openai = openai.OpenAI(base_url=f"{base_url}/v1", **where)
        self.openai_async = openai.AsyncOpenAI(base_url=f"{base_url}/v1", **where)
        self.anthropic = anthropic.Anthropic(base_url=base_url, **where)
        self.anthropic_async = anthropic.AsyncAnthropic(base_url=base_url, **where)
        # What a provider can do to an application; newer SDKs let some errors of their HTTP client through.
        http = [sys.modules[name].HTTPError for name in ("httpx", "httpx2") if name in sys.modules]
        self.expected: tuple[type[Exception], ...] = (openai.OpenAIError, anthropic.AnthropicError, *http)
        self.seed = seed
        self.ends = 0.0
        self.lock = threading.Lock()
        self.calls = 0
        self.failed = 0

    def done(self, *, well: bool) -> None:
        with self.lock:
            self.calls += 1
            self.failed += not well

    def is_over(self) -> bool:
        return time.monotonic() >= self.ends


def _question(rng: random.Random, length: LogNormal) -> str:
    """What a customer writes, as long as production prompts are."""
    return "".join(pieces(rng, max(5, min(4000, round(length.draw(rng))))))


def _chat_messages(rng: random.Random) -> list[Any]:
    return [{"role": "system", "content": _RULES}, {"role": "user", "content": _question(rng, CHAT_INPUT)}]


# Features that run in threads


def _search(shop: _Shop, rng: random.Random) -> None:
    query = _question(rng, LogNormal(2.5, 0.6))
    shop.openai.embeddings.create(model="text-embedding-3-small", input=[query])
    if shop.is_over():
        return
    shop.openai.chat.completions.create(
        model="gpt-4.1-mini", messages=_chat_messages(rng), max_tokens=rng.choice((20, 60))
    )


def _summarise(shop: _Shop, rng: random.Random) -> None:
    given: Any = [{"type": "text", "text": _RULES, "cache_control": {"type": "ephemeral"}}]
    question = f"Sum this up: {_question(rng, CODE_INPUT)}"
    stream = shop.anthropic.messages.create(
        model="claude-haiku-4-5",
        max_tokens=400,
        system=given,
        messages=[{"role": "user", "content": question}],
        stream=True,
    )
    patience = rng.randint(5, 20) if rng.random() < 0.15 else 10_000  # events until the reader has seen enough
    with stream:
        for number, _ in enumerate(stream):
            if number > patience or shop.is_over():
                break


def _classify(shop: _Shop, rng: random.Random) -> None:
    wanted: Any = {"type": "json_schema", "json_schema": {"name": "label", "schema": _LABEL, "strict": True}}
    shop.openai.chat.completions.create(
        model="gpt-5.4-mini", reasoning_effort="none", messages=_chat_messages(rng), response_format=wanted
    )


def _mistake(shop: _Shop, rng: random.Random) -> None:
    """A deployment gone wrong: a model that does not exist."""
    shop.openai.chat.completions.create(model="no-such-model", messages=[{"role": "user", "content": "hello"}])


# Features that run in the event loop


async def _chat(shop: _Shop, rng: random.Random) -> None:
    """A stream with tools on offer; what was asked for is looked up, and the answer read to the end, or not."""
    messages = _chat_messages(rng)
    tools: Any = _TOOLS
    stream = await shop.openai_async.chat.completions.create(
        model="gpt-4.1",
        messages=messages,
        tools=tools,
        stream=True,
        stream_options={"include_usage": True},
        max_tokens=300,
    )
    wanted: list[dict[str, str]] = []
    patience = rng.randint(3, 40) if rng.random() < 0.1 else 10_000
    async with stream:
        async for chunk in stream:
            for call in chunk.choices[0].delta.tool_calls or () if chunk.choices else ():
                if call.id and call.function:
                    wanted.append({"id": call.id, "name": call.function.name or "", "arguments": ""})
                elif call.function:
                    wanted[-1]["arguments"] += call.function.arguments or ""
            patience -= 1
            if patience < 0:
                return
    if wanted:
        calls = [
            {"id": w["id"], "type": "function", "function": {"name": w["name"], "arguments": w["arguments"]}}
            for w in wanted
        ]
        found = [{"role": "tool", "tool_call_id": w["id"], "content": "3 left, sent today"} for w in wanted]
        asked: Any = [*messages, {"role": "assistant", "content": None, "tool_calls": calls}, *found]
        await shop.openai_async.chat.completions.create(model="gpt-4.1", messages=asked, tools=tools, max_tokens=200)


async def _advise(shop: _Shop, rng: random.Random) -> None:
    await shop.openai_async.responses.create(
        model="gpt-5.4-mini", instructions=_RULES, input=_question(rng, CHAT_INPUT), max_output_tokens=500
    )


async def _reply_to_review(shop: _Shop, rng: random.Random) -> None:
    async with shop.anthropic_async.messages.stream(
        model="claude-sonnet-4-6", max_tokens=200, messages=[{"role": "user", "content": _question(rng, CHAT_INPUT)}]
    ) as stream:
        async for _ in stream.text_stream:
            pass


# Feature -> how often (weight) and what; a customer's message starts one of them.
_IN_THREADS: dict[str, tuple[float, Callable[[_Shop, random.Random], None]]] = {
    "search": (5, _search),
    "summarise": (3, _summarise),
    "classify": (4, _classify),
    "beta": (0.3, _mistake),
}
_IN_LOOP: dict[str, tuple[float, Callable[[_Shop, random.Random], Awaitable[None]]]] = {
    "chat": (6, _chat),
    "advise": (1.5, _advise),
    "reviews": (2, _reply_to_review),
}


def _in_thread(shop: _Shop, feature: str, tenant: str, rng: random.Random) -> None:
    try:
        with tags(feature=feature, tenant=tenant):
            _IN_THREADS[feature][1](shop, rng)
    except shop.expected:
        shop.done(well=False)
    else:
        shop.done(well=True)


async def _in_loop(shop: _Shop, feature: str, tenant: str, rng: random.Random) -> None:
    try:
        async with tags(feature=feature, tenant=tenant):
            await _IN_LOOP[feature][1](shop, rng)
    except shop.expected:
        shop.done(well=False)
    else:
        shop.done(well=True)


async def _open(shop: _Shop, rate: float, pool: ThreadPoolExecutor, tasks: set[asyncio.Future[None]]) -> None:
    """Start features at random times, `rate` a second on average, until it is time to close."""
    rng = random.Random(shop.seed)
    features = {**_IN_THREADS, **_IN_LOOP}
    weights = [weight for weight, _ in features.values()]
    loop = asyncio.get_running_loop()
    coming = time.monotonic()
    while (coming := coming + rng.expovariate(rate)) < shop.ends:
        await asyncio.sleep(max(0.0, coming - time.monotonic()))
        feature, tenant = rng.choices(list(features), weights)[0], rng.choice(_TENANTS)
        own = random.Random(rng.getrandbits(64))
        if feature in _IN_LOOP:
            task: asyncio.Future[None] = asyncio.ensure_future(_in_loop(shop, feature, tenant, own))
        else:
            copied = contextvars.copy_context()
            task = loop.run_in_executor(pool, copied.run, _in_thread, shop, feature, tenant, own)
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    await asyncio.sleep(max(0.0, shop.ends - time.monotonic()))


async def _run(shop: _Shop, seconds: float, rate: float) -> None:
    shop.ends = time.monotonic() + seconds
    tasks: set[asyncio.Future[None]] = set()
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="shop") as pool:
        try:
            await _open(shop, rate, pool, tasks)
        except asyncio.CancelledError:
            shop.ends = 0.0  # Ctrl-C: the shop closes early
        pool.shutdown(wait=False, cancel_futures=True)
        for task in list(tasks):
            task.cancel()  # customers leave when the shop closes
        await asyncio.gather(*tasks, return_exceptions=True)
    shop.openai.close()
    shop.anthropic.close()
    await shop.openai_async.close()
    await shop.anthropic_async.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the shop for some seconds, or until SIGINT; prints one line at the end. Returns 0, or 1 without the SDKs."""
    parser = argparse.ArgumentParser(
        prog="python -m tellmeter.simulator.demo_app", description="A shop's assistant, as something to be metered."
    )
    parser.add_argument("--base-url", required=True, help="the simulator, such as http://127.0.0.1:8000")
    parser.add_argument(
        "--seconds", type=float, default=20.0, help="how long; calls in threads are finished after it (default: 20)"
    )
    parser.add_argument("--rate", type=float, default=8.0, help="customers a second (default: 8)")
    parser.add_argument("--seed", type=int, default=0, help="what they ask follows from it (default: 0)")
    given = parser.parse_args(arguments)
    try:
        shop = _Shop(given.base_url.rstrip("/"), given.seed)
        asyncio.run(_run(shop, given.seconds, given.rate))
    except TellmeterError as error:
        print(f"demo_app: {error}", file=sys.stderr)  # noqa: T201
        return 1
    except KeyboardInterrupt:
        print("shop closed in a hurry")  # noqa: T201
    else:
        print(f"shop closed: {shop.calls} customers served, {shop.failed} of them badly")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
