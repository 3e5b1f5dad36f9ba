"""Programs that ask a chat model: by the bare openai SDK, by LLMClient, by LiteLLM. What client.py measures.

Each is set up as its users get it by default; LiteLLM's settings are said at `litellm`. The answers come from memory,
where every subject has the SDK's own HTTP client on a transport that answers at once, or from a server on a socket,
where every subject has the HTTP client that it makes itself.
"""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import Callable
from typing import Any, NamedTuple

from _subjects import MESSAGES, MODEL, STREAMED, TOKENS, URL, answer, ask, bodies, events, streamed

KEY = "sk-x"
IN_MEMORY = URL
TEXT = "The sea is wide. " * 30
STREAMED_TEXT = "".join(f"w{number} " for number in range(TOKENS))


class Subject(NamedTuple):
    """How a user asks: each function gives the text of one answer.

    settle: do what was left for later; gives how many calls were recorded, or None where nobody counts.
    """

    call: Callable[[], Any]
    call_sync: Callable[[], str]
    stream: Callable[[], Any]
    stream_with_usage: Callable[[], Any]
    stream_sync: Callable[[], str]
    settle: Callable[[asyncio.AbstractEventLoop], int | None] = lambda loop: None


def _text(chunk) -> str:
    return (chunk.choices[0].delta.content or "") if chunk.choices else ""


def bare(url: str, key: str = KEY) -> Subject:
    import openai

    settings = {"api_key": key, "base_url": url, "max_retries": 0}
    client = openai.AsyncOpenAI(**settings)

    @functools.cache  # made by who asks so
    def sync_client():
        return openai.OpenAI(**settings)

    async def call():
        return (await ask(client, False)).choices[0].message.content

    async def stream():
        return "".join([_text(chunk) async for chunk in await ask(client, True)])

    return Subject(
        call=call,
        call_sync=lambda: ask(sync_client(), False).choices[0].message.content,
        stream=stream,
        stream_with_usage=stream,
        stream_sync=lambda: "".join(map(_text, ask(sync_client(), True))),
    )


def llm_client(url: str, key: str = KEY) -> Subject:
    import tellmeter

    client = tellmeter.LLMClient(key, base_urls={"openai": url})
    collector = client.metrics_collector

    async def call():
        return (await client.generate(MESSAGES, MODEL)).text

    async def stream():
        return "".join([text async for text in client.stream(MESSAGES, MODEL)])

    async def stream_with_usage():
        response = client.stream_with_usage(MESSAGES, MODEL)
        text = "".join([text async for text in response])
        assert response.get_usage().output_tokens == TOKENS
        return text

    def settle(loop):
        collector.flush_sync()
        return collector.stats().recorded

    return Subject(
        call=call,
        call_sync=lambda: client.generate_sync(MESSAGES, MODEL).text,
        stream=stream,
        stream_with_usage=stream_with_usage,
        stream_sync=lambda: "".join(client.stream_sync(MESSAGES, MODEL)),
        settle=settle,
    )


def litellm(url: str, key: str = KEY) -> Subject:
    """Its defaults: clients cached by key and URL, costs computed, no callbacks, aiohttp beneath what is async.

    One setting is not: it would fetch its price list from the web when it is imported.
    """
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    import litellm
    from litellm.litellm_core_utils.logging_worker import GLOBAL_LOGGING_WORKER
    from litellm.litellm_core_utils.thread_pool_executor import executor

    if url == IN_MEMORY:
        import openai

        litellm.client_session, litellm.aclient_session = openai.DefaultHttpxClient(), openai.DefaultAsyncHttpxClient()
    given = {"model": f"openai/{MODEL}", "messages": MESSAGES, "api_key": key, "base_url": url}

    async def call():
        return (await litellm.acompletion(**given)).choices[0].message.content

    async def stream():
        return "".join([_text(chunk) async for chunk in await litellm.acompletion(**given, **STREAMED)])

    def settle(loop):
        loop.run_until_complete(GLOBAL_LOGGING_WORKER.flush())
        executor.submit(int).result()

    return Subject(
        call=call,
        call_sync=lambda: litellm.completion(**given).choices[0].message.content,
        stream=stream,
        stream_with_usage=stream,
        stream_sync=lambda: "".join(map(_text, litellm.completion(**given, **STREAMED))),
        settle=settle,
    )


SUBJECTS = {"openai SDK": bare, "LLMClient": llm_client, "LiteLLM": litellm}
NEEDED = {"LiteLLM": "litellm"}
"""The module that a peer is."""


# ---------------------------------------------------------------------- who answers


def answer_from_memory() -> None:
    """Every HTTP client of httpx2 has its answer at once, whoever made it."""
    import httpx2

    full, chunks, body = answer(), events(), bodies()

    def respond(request):
        if b'"stream":true' in request.content:
            return streamed(body(chunks))
        return httpx2.Response(200, headers={"content-type": "application/json"}, stream=body([full]))

    async def async_respond(self, request):
        return respond(request)

    httpx2.HTTPTransport.handle_request = lambda self, request: respond(request)
    httpx2.AsyncHTTPTransport.handle_async_request = async_respond


async def serve(told: Callable[[int], None]) -> None:
    """A server that answers at once, as HTTP/1.1 with connections kept; `told(port)` when it is there."""
    head = b"HTTP/1.1 200 OK\r\ncontent-type: %s\r\n%s\r\n\r\n"
    full = answer()
    plain = head % (b"application/json", b"content-length: %d" % len(full)) + full
    chunks = [b"%x\r\n%s\r\n" % (len(event), event) for event in events()]
    stream = [head % (b"text/event-stream", b"transfer-encoding: chunked"), *chunks, b"0\r\n\r\n"]

    async def answered(reader, writer):
        try:
            while True:
                request = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = int(request.partition(b"content-length:")[2].partition(b"\r\n")[0])
                body = await reader.readexactly(length)
                writer.writelines(stream if b'"stream":true' in body.replace(b" ", b"") else [plain])
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(answered, "127.0.0.1", 0)
    told(server.sockets[0].getsockname()[1])
    await server.serve_forever()
