"""The process's own collector, which `instrument()` and `meter_call()` record to."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec

from .collector import SETTLE_SECONDS, MetricsCollector
from .config import SINKS_VARIABLE, SOURCES, MetricsConfig, _flag
from .errors import ConfigError
from .pipeline.select import Selection
from .records import AgentMetrics
from .registry.registry import MetricsRegistry

logger = logging.getLogger(__name__)

_process_lock = threading.RLock()
_process_collector: MetricsCollector | None = None
_watchers: tuple[Callable[[AgentMetrics], bool], ...] = ()
_keeps_records = True


def configure(
    config: MetricsConfig | None = None, *, sinks: Iterable[Any] = (), registry: MetricsRegistry | None = None
) -> MetricsCollector:
    """Set up the process's collector, which `instrument()` and `meter_call()` record to; again, to replace it.

    Args:
        config: the settings; the environment's (`MetricsConfig.from_env()`) without one.
        sinks: sink objects, or URLs as `sqlite:///calls.db`; those of `TELLMETER_SINKS` without any, else memory.
        registry: where calls are counted; the process's without one, which stays however often this is called.

    Raises:
        ConfigError: a setting, sink or URL that cannot work.
        MissingExtra: a sink whose package is not installed.
    """
    global _process_collector
    made = _make_collector(config, sinks, registry)
    with _process_lock:
        former, _process_collector = _process_collector, made
    if former is not None:
        former.shutdown_sync()
    return made


def get_metrics_collector() -> MetricsCollector:
    """The process's collector, made from the environment at the first call.

    Without `configure()` and `TELLMETER_SINKS` it keeps the newest records in memory (`.sinks[0].get_summary()`).
    """
    global _process_collector
    found = _process_collector
    if found is not None:
        return found
    with _process_lock:
        if _process_collector is None:
            _process_collector = _collector_of_the_environment()
        return _process_collector


@contextlib.contextmanager
def watched(see: Callable[[AgentMetrics], bool]) -> Iterator[None]:
    """While it runs, `see` gets every record of the process, whatever its filters and sampling keep.

    The process's collector makes way for one with the same settings and a sink in memory. Those that `configure()`
    makes meanwhile are watched too. At the end they are shut down, and the collector from before is back.

    Args:
        see: called on a collector's own thread; returns True.
    """
    global _process_collector, _watchers
    before = _process_collector
    if before is not None:  # who watches it sees what was recorded there before what comes now
        before._router.drain(SETTLE_SECONDS)
    with _process_lock:
        former, watchers = _process_collector, _watchers
        settings = MetricsConfig.from_env() if former is None else former.config
        settings = msgspec.structs.replace(settings, enabled=True, when_full=None, spool=None, dead_letters=None)
        _watchers = (*watchers, see)
        _process_collector = _make_collector(settings, ["memory:"], None if former is None else former.registry)
    try:
        yield
    finally:
        with _process_lock:
            made, _process_collector, _watchers = _process_collector, former, watchers
        if made is not None:
            made.shutdown_sync()


def keep_records(kept: bool) -> None:
    """Whether records reach the sinks of the process's collectors, of this one and later ones.

    What does not is dropped as `filtered`. Calls are counted either way.
    """
    global _keeps_records
    with _process_lock:
        _keeps_records = kept
        if _process_collector is not None:
            _select(_process_collector)


def _select(collector: MetricsCollector) -> None:
    settings = collector.config if _keeps_records else MetricsConfig(filters=[lambda record: False])
    collector._selection = Selection(settings)


def is_switched_off() -> bool:
    """Whether the process's collector neither records nor counts. Without one, and none is made, the environment says.

    The environment is read once.
    """
    found = _process_collector
    return _is_off_in_the_environment() if found is None else not found.config.enabled


@functools.cache
def _is_off_in_the_environment() -> bool:
    given = next(filter(None, (os.environ.get(variable, "").strip() for variable in SOURCES["enabled"])), "true")
    try:
        return not _flag(given)
    except ValueError:  # the collector that it will be made a setting of records nothing either
        return True


def new_collector(
    config: MetricsConfig | None, sinks: Iterable[Any] | None, registry: MetricsRegistry | None
) -> MetricsCollector:
    """A collector beside the process's, for who is given `config`, `sinks` or `registry`; None is the environment's.

    Raises:
        ConfigError, MissingExtra: as `configure`.
    """
    chosen = _sinks_of_the_environment() if sinks is None else sinks
    return MetricsCollector(MetricsConfig.from_env() if config is None else config, sinks=chosen, registry=registry)


def _sinks_of_the_environment() -> list[str]:
    named = os.environ.get(SINKS_VARIABLE, "")
    return [url.strip() for url in named.split(",") if url.strip()] or ["memory:"]


def _make_collector(
    config: MetricsConfig | None, sinks: Iterable[Any], registry: MetricsRegistry | None = None
) -> MetricsCollector:
    chosen = ([sinks] if isinstance(sinks, str) else list(sinks)) or _sinks_of_the_environment()
    settings = MetricsConfig.from_env() if config is None else config
    if _watchers:  # before the filters and sampling of the settings
        kept = (one for one in settings.filters if one not in _watchers)
        settings = msgspec.structs.replace(settings, filters=[*_watchers, *kept])
    made = MetricsCollector(settings, sinks=chosen, registry=registry)
    if not _keeps_records:
        _select(made)
    return made


def _collector_of_the_environment() -> MetricsCollector:
    """As `configure()`, but a bad environment must not break the call that came first: it is told, and metering off."""
    try:
        return _make_collector(None, ())
    except Exception as error:
        # Our own errors name a setting and never a secret; others are told by class.
        told = str(error) if isinstance(error, (ConfigError, ImportError)) else type(error).__name__
        logger.warning("nothing is metered: %s", told)
        return MetricsCollector(MetricsConfig(enabled=False))


def _new_lock() -> None:
    global _process_lock
    _process_lock = threading.RLock()


if hasattr(os, "register_at_fork"):  # the thread that was making the collector is not in the child
    os.register_at_fork(after_in_child=_new_lock)
