"""Scripted faults: what goes wrong with one request, as text, and what that does to a body.

    500                          that status; also 429;retry-after=1 and 429;code=insufficient_quota
    reset;after=3                a TCP reset after three events (0: before the headers)
    close;after=3                the connection is closed there, in the middle of the body
    stall;after=2;seconds=1      silence before the third event (0: before the headers; 1: before a chat's first text)
    slow;seconds=0.05            that much silence before every event
    hang;seconds=30              no headers; the connection is closed in the end
    error-event;after=3          an error inside the stream, which ends with it
    garbage;after=1              an event that is no JSON (a body that is no JSON, if not streamed)
    no-usage                     the provider forgets the token counts
    no-terminator                the stream ends without what ends it: its last event, of Converse the last two
    ok                           nothing

A body that is not streamed counts as eight events. One request's faults, in a script or in its header `x-simulate`,
are separated by commas, one for each attempt of an SDK, the last for all that follow: `500, 500, ok`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import msgspec

from ..errors import ConfigError
from . import aws_frames
from .answer import Event

_WHOLE_PIECES = 8
# Each kind with its parameters and their defaults.
_KINDS: dict[str, dict[str, float | str | None]] = {
    "status": {"retry_after": None, "code": None},
    "reset": {"after": 3},
    "close": {"after": 3},
    "stall": {"after": 0, "seconds": 1.0},
    "slow": {"seconds": 0.05},
    "hang": {"seconds": 3600.0},
    "error-event": {"after": 3},
    "garbage": {"after": 1},
    "no-usage": {},
    "no-terminator": {},
    "ok": {},
}
_MOST_SECONDS = 86_400.0


class Fault(msgspec.Struct, frozen=True):
    """One fault; `str()` of it is the text that `parse_fault` reads.

    `after` counts events, `seconds` and `retry_after` are seconds, not scaled by `Traffic.speed`.
    """

    kind: str = "ok"
    status: int = 200
    after: int = 0
    seconds: float = 0.0
    retry_after: float | None = None
    code: str | None = None

    def __str__(self) -> str:
        name = str(self.status) if self.kind == "status" else self.kind
        given = [f"{key.replace('_', '-')}={getattr(self, key)}" for key in _KINDS[self.kind]]
        return ";".join([name, *(text for text in given if not text.endswith("=None"))])


OK = Fault()


def parse_fault(text: str | int | Fault) -> Fault:
    """The fault that `text` names.

    Raises:
        ConfigError: no such fault, or a parameter that it does not have or that is out of range.
    """
    if isinstance(text, Fault):
        return text
    name, *parameters = (part.strip() for part in str(text).split(";"))
    name = name.lower().replace("_", "-")
    kind = "status" if name.isascii() and name.isdigit() else name
    if kind not in _KINDS or name == "status":
        raise ConfigError(f"no such fault: {name!r}; one of a status, {', '.join(k for k in _KINDS if k != 'status')}")
    if kind == "status" and not 400 <= int(name[:9]) <= 599:
        raise ConfigError(f"the fault {name!r} is no error status (400 to 599)")
    values: dict[str, float | str | None] = dict(_KINDS[kind])
    for parameter in parameters:
        key, _, value = parameter.partition("=")
        key = key.strip().lower().replace("-", "_")
        if key not in values:
            raise ConfigError(f"the fault {name!r} has no parameter {key!r}; it has {', '.join(values) or 'none'}")
        values[key] = value.strip() or None if key == "code" else _number(name, key, value)
    return msgspec.convert({"kind": kind, **({"status": int(name)} if kind == "status" else {}), **values}, Fault)


def _number(name: str, key: str, value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = -1.0
    if not 0.0 <= number <= _MOST_SECONDS or (key == "after" and number != int(number)):
        raise ConfigError(f"the fault {name!r} has {key}={value!r}; a number from 0 to {_MOST_SECONDS:.0f} is needed")
    return int(number) if key == "after" else number


def parse_script(text: str) -> list[Fault]:
    """The faults in a comma-separated list."""
    return [parse_fault(part) for part in text.split(",") if part.strip()]


def for_attempt(script: list[Fault], attempt: int) -> Fault:
    """What a script for one request says of its attempt number `attempt`, from 0."""
    return script[min(attempt, len(script) - 1)] if script else OK


class Stall(NamedTuple):
    """Be silent for some seconds."""

    seconds: float


class HangUp(NamedTuple):
    """End the connection here: with a TCP reset, or by closing it."""

    reset: bool


def in_pieces(body: bytes) -> list[Event]:
    """A whole body as events, so that something can happen in its middle."""
    size = max(1, -(-len(body) // _WHOLE_PIECES))
    return [Event(body[start : start + size]) for start in range(0, len(body), size)]


def spoil(events: Iterable[Event], fault: Fault, error: Sequence[Event] = ()) -> Iterator[Event | Stall | HangUp]:
    """`events` with `fault` in them; `error` is what an error inside the stream looks like.

    A fault that comes after more events than there are comes before the last one.
    """
    if (happens := _MIDWAY.get(fault.kind)) is None:
        for event in events:
            if fault.kind == "slow":
                yield Stall(fault.seconds)
            if not (fault.kind == "no-terminator" and event.ends):
                yield event
        return
    source = iter(events)
    coming = next(source, None)
    number = 0
    while coming is not None:
        event, coming = coming, next(source, None)
        if number == fault.after or coming is None:
            instead, goes_on = happens(fault, event, error)
            yield from instead
            if not goes_on:
                return
            break
        number += 1
        yield event
    if coming is not None:
        yield coming
    yield from source


# What is sent in place of the event at `after`, and whether the body goes on.
_MIDWAY: dict[str, Callable[[Fault, Event, Sequence[Event]], tuple[Sequence[Event | Stall | HangUp], bool]]] = {
    "reset": lambda fault, event, error: ([HangUp(reset=True)], False),
    "close": lambda fault, event, error: ([HangUp(reset=False)], False),
    "stall": lambda fault, event, error: ([Stall(fault.seconds), event], True),
    "error-event": lambda fault, event, error: (error, False),
    "garbage": lambda fault, event, error: ([_cut_off(event)], True),
}


def _cut_off(event: Event) -> Event:
    """The event with its JSON broken off, in an unbroken frame."""
    if aws_frames.is_frame(event.data):
        return event._replace(data=aws_frames.cut_off(event.data))
    return event._replace(data=event.data[: max(1, len(event.data) * 2 // 3)].rstrip() + b"\n\n")
