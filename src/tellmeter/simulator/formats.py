"""What every wire format of the simulator shares: the shape of a format, refusals, and the frames of a stream."""

from __future__ import annotations

import math
import random
from array import array
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import msgspec

from .answer import Answer, Ask, Event
from .words import CHARS_PER_TOKEN

encode = msgspec.json.encode

_MEDIA = {"image_url", "input_image", "image", "input_audio", "input_file", "file", "document"}
_MEDIA_PARTS = (
    "inlineData",
    "inline_data",
    "fileData",
    "file_data",
    "image",
    "document",
    "video",
    "audio",
)  # of formats without types
_MEDIA_TEXT = "#" * (CHARS_PER_TOKEN * 800)  # what a picture of usual size costs


class Refused(Exception):
    """A request that the provider answers with an error: its status, and what the error says.

    `retry_after` is how many seconds the client is to wait, where the provider says so.
    """

    retry_after: float | None = None

    def __init__(self, status: int, message: str, *, code: str | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param


class Provider(NamedTuple):
    """What all formats of one provider have in common.

    `headers(ask, request_id, milliseconds)` are those of a success, `error_headers(refused, request_id)` of a failure;
    `error_body(refused, request_id)` is a failure's JSON. `explain(status, code)` is the error that a fault asks for,
    and `bad_key` which one a wrong key meets.
    """

    name: str
    request_id: Callable[[random.Random], str]
    headers: Callable[[Ask, str, int], dict[str, str]]
    error_headers: Callable[[Refused, str], dict[str, str]]
    error_body: Callable[[Refused, str], bytes]
    explain: Callable[[int, str | None], Refused]
    bad_key: tuple[int, str | None] = (401, None)


class Format(NamedTuple):
    """One API: `read` a request, write a `whole` body or the `events` of a stream.

    `failure(answer, sent)` is an error inside a stream after `sent` events. Only a format with `events` streams.
    `in_path(path)` are the fields of a request, such as its model, that stand in the path instead of the body.
    """

    name: str
    provider: Provider
    read: Callable[[dict[str, Any]], Ask]
    whole: Callable[[Answer], bytes]
    events: Callable[[Answer], Iterator[Event]] | None = None
    failure: Callable[[Answer, int], list[Event]] | None = None
    is_free: bool = False
    in_path: Callable[[str], dict[str, Any]] = lambda path: {}
    stream_type: str = "text/event-stream; charset=utf-8"


class MarkedPrompt:
    """The text that a model reads, and where in it the request sets its cache marks."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._length = 0
        self.marks: list[int] = []
        self.for_an_hour = False

    def add(self, text: str) -> None:
        """What comes next."""
        self._parts.append(text)
        self._length += len(text) + 1

    def mark(self, mark: Mapping[str, Any] | None) -> None:
        """Set a mark behind what was added; None sets none."""
        if mark:
            self.marks.append(max(0, self._length - 1))
            self.for_an_hour |= mark.get("ttl") == "1h"

    def text(self) -> str:
        """All of it."""
        return "\n".join(self._parts)


def retry_headers(refused: Refused) -> dict[str, str]:
    """When to try again: whole seconds, as providers say it, and milliseconds, which the SDKs prefer."""
    seconds = refused.retry_after
    if seconds is None:
        return {}
    return {"retry-after": str(math.ceil(seconds)), "retry-after-ms": str(round(seconds * 1000))}


def unit_vector(rng: random.Random, size: int) -> array[float]:
    """An embedding: 32-bit floats of length 1."""
    values = [byte - 127.5 for byte in rng.randbytes(size)]
    length = math.sqrt(sum(value * value for value in values))
    return array("f", [value / length for value in values])


def sse(data: Any, event: str | None = None) -> bytes:
    """One server-sent event."""
    body = data if isinstance(data, bytes) else encode(data)
    return b"data: %b\n\n" % body if event is None else b"event: %b\ndata: %b\n\n" % (event.encode(), body)


def text_of(value: Any) -> str:
    """All that a model reads in a message or a part of one; pictures and files as text of their length."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "\n".join(map(text_of, value))
    if isinstance(value, Mapping):
        if isinstance(kind := value.get("type"), str) and kind in _MEDIA:
            return _MEDIA_TEXT
        if any(isinstance(value.get(name), Mapping) for name in _MEDIA_PARTS):
            return _MEDIA_TEXT
        return "\n".join(text_of(part) for key, part in value.items() if key not in {"type", "cache_control"})
    return "" if value is None else str(value)


def whole_number(body: Mapping[str, Any], *names: str) -> int | None:
    """The first of these fields that is there; refused where it is no positive number."""
    for name in names:
        if (value := body.get(name)) is not None:
            if not isinstance(value, int) or value < 1:
                raise Refused(400, f"Invalid '{name}': a whole number above 0 is needed.", param=name)
            return value
    return None


def model_of(body: Mapping[str, Any]) -> str:
    """The model asked for."""
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise Refused(400, "You must say which model is to answer: 'model'.", param="model")
    return model


def is_unknown(model: str) -> bool:
    """Models that the simulator says it does not have; it answers for every other name."""
    return model.startswith("no-such-")
