"""Running code that is not ours: what it raises is counted and logged once, never let through and never quoted."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from .counts import count

logger = logging.getLogger(__name__)

T = TypeVar("T")
_logged: set[tuple[str, str]] = set()


def note(where: str, error: BaseException) -> None:
    """Count an error at `where` and log it the first time, by its class only: messages carry prompts and keys."""
    count("guarded_errors", where)
    kind = type(error).__name__
    if (where, kind) not in _logged and len(_logged) < 1000:
        _logged.add((where, kind))
        logger.warning("%s raised %s; it is counted from now on, and the program goes on", where, kind)


def guarded(where: str, function: Callable[..., T], *arguments: object, default: T) -> T:
    """`function(*arguments)`, or `default` whatever it raises; for tellmeter's own threads and the exit only."""
    try:
        return function(*arguments)
    except BaseException as error:
        note(where, error)
        return default
