"""Answers of a provider, made up: for what recordings do not show (resets, retries, slow streams)."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator
from types import ModuleType
from typing import Any

JSON = {"content-type": "application/json", "x-request-id": "req_1"}
SSE = {"content-type": "text/event-stream; charset=utf-8", "x-request-id": "req_1"}
USAGE = {
    "prompt_tokens": 42,
    "completion_tokens": 200,
    "total_tokens": 242,
    "prompt_tokens_details": {"cached_tokens": 16},
    "completion_tokens_details": {"reasoning_tokens": 0},
}


def answer() -> bytes:
    """A chat completion."""
    return json.dumps(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": "gpt-4o-mini-2024-07-18",
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": "hello"},
                    "finish_reason": "stop",
                    "logprobs": None,
                }
            ],
            "usage": USAGE,
        }
    ).encode()


def chunk(delta: dict[str, Any], finish: str | None = None, **more: Any) -> bytes:
    """One event of a chat completion's stream, spaced as OpenAI does."""
    body = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "gpt-4o-mini-2024-07-18",
        "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}],
        **more,
    }
    return b"data: " + json.dumps(body, separators=(",", ":")).encode() + b"\n\n"


def stream(tokens: int = 200, *, usage: bool = True) -> list[bytes]:
    """The events of a stream of `tokens` content chunks."""
    events = [chunk({"role": "assistant", "content": ""})]
    events += [chunk({"content": f" t{number}"}) for number in range(tokens)]
    events.append(chunk({}, "stop"))
    if usage:
        events.append(
            chunk({}, usage=USAGE).replace(
                b'"choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":null}]', b'"choices":[]'
            )
        )
    return [*events, b"data: [DONE]\n\n"]


def bodies(http: ModuleType) -> tuple[type, type]:
    """Sync and async streams that a network might give: `boom` raises before that chunk, `before(i)` runs before each."""

    class Body(http.SyncByteStream):  # type: ignore[name-defined, misc]
        def __init__(self, chunks: list[bytes], boom: int | None = None, error: BaseException | None = None) -> None:
            self.chunks, self.boom, self.error = chunks, boom, error or http.ReadError("connection reset")
            self.closed = False

        def __iter__(self) -> Iterator[bytes]:
            for number, part in enumerate(self.chunks):
                if number == self.boom:
                    raise self.error
                yield part

        def close(self) -> None:
            self.closed = True

    class AsyncBody(http.AsyncByteStream):  # type: ignore[name-defined, misc]
        def __init__(
            self,
            chunks: list[bytes],
            boom: int | None = None,
            error: BaseException | None = None,
            before: Callable[[int], Any] | None = None,
        ) -> None:
            self.chunks, self.boom, self.error = chunks, boom, error or http.ReadError("connection reset")
            self.before = before
            self.closed = False

        async def __aiter__(self) -> AsyncIterator[bytes]:
            for number, part in enumerate(self.chunks):
                if self.before is not None:
                    await self.before(number)
                if number == self.boom:
                    raise self.error
                yield part

        async def aclose(self) -> None:
            self.closed = True

    return Body, AsyncBody
