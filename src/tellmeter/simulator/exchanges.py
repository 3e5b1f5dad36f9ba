"""Recorded exchanges: read from JSON lines, found again by what a client asks, served byte for byte."""

from __future__ import annotations

import base64
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import msgspec

from ..errors import ConfigError
from .answer import Event

# Of one connection, and of an encoding that recordings have undone.
_NOT_REPLAYED = {"connection", "keep-alive", "transfer-encoding", "content-length", "content-encoding"}
_SSE_EVENT = re.compile(rb".*?(?:\r\n\r\n|\n\n|\r\r)", re.DOTALL)


class Exchange(msgspec.Struct, frozen=True, kw_only=True):
    """One recorded request and its answer; the fields are those of the recordings' own schema.

    `path` holds the query, if there was one. `expected` is what the answer states about itself (model, token counts,
    finish reason, ...), in the provider's own way of counting.
    """

    id: str
    provider: str = ""
    api: str = ""
    method: str = "POST"
    host: str = ""
    path: str = "/"
    request_json: Any = None
    status: int = 200
    response_headers: dict[str, str] = {}
    response_body: str = ""
    body_base64: bool = False
    is_stream: bool = False
    tags: list[str] = []
    expected: dict[str, Any] = {}

    @property
    def body(self) -> bytes:
        """The answer's body."""
        return base64.b64decode(self.response_body) if self.body_base64 else self.response_body.encode()

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """The answer's headers, without those of the connection that it came over."""
        return [
            (name.lower().encode("latin-1"), value.encode("utf-8"))
            for name, value in self.response_headers.items()
            if name.lower() not in _NOT_REPLAYED
        ]

    def events(self) -> list[Event]:
        """The body in the pieces that a provider would send; joined they are the body."""
        return (
            [Event(piece) for piece in _pieces(self.body, self.response_headers)]
            if self.is_stream
            else [Event(self.body)]
        )


def _pieces(body: bytes, headers: dict[str, str]) -> Iterator[bytes]:
    kind = next((value for name, value in headers.items() if name.lower() == "content-type"), "")
    if "eventstream" in kind:
        yield from _aws_frames(body)
    elif "json" in kind and "event-stream" not in kind:
        yield from body.splitlines(keepends=True)
    else:
        end = 0
        for match in _SSE_EVENT.finditer(body):
            end = match.end()
            yield match.group()
        if body[end:]:
            yield body[end:]


def _aws_frames(body: bytes) -> Iterator[bytes]:
    """AWS event stream: each frame begins with its length, 4 bytes big-endian."""
    while body:
        length = int.from_bytes(body[:4], "big")
        if not 16 <= length <= len(body):
            length = len(body)
        yield body[:length]
        body = body[length:]


def load_exchanges(source: str | Path) -> list[Exchange]:
    """Every exchange in a `.jsonl` file, or in all those of a folder, in their order.

    Raises:
        ConfigError: there is no such file or folder, or a line is no exchange.
    """
    path = Path(source)
    files = sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
    if not files or not all(file.is_file() for file in files):
        raise ConfigError(f"no recorded exchanges (*.jsonl) at {path}")
    decoder = msgspec.json.Decoder(Exchange)
    found = []
    for file in files:
        try:
            found += decoder.decode_lines(file.read_bytes())
        except msgspec.MsgspecError as error:
            raise ConfigError(f"{file} holds a line that is no exchange: {error}") from None
    return found


class RecordedExchanges:
    """Recorded exchanges and the way back to them; `source` is a file, a folder, or exchanges.

    Looking up takes turns: of several recordings of the same request, each ask gets the next, and then the first again.
    """

    def __init__(self, source: str | Path | Iterable[Exchange]) -> None:
        self.all = load_exchanges(source) if isinstance(source, str | Path) else list(source)
        self._by_id = {exchange.id: exchange for exchange in self.all}
        self._by_request: dict[tuple[str, bytes], list[Exchange]] = defaultdict(list)
        self._by_path: dict[str, list[Exchange]] = defaultdict(list)
        for exchange in self.all:
            path = plain_path(exchange.path)
            self._by_path[path].append(exchange)
            if exchange.request_json is not None:
                self._by_request[path, _key(exchange.request_json)].append(exchange)
        self._turns: dict[Any, int] = defaultdict(int)

    def __len__(self) -> int:
        return len(self.all)

    def __iter__(self) -> Iterator[Exchange]:
        return iter(self.all)

    def by_id(self, exchange_id: str) -> Exchange | None:
        """The exchange of that id."""
        return self._by_id.get(exchange_id)

    def find(self, path: str, body: bytes) -> Exchange | None:
        """The recording of this very request (JSON compared by value), else the next one of its path."""
        path = plain_path(path)
        try:
            key = (path, _key(msgspec.json.decode(body)))
        except msgspec.MsgspecError:
            return self._next(path, self._by_path.get(path))
        return self._next(key, self._by_request.get(key)) or self._next(path, self._by_path.get(path))

    def _next(self, key: object, found: list[Exchange] | None) -> Exchange | None:
        if not found:
            return None
        turn = self._turns[key]
        self._turns[key] = turn + 1
        return found[turn % len(found)]


def plain_path(path: str) -> str:
    """A path without its query, percent-decoded."""
    return unquote(path.partition("?")[0])


def _key(value: Any) -> bytes:
    return msgspec.json.encode(value, order="sorted")
