"""Recording by name on the process's registry, without asking for it first."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from ..process import is_switched_off
from ..registry.registry import get_metrics_registry

Labels = Mapping[str, Any] | None


def increment_counter(name: str, value: float = 1, labels: Labels = None) -> None:
    """Add `value` to a counter of the process's registry. Never raises."""
    if not is_switched_off():
        get_metrics_registry().increment(name, value, labels)


def observe_histogram(name: str, value: float, labels: Labels = None) -> None:
    """Record `value` in a histogram of the process's registry. Never raises."""
    if not is_switched_off():
        get_metrics_registry().observe(name, value, labels)


def set_gauge(name: str, value: float, labels: Labels = None) -> None:
    """Set a gauge of the process's registry. Never raises."""
    if not is_switched_off():
        get_metrics_registry().set_gauge(name, value, labels)


# ---------------------------------------------------------------------- names of before

_told: set[str] = set()


def log_counter(name: str, value: float = 1, labels: Labels = None) -> None:
    """Deprecated: `increment_counter`."""
    _tell("log_counter", "increment_counter")
    increment_counter(name, value, labels)


def log_histogram(name: str, value: float, labels: Labels = None) -> None:
    """Deprecated: `observe_histogram`."""
    _tell("log_histogram", "observe_histogram")
    observe_histogram(name, value, labels)


def log_gauge(name: str, value: float, labels: Labels = None) -> None:
    """Deprecated: `set_gauge`."""
    _tell("log_gauge", "set_gauge")
    set_gauge(name, value, labels)


def timeit(function: Any) -> Any:
    """Deprecated: `measure_latency`."""
    from .durations import measure_latency

    _tell("timeit", "measure_latency")
    return measure_latency(function)


def _tell(name: str, instead: str) -> None:
    if name not in _told:
        _told.add(name)
        warnings.warn(f"{name} is deprecated: use {instead}", DeprecationWarning, stacklevel=3)
