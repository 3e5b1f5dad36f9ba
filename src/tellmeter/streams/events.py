"""on(): functions that are told what happens to the streams of this process."""

from __future__ import annotations

import threading
from collections.abc import Callable

from ..errors import ConfigError
from .options import Callback
from .report import EVENTS

_handlers: dict[str, tuple[Callback, ...]] = dict.fromkeys(EVENTS, ())
_lock = threading.Lock()


def on(event: str, function: Callback) -> Callable[[], None]:
    """Call `function(report)` whenever `event` happens to a stream; gives what ends that again.

    Args:
        event: stream.start, stream.progress, stream.first_token, stream.stall, stream.complete or stream.error. Each
            stream has one of the last two as its end.
        function: gets a `StreamReport`. Sync ones run on a thread of tellmeter's; async ones on the loop that the
            stream was begun on, or on one of tellmeter's own. What they raise is counted, and stays there.

    Raises:
        ConfigError: no such event, or not a function.
    """
    if event not in EVENTS:
        raise ConfigError(f"on({event!r}): there is no such event; there are {', '.join(EVENTS)}")
    if not callable(function):
        raise ConfigError(f"on({event!r}): a {type(function).__name__} cannot be called")
    with _lock:
        _handlers[event] = (*_handlers[event], function)

    def off() -> None:
        with _lock:
            left = list(_handlers[event])
            if function in left:
                left.remove(function)
            _handlers[event] = tuple(left)

    return off


def handlers_of(event: str) -> tuple[Callback, ...]:
    """Who is told of an event."""
    return _handlers[event]


def anybody(*events: str) -> bool:
    """Whether somebody is told of one of the events."""
    return any(_handlers[event] for event in events)
