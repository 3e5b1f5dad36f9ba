"""What every wire format of the simulator shares: the shape of a format, refusals, and the frames of a stream."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import msgspec

from .answer import Answer, Ask, Event
from .words import CHARS_PER_TOKEN

encode = msgspec.json.encode

_MEDIA = {"image_url", "input_image", "image", "input_audio", "input_file", "file", "document"}
_MEDIA_TEXT = "#" * (CHARS_PER_TOKEN * 800)  # what a picture of usual size costs


class Refused(Exception):
    """A request that the provider answers with an error: its status, and what the error's body says."""

    def __init__(self, status: int, message: str, *, code: str | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param


class Provider(NamedTuple):
    """What all formats of one provider have in common.

    `headers(ask, request_id, milliseconds)` are those of a success, `error_headers(status, request_id)` of a failure;
    `error_body(refused, request_id)` is a failure's JSON. `explain(status, code)` is the error that a fault asks for.
    """

    name: str
    request_id: Callable[[random.Random], str]
    headers: Callable[[Ask, str, int], dict[str, str]]
    error_headers: Callable[[int, str], dict[str, str]]
    error_body: Callable[[Refused, str], bytes]
    explain: Callable[[int, str | None], Refused]


class Format(NamedTuple):
    """One API: `read` a request, write a `whole` body or the `events` of a stream.

    `failure(answer, sent)` is an error inside a stream after `sent` events. Only a format with `events` streams.
    """

    name: str
    provider: Provider
    read: Callable[[dict[str, Any]], Ask]
    whole: Callable[[Answer], bytes]
    events: Callable[[Answer], Iterator[Event]] | None = None
    failure: Callable[[Answer, int], list[Event]] | None = None
    is_free: bool = False


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
