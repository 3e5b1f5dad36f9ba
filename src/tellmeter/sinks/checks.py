"""Checks of the arguments that sinks take: a bad one is one `ConfigError` that names it."""

from __future__ import annotations

import sys

from ..errors import ConfigError


def check_whole(name: str, value: object, lowest: int = 1) -> None:
    """A whole number, `lowest` or more, that fits 64 bits."""
    if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value < 2**63:
        raise ConfigError(f"{name} = {value!r}: it must be a whole number, {lowest} or more")


def check_positive(name: str, value: object) -> float:
    """A finite number above 0."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= sys.float_info.max:
        raise ConfigError(f"{name} = {value!r}: it must be a number above 0")
    return float(value)
