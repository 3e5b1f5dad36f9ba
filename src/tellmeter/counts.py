"""What tellmeter notices about itself: cleaned values, guarded errors, unknown prices, missing usage.

Process-wide, exact and lock-free, so that it may be called from a signal handler, a `__del__` or a forked child.
"""

from __future__ import annotations

import itertools

# A few hundred names are all that the code can produce; the bound is for keys that carry a class or field name.
_MAX_KEYS = 2000
_OVERFLOW = ("overflow", "")

_counters: dict[tuple[str, str], itertools.count[int]] = {}


def count(name: str, key: str = "") -> None:
    """Add one to `name{key}`. Never blocks, never raises."""
    pair = (name, key)
    counter = _counters.get(pair)
    if counter is None:
        if len(_counters) >= _MAX_KEYS:
            pair = _OVERFLOW
        counter = _counters.setdefault(pair, itertools.count())
    # One C call: atomic under the GIL, and locked by the interpreter in free-threaded builds.
    next(counter)


def snapshot() -> dict[str, dict[str, int]]:
    """The counts so far: name -> key -> number."""
    found: dict[str, dict[str, int]] = {}
    for (name, key), counter in list(_counters.items()):
        found.setdefault(name, {})[key] = value_of(counter)
    return found


def value_of(counter: itertools.count[int]) -> int:
    """How often `next()` was called on a counter that started at 0, without advancing it."""
    return int(repr(counter)[6:-1])  # "count(5)": the only way to look that every CPython offers


def total(name: str) -> int:
    """The sum of `name` over its keys."""
    return sum(value_of(counter) for (found, _), counter in list(_counters.items()) if found == name)
