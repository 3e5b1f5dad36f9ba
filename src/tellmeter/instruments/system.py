"""track_system: the machine's processors, memory and disks, and this process's memory, sampled on a timer."""

from __future__ import annotations

import os
import sys
import threading
import weakref
from collections.abc import Iterable
from math import isfinite
from pathlib import Path
from types import TracebackType
from typing import Any

from ..errors import ConfigError, MissingExtra
from ..guard import note
from ..registry.registry import MetricsRegistry, get_metrics_registry

_FIRST_CPU_SECONDS = 1.0  # the use of processors is that between two looks; nobody should wait long for the first
_STOP_SECONDS = 2.0  # a disk that hangs must not hang who stops

_lock = threading.Lock()
_running: weakref.WeakKeyDictionary[MetricsRegistry, SystemMetrics] = weakref.WeakKeyDictionary()


def track_system(
    interval_seconds: float = 15.0,
    *,
    registry: MetricsRegistry | None = None,
    disks: Iterable[str | os.PathLike[str]] = ("/",),
) -> SystemMetrics:
    """Sample the system's metrics from now on; again, to replace the sampling that runs on this registry.

    `system_cpu_usage_percent` (0 to 100, all processors together, since the last sample), `system_memory_usage_bytes`,
    `system_disk_usage_bytes{mount_point}` and `memory_usage{process}`: the resident memory of this process, under the
    program's name. One daemon thread. A forked child samples only once it asks itself.

    Args:
        interval_seconds: from 0.01 to 86,400.
        registry: where to record; the process's without one.
        disks: paths on the file systems to watch.

    Raises:
        ConfigError: an interval or disk that cannot be.
        MissingExtra: psutil is not installed.
    """
    try:
        import psutil  # type: ignore[import-untyped]
    except ImportError:
        raise MissingExtra("psutil", "system") from None
    if isinstance(interval_seconds, bool) or not isinstance(interval_seconds, (int, float)):
        raise ConfigError(f"interval_seconds = {interval_seconds!r}: it must be a number from 0.01 to 86,400")
    if not isfinite(interval_seconds) or not 0.01 <= interval_seconds <= 86_400:
        raise ConfigError(f"interval_seconds = {interval_seconds!r}: it must be a number from 0.01 to 86,400")
    paths = [disks] if isinstance(disks, (str, os.PathLike)) else list(disks)
    if not all(isinstance(path, (str, os.PathLike)) for path in paths):
        raise ConfigError(f"disks = {paths!r}: they must be paths")
    chosen = get_metrics_registry() if registry is None else registry
    made = SystemMetrics(psutil, float(interval_seconds), chosen, [os.fspath(path) for path in paths])
    with _lock:
        made._thread.start()
        former = _running.get(chosen)
        _running[chosen] = made
    if former is not None:
        former._halt()
    return made


class SystemMetrics:
    """What `track_system()` gives: `stop()` ends the sampling, as leaving its `with` block does."""

    def __init__(self, psutil: Any, interval: float, registry: MetricsRegistry, disks: list[str]) -> None:
        self._psutil = psutil
        self._interval = interval
        self._registry = registry
        self._disks = disks
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tellmeter-system", daemon=True)

    @property
    def running(self) -> bool:
        """Whether it samples in this process."""
        return self._thread.is_alive() and not self._stopped.is_set()

    def stop(self) -> None:
        """Sample no more. Safe to call twice, and in a forked child. The gauges keep their last values."""
        self._halt()
        with _lock:
            if _running.get(self._registry) is self:
                del _running[self._registry]  # which is kept alive by us
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(_STOP_SECONDS)

    def __enter__(self) -> SystemMetrics:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _halt(self) -> None:
        if self._thread.is_alive():  # in a child of a fork it is not, and the event's lock may be held for ever
            self._stopped.set()

    def _run(self) -> None:
        self._sample_cpu(first=True)
        self._sample()
        if self._stopped.wait(min(_FIRST_CPU_SECONDS, self._interval)):
            return
        self._sample_cpu()
        while not self._stopped.wait(self._interval):
            self._sample_cpu()
            self._sample()

    def _sample_cpu(self, *, first: bool = False) -> None:
        try:
            percent = self._psutil.cpu_percent(interval=None)  # since this thread asked last
            if not first:
                self._registry.set_gauge("system_cpu_usage_percent", percent)
        except Exception as error:
            note("system_cpu", error)

    def _sample(self) -> None:
        psutil, set_gauge = self._psutil, self._registry.set_gauge
        try:
            set_gauge("system_memory_usage_bytes", psutil.virtual_memory().used)
        except Exception as error:
            note("system_memory", error)
        try:
            set_gauge("memory_usage", psutil.Process().memory_info().rss, {"process": program_name()})
        except Exception as error:
            note("system_process", error)
        for path in self._disks:
            try:
                set_gauge("system_disk_usage_bytes", psutil.disk_usage(path).used, {"mount_point": path})
            except Exception as error:
                note("system_disk", error)


def program_name() -> str:
    """What this program is called, the same in all its processes: `gunicorn`, `worker.py`, the package of `-m`."""
    path = Path(sys.argv[0] if getattr(sys, "argv", None) else "")
    name = path.parent.name if path.name == "__main__.py" else path.name
    return "python" if name in {"", "-c", "-m", "-"} else name


def _in_child() -> None:
    """No thread samples here, and none holds the lock any more."""
    global _lock
    _lock = threading.Lock()
    _running.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
