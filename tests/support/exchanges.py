"""Recorded exchanges, and transports that replay them byte for byte to a real SDK."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SHARED = Path(os.environ.get("TELLMETER_SHARED") or Path(__file__).parents[3] / "shared")
EXCHANGES = SHARED / "data" / "exchanges"
# The formats of the openai and anthropic SDKs; some providers' embeddings (and Ollama's at /api) have their own.
APIS = ("chat.completions", "completions", "responses", "embeddings", "messages", "messages.count_tokens")
OTHER_FORMATS = {(provider, "embeddings") for provider in ("cohere", "gemini", "ollama", "vertex")}


@dataclass(frozen=True)
class Recorded:
    """One recorded exchange, and what its response states about itself."""

    id: str
    provider: str
    api: str
    host: str
    path: str
    request: dict[str, Any]
    status: int
    headers: dict[str, str]
    body: bytes
    is_stream: bool
    tags: tuple[str, ...]
    expected: dict[str, Any]


def need_exchanges() -> None:
    """As `need_shared`, of the recordings."""
    need_shared(EXCHANGES)


def need_shared(path: Path) -> None:
    """Skip where what is no part of the project is not there; fail in CI, where it is."""
    if path.exists():
        return
    reason = f"{path.name} is not here (set TELLMETER_SHARED)"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@cache
def load(provider: str, api: str) -> tuple[Recorded, ...]:
    """All exchanges of one provider and API, streams too."""
    found = []
    for suffix in ("", ".stream"):
        file = EXCHANGES / f"{provider}.{api}{suffix}.jsonl"
        if not file.exists():
            continue
        for line in file.read_text().splitlines():
            row = json.loads(line)
            if row["request_json"] is None:
                continue
            body = row["response_body"]
            found.append(
                Recorded(
                    id=row["id"],
                    provider=row["provider"],
                    api=row["api"],
                    host=row["host"],
                    path=row["path"],
                    request=row["request_json"],
                    status=row["status"],
                    headers=row["response_headers"],
                    body=base64.b64decode(body) if row["body_base64"] else body.encode(),
                    is_stream=row["is_stream"],
                    tags=tuple(row["tags"]),
                    expected=row["expected"],
                )
            )
    return tuple(found)


def pairs() -> list[tuple[str, str]]:
    """Every (provider, api) that the openai and anthropic SDKs speak."""
    if not EXCHANGES.is_dir():
        return []
    names = sorted({file.name.removesuffix(".jsonl").removesuffix(".stream") for file in EXCHANGES.glob("*.jsonl")})
    found = [tuple(name.split(".", 1)) for name in names]
    return [(provider, api) for provider, api in found if api in APIS and (provider, api) not in OTHER_FORMATS]


def parts(body: bytes, size: int) -> Iterator[bytes]:
    """A body as the network might cut it."""
    for start in range(0, len(body), size):
        yield body[start : start + size]


def transports(http: ModuleType, exchange: Recorded, cut: int = 700) -> tuple[Any, Any]:
    """A sync and an async transport of an HTTP library that answer every request with `exchange`, streamed like a network's."""

    class Body(http.SyncByteStream, http.AsyncByteStream):  # type: ignore[name-defined, misc]
        def __iter__(self) -> Iterator[bytes]:
            yield from parts(exchange.body, cut)

        async def __aiter__(self) -> AsyncIterator[bytes]:
            for part in parts(exchange.body, cut):
                yield part

    class Sync(http.BaseTransport):  # type: ignore[name-defined, misc]
        def handle_request(self, request: Any) -> Any:
            return http.Response(exchange.status, headers=exchange.headers, stream=Body())

    class Async(http.AsyncBaseTransport):  # type: ignore[name-defined, misc]
        async def handle_async_request(self, request: Any) -> Any:
            await request.aread()
            return http.Response(exchange.status, headers=exchange.headers, stream=Body())

    return Sync(), Async()
