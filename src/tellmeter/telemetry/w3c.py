"""W3C Trace Context (level 2) and Baggage: the headers traceparent, tracestate and baggage, read and written.

Pure, and hardened: what callers send is anything. Nothing here raises for a header, or keeps one beyond its limit.
https://www.w3.org/TR/trace-context-2/ and https://www.w3.org/TR/baggage/
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple
from urllib.parse import quote, unquote

TRACEPARENT, TRACESTATE, BAGGAGE = "traceparent", "tracestate", "baggage"
FIELDS = frozenset({TRACEPARENT, TRACESTATE, BAGGAGE})

SAMPLED, RANDOM = 0x01, 0x02
_KNOWN_FLAGS = SAMPLED | RANDOM  # the others are reserved, and not to be passed on
_MOST_TRACEPARENT = 512  # later versions may have more fields; this one has 55 characters
_MOST_CHARACTERS = 8192  # of tracestate, and of baggage: the specification's own limit
_MOST_STATES = 32
_STATE_CHARACTERS = 512  # what is passed on of a tracestate, at least and here at most
_LONG_STATE = 128  # members longer than this go first
_MOST_MEMBERS = 64

_OWS = " \t"
_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL)
# Keys of level 1, and those of level 2 that begin with a digit.
_STATE_KEY = re.compile(r"[a-z0-9][a-z0-9_\-*/]{0,255}|[a-z0-9][a-z0-9_\-*/]{0,240}@[a-z][a-z0-9_\-*/]{0,13}")
_STATE_VALUE = re.compile(r"[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]")
_TOKEN = re.compile(r"[0-9A-Za-z!#$%&'*+\-.^_`|~]+")
_OCTETS = re.compile(r"[\x21\x23-\x2b\x2d-\x3a\x3c-\x5b\x5d-\x7e]*")


class TraceParent(NamedTuple):
    """The caller's place in a trace: ids of 32 and 16 lower-case hex digits, and flags (`SAMPLED`, `RANDOM`)."""

    trace_id: str
    parent_id: str
    flags: int = 0


class Member(NamedTuple):
    """One value of a baggage, decoded, with its properties as they were sent: `ttl=30;private`."""

    value: str
    properties: str = ""


# ---------------------------------------------------------------------- headers


def headers_of(headers: Any) -> dict[str, list[str]]:
    """All values of each header, by its name in lower case and in their order.

    Args:
        headers: a mapping, anything with `items()` (httpx, starlette, werkzeug, aiohttp, Django), or pairs (ASGI, WSGI,
            gRPC, Kafka). Names and values are str or bytes, or lists of values; what is neither is left out.

    Raises:
        Exception: whatever the headers' own methods raise, and TypeError for what are no headers at all.
    """
    found: dict[str, list[str]] = {}
    items = getattr(headers, "items", None)
    for name, value in headers if items is None else items():
        key = name if type(name) is str else _text(name)
        if key is None:
            continue
        values = found.setdefault(key.lower(), [])
        if type(value) is str:
            values.append(value)
        else:
            several = value if isinstance(value, (list, tuple)) else (value,)
            values.extend(text for one in several if (text := _text(one)) is not None)
    return found


def _text(given: object) -> str | None:
    if isinstance(given, (bytes, bytearray)):
        return given.decode("latin-1")
    return given if isinstance(given, str) else None


# ---------------------------------------------------------------------- traceparent


def parse_traceparent(text: str) -> TraceParent | None:
    """The caller's place, or None for what is no valid traceparent: the trace then begins anew."""
    if len(text) > _MOST_TRACEPARENT:
        return None
    match = _TRACEPARENT.fullmatch(text.strip(_OWS))
    if match is None:
        return None
    version, trace_id, parent_id, flags, more = match.groups()
    if version == "ff" or (version == "00" and more) or not (trace_id.strip("0") and parent_id.strip("0")):
        return None
    return TraceParent(trace_id, parent_id, int(flags, 16) & _KNOWN_FLAGS)


def format_traceparent(parent: TraceParent) -> str:
    """The header of version 00, whichever the caller's was."""
    return f"00-{parent.trace_id}-{parent.parent_id}-{parent.flags & _KNOWN_FLAGS:02x}"


# ---------------------------------------------------------------------- tracestate


def parse_tracestate(headers: Iterable[str]) -> dict[str, str]:
    """The vendors' states in their order; nothing at all where one is malformed or twice, or there are more than 32."""
    combined = ",".join(headers)
    if len(combined) > _MOST_CHARACTERS:
        return {}
    found: dict[str, str] = {}
    for member in combined.split(","):
        key, _, value = member.strip(_OWS).partition("=")
        if not key and not value:
            continue  # empty members are valid
        if key in found or not (_STATE_KEY.fullmatch(key) and _STATE_VALUE.fullmatch(value)):
            return {}
        found[key] = value
    return found if len(found) <= _MOST_STATES else {}


def format_tracestate(states: Mapping[str, str]) -> str:
    """The header, of at most 512 characters: what is too much goes, long members first, then from the end."""
    members = [f"{key}={value}" for key, value in states.items()][:_MOST_STATES]
    while members and sum(map(len, members)) + len(members) - 1 > _STATE_CHARACTERS:
        long = [place for place, member in enumerate(members) if len(member) > _LONG_STATE]
        del members[long[-1] if long else -1]
    return ",".join(members)


# ---------------------------------------------------------------------- baggage


def is_baggage_name(name: object) -> bool:
    """Whether a name can be sent: a token of HTTP, ASCII without blanks and most punctuation."""
    return isinstance(name, str) and _TOKEN.fullmatch(name) is not None


def parse_baggage(headers: Iterable[str]) -> dict[str, Member]:
    """The members that are well-formed, at most 64 of them and 8,192 characters; the last one of a name."""
    found: dict[str, Member] = {}
    left = _MOST_CHARACTERS
    for header in headers:
        for text in header[: left + 1].split(","):
            left -= len(text) + 1
            if left < -1:
                return found
            head, *properties = text.split(";")
            pair = _pair(head)
            rest = [_pair(each) for each in properties]
            if pair is None or pair[1] is None or None in rest:
                continue
            if len(found) >= _MOST_MEMBERS and pair[0] not in found:
                continue
            written = ";".join(name if value is None else f"{name}={value}" for name, value in filter(None, rest))
            found[pair[0]] = Member(unquote(pair[1], errors="replace"), written)
    return found


def _pair(text: str) -> tuple[str, str | None] | None:
    """A key and its value, None where there is no "="; None for what is malformed."""
    key, equals, value = text.partition("=")
    key, value = key.strip(_OWS), value.strip(_OWS)
    if not (_TOKEN.fullmatch(key) and _OCTETS.fullmatch(value)):
        return None
    return key, value if equals else None


def format_baggage(members: Mapping[str, Member]) -> str:
    """The header, values percent-encoded; what has no valid name, or would be over a limit, is left out."""
    written: list[str] = []
    left = _MOST_CHARACTERS + 1
    for name, member in members.items():
        if not is_baggage_name(name) or len(member.value) > _MOST_CHARACTERS:
            continue
        text = f"{name}={quote(member.value, safe='', errors='replace')}"
        if member.properties:
            text += f";{member.properties}"
        if len(written) < _MOST_MEMBERS and len(text) < left:
            left -= len(text) + 1
            written.append(text)
    return ",".join(written)
