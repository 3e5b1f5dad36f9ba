"""What the formats share: bodies read by their types, however wrong they are, and the short names of errors.

A body is decoded into a struct that skips what is not needed. Where a value has not the type it should have, it alone
is left out, so that a provider's odd field never costs the tokens beside it.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any, Generic, TypeVar, get_args, get_origin

import msgspec

from ...counts import count
from ..answer import Answer, StreamReader
from ..message import begins_event_stream

MAX_NAMES = 64
"""Names of tools that one answer keeps."""

_MAX_NAME = 64  # characters of an error's type or code, which are words; a sentence is a message
_NONE = b"null"

T = TypeVar("T", bound=msgspec.Struct)


class Body(Generic[T]):
    """Decodes JSON into `kind`; None for what is no JSON object, which is counted."""

    def __init__(self, kind: type[T], format_name: str) -> None:
        self.kind = kind
        self.format_name = format_name
        self._decode = msgspec.json.Decoder(kind).decode

    def read(self, data: bytes, *, quiet: bool = False) -> T | None:
        """The body; with `quiet` (it may break off, or be none of ours) what cannot be read is not counted."""
        try:
            return self._decode(data)
        except msgspec.ValidationError:
            value = untyped(data)
            if isinstance(value, dict):
                return lenient(value, self.kind)
        except (ValueError, RecursionError):  # no JSON, no UTF-8, nested without end
            pass
        if data and not quiet:
            count("unreadable_body", self.format_name)
        return None


def untyped(data: bytes) -> Any:
    """JSON as plain values; None for what is no JSON."""
    try:
        return msgspec.json.decode(data)
    except (ValueError, RecursionError):
        return None


def lenient(value: dict[str, Any], kind: type[T]) -> T:
    """`value` as `kind`, without the fields whose values do not fit."""
    found: dict[str, Any] = {}
    for field in msgspec.structs.fields(kind):
        if field.encode_name in value:
            fitted = _fit(value[field.encode_name], field.type)
            if fitted is not None:
                found[field.name] = fitted
    return kind(**found)


def _fit(value: Any, kind: Any) -> Any:
    """`value` as one of the alternatives of `kind`; None where it is none of them."""
    if isinstance(kind, types.UnionType):
        return next((fitted for one in get_args(kind) if (fitted := _fit(value, one)) is not None), None)
    if kind is msgspec.Raw:
        return msgspec.Raw(msgspec.json.encode(value))
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return lenient(value, kind) if isinstance(value, dict) else None
    if get_origin(kind) is list:
        (item,) = get_args(kind)
        return [fitted for one in value if (fitted := _fit(one, item)) is not None] if isinstance(value, list) else None
    try:
        return msgspec.convert(value, kind, strict=False)  # "12" and 12.0 are numbers of tokens, too
    except msgspec.ValidationError:
        return None


def filled(raw: msgspec.Raw) -> bool:
    """Whether a value of any type is there and not null or empty."""
    size = len(raw)
    return size > 2 and (size != 4 or bytes(raw) != _NONE)


def present(raw: msgspec.Raw) -> bool:
    """Whether a value of any type is there and not null."""
    size = len(raw)
    return size > 0 and (size != 4 or bytes(raw) != _NONE)


def size_of_text(raw: msgspec.Raw) -> int:
    """Bytes of a text as it stands in the JSON, without its quotes; of another value all; 0 for null and nothing."""
    return len(raw) - 2 * bytes(raw).startswith(b'"') if filled(raw) else 0


def error_names(value: Any) -> tuple[str | None, str | None]:
    """The type and the code of an error, however the provider wraps them; never its message.

    Shapes: `{"error": {"type", "code"}}`, `{"type": "error", "error": {...}}`, `[{"error": ...}]`, `{"code", "type"}`,
    `{"error": "text", "code"}`, `{"detail": ...}`. Google says `status` for type, Anthropic `details.error_code` for
    code. A sentence in the place of either is left out.
    """
    if isinstance(value, list):
        value = value[0] if value else None
    if not isinstance(value, dict):
        return None, None
    inner = value.get("error")
    if isinstance(inner, dict):
        value = inner
    details = value.get("details")
    kinds = (value.get("type"), value.get("error_type"), value.get("status"))
    codes = (value.get("code"), details.get("error_code") if isinstance(details, dict) else None)
    return _first_name(kinds), _first_name(codes)


def _first_name(values: tuple[Any, ...]) -> str | None:
    for value in values:
        name = str(value) if type(value) is int else value
        if isinstance(name, str) and 0 < len(name) <= _MAX_NAME and name != "error" and not any(map(str.isspace, name)):
            return name
    return None


def fail(answer: Answer, error: Any) -> None:
    """Note that the answer is an error; what was known of it before stays where this one says nothing."""
    answer.failed = True
    kind, code = error_names(error)
    answer.error_type = kind or answer.error_type
    answer.error_code = code or answer.error_code


def fail_raw(answer: Answer, error: msgspec.Raw) -> None:
    """The same for the still encoded value of an `error` field."""
    fail(answer, {"error": untyped(bytes(error))})


def add_tool(answer: Answer, name: str | None) -> bool:
    """Add the name of a function that the model asked for."""
    if not name or len(answer.tools) >= MAX_NAMES:
        return False
    answer.tools = [*answer.tools, name]
    return True


def read_whole(
    body: bytes,
    status_code: int,
    read: Callable[[bytes], Answer],
    new_reader: Callable[[], StreamReader],
    begins_stream: Callable[[bytes], bool] = begins_event_stream,
) -> Answer:
    """The answer in a whole body of any status; a stream that was read at once is read as a stream."""
    if begins_stream(body):
        reader = new_reader()
        reader.feed(body)
        reader.finish()
        answer = reader.answer
    elif status_code >= 400:
        answer = Answer()
        fail(answer, untyped(body))
    else:
        answer = read(body)
    answer.failed = answer.failed or status_code >= 400
    return answer
