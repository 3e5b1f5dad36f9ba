"""Finding the call that is metered already in a stream that is handed over: an SDK's, or what reads one."""

from __future__ import annotations

import gc
from collections import deque
from types import AsyncGeneratorType, GeneratorType, MethodType, ModuleType
from typing import Any

from ..call import Call
from ..guard import note
from ..wire.stream import Watch

# From what is handed over to the watched body: generators, iterators, the SDK's stream, the HTTP response.
_MOST_STEPS = 8
_MOST_LOOKED_AT = 300
_READERS = (GeneratorType, AsyncGeneratorType, MethodType, map, filter, zip, enumerate, tuple)


def call_inside(source: object) -> Call | None:
    """The call whose stream a source reads, as far as that can be seen from outside; none of its code runs."""
    try:
        return _call_inside(source)
    except Exception as error:
        note("stream", error)
        return None


def _call_inside(source: object) -> Call | None:
    seen = {id(source)}
    waiting = deque([(source, 0)])
    while waiting:
        one, steps = waiting.popleft()
        for part in _parts(one):
            if type(part) is Watch:
                return part._exchange.call
            if id(part) not in seen and steps < _MOST_STEPS and len(seen) < _MOST_LOOKED_AT:
                seen.add(id(part))
                waiting.append((part, steps + 1))
    return None


def _parts(one: Any) -> list[Any]:
    """What a generator has in its variables, or an object in its attributes. Not what is in collections."""
    if type(one) in _READERS:
        return gc.get_referents(one)
    try:
        own = object.__getattribute__(one, "__dict__")
    except AttributeError:
        return []
    return list(own.values()) if type(own) is dict and type(one) is not ModuleType else []
