"""The process's registry and those of other processes: what one counted is written, what the others did is read.

Each process writes its snapshot once a second, at exit, and before it is asked for the metrics of all; so what was
shown once is on file, and stays when the process is killed. A forked child starts at zero: its parent owns what was
counted before.

What a process counted since its last snapshot is lost when it ends without Python's exit: by kill -9, by `os._exit`
(but not of multiprocessing's workers), or by a signal that nobody handles, which is how uvicorn ends: by SIGTERM once
more, after it has shut down.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...config import MULTIPROC_VARIABLE
from ...guard import guarded
from ..forks import write_last
from .dead import FOLD_LOCK, fold, read_others
from .folder import Folder, Refused, new_name
from .gathering import Gathering
from .merging import Merged, merge
from .snapshot import Snapshot, decode, encode
from .trouble import trouble

if TYPE_CHECKING:
    from ..registry import MetricsRegistry

SECONDS = 1.0
_FOLD_TURNS = 10  # a service that nobody scrapes must not collect files


class Member:
    """One process of those that share a folder.

    Args:
        registry: what it counts in.
        path: the folder; made when there is something to write.
    """

    def __init__(self, registry: MetricsRegistry, path: str) -> None:
        self.registry = registry
        self._folder = Folder(path)
        self._stop: threading.Event | None = None
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.RLock()
        self._writing = False
        self._pid = os.getpid()
        self._began = time.time()
        self._name = new_name()
        self._gathering = Gathering(self.registry)
        self._data = b""  # the newest snapshot
        self._on_file = b""  # that which the others see
        self._refused = False
        # Descriptors whose locks a forked child must not keep for its parent.
        self._entered: int | None = None
        self._folding: int | None = None

    # ------------------------------------------------------------------ writing

    def start(self) -> None:
        """Write once a second from now on."""
        self._stop = threading.Event()
        thread = threading.Thread(target=self._run, args=(self._stop,), name="tellmeter-snapshots", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the interpreter is ending, or has no thread left: the exit writes, and who scrapes
            self._stop = None

    def stop(self) -> None:
        """Write once more, and be dead to the others."""
        if self._stop is not None:
            self._stop.set()
            self._stop = None
        self.write()
        with self._lock:
            self._leave()

    def _run(self, stop: threading.Event) -> None:
        turn = 0
        while not stop.wait(SECONDS):
            guarded("snapshots", self.write, default=None)
            turn += 1
            if turn % _FOLD_TURNS == 0:
                guarded("snapshots", self.fold, default=None)

    def write(self) -> bytes:
        """Write what was counted so far, unless the others see it already; the snapshot."""
        if self._pid != os.getpid():  # a fork of which Python was not told
            self.after_fork()
        self.registry.settle()
        with self._lock:
            if self._writing:  # a signal handler or a finalizer, amidst it
                return self._data or encode(Snapshot(self._began, []))
            self._writing = True
            try:
                if self._gathering.look(time.time()) or not self._data:
                    self._data = encode(Snapshot(self._began, self._gathering.parts))
                if not self._refused and (self._gathering.series or self._entered is not None):
                    self._put()
            finally:
                self._writing = False
            return self._data

    def _put(self) -> None:
        try:
            if self._entered is None or not self._folder.same(f"{self._name}.lock", self._entered):
                # For the first time; or somebody emptied the folder, and the name may be taken for a dead one's.
                self._leave()
                self._folder.make()
                self._name = new_name()
                self._entered = self._folder.enter(self._name)
            if self._on_file is not self._data:
                self._folder.write(f"{self._name}.snap", self._data)
                self._on_file = self._data
        except Refused as error:
            self._refuse(error)
        except OSError as error:
            kind = type(error).__name__
            trouble("write", "the metrics cannot be written to %s (%s); others see older ones", self._folder.path, kind)

    def _leave(self) -> None:
        self._on_file = b""
        if self._entered is not None:
            os.close(self._entered)
            self._entered = None

    def _refuse(self, error: Refused) -> None:
        self._refused = True
        told = "%s = %s: %s. This process keeps its metrics to itself"
        trouble("refused", told, MULTIPROC_VARIABLE, self._folder.path, error)

    # ------------------------------------------------------------------ reading

    def metrics(self) -> list[Merged]:
        """The metrics of all processes, this one's first."""
        found: list[tuple[Snapshot, bool]] = [(decode(self.write()), True)]
        try:
            if not self._refused and self._folder.exists():
                others = read_others(self._folder, self._name)
                found += others.snapshots
                if others.dead:
                    self.fold()
        except Refused as error:
            self._refuse(error)
        except OSError as error:
            kind = type(error).__name__
            trouble("read", "the metrics in %s cannot be read (%s)", self._folder.path, kind)
        return merge(found)

    def fold(self) -> None:
        """Add up what dead processes left, unless somebody is at it."""
        if self._refused or not self._folder.exists():
            return
        with self._lock:  # no fork between the lock and its being known
            if self._folding is not None:
                return
            self._folding = descriptor = self._folder.only_one(FOLD_LOCK)
        if descriptor is None:
            return
        try:
            fold(self._folder, max_series=self.registry.max_series)
        except OSError as error:
            told = "what dead processes left in %s cannot be added up (%s)"
            trouble("write", told, self._folder.path, type(error).__name__)
        finally:
            with self._lock:
                self._folding = None
                os.close(descriptor)

    # ------------------------------------------------------------------ the process's life

    def locks(self) -> list[Any]:
        """The lock that a fork must not catch held by another thread."""
        return [self._lock]

    def after_fork(self) -> None:
        """In the child: another process, which has counted nothing."""
        global _changing
        _changing = threading.RLock()
        for descriptor in (self._entered, self._folding):
            if descriptor is not None:
                with contextlib.suppress(OSError):
                    os.close(descriptor)
        ran = self._stop is not None
        if self.registry._about_itself is not None:
            self.registry._about_itself.update()  # what the parent noticed is the parent's to tell
        self.registry.reset()
        self._begin()
        if ran:
            self.start()


_member: Member | None = None
_member_of = ""
_changing = threading.RLock()


def share(registry: MetricsRegistry) -> Member | None:
    """Let the process's registry be one of those that share the folder of the environment; None where it names none."""
    global _member, _member_of
    named = os.environ.get(MULTIPROC_VARIABLE, "").strip()
    if not named:
        return None
    if _member is None or _member_of != named or _member.registry is not registry:
        with _changing:
            if _member is None or _member_of != named or _member.registry is not registry:
                former = _member
                made = Member(registry, _absolute(named))
                _member, _member_of = made, named
                registry.shared = made
                if former is not None:
                    former.stop()
                made.start()
                write_last(write_now)
    return _member


def _absolute(named: str) -> str:
    """The folder by a path that stays right when the program changes its directory."""
    try:
        return str(Path(named).absolute())
    except OSError:  # the directory that it is in is gone
        return named


def write_now() -> None:
    """Write what the process counted, if it shares a folder."""
    if _member is not None:
        guarded("snapshots", _member.write, default=None)
