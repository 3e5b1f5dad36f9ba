"""Records as lines of JSON in a file: for grep, jq, DuckDB and log shippers."""

from __future__ import annotations

import contextlib
import gzip
import os
import shutil
import stat
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Unpack

from ..errors import ConfigError
from ..guard import note
from ..pipeline.outcome import Delivered, Outcome, Partial, Rejected, RetryLater
from ..records import AgentMetrics
from .address import LANE_PARSERS, file_path, parse, whole, whole_or_zero
from .base import BatchingMetricsSink, LaneOptions, file_reason
from .checks import check_whole
from .json_record import columns, encode

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_HOPELESS = {"is_a_directory", "no_such_folder"}


class JSONLMetricsSink(BatchingMetricsSink):
    """Appends one JSON object per call to a file (0600), one write per batch.

    Several processes may write to the same file: they take turns by a lock on it. A file that was moved or deleted (by
    logrotate) is made anew at the next batch. What is absent in a line is None or empty, and
    `msgspec.json.decode(line, type=AgentMetrics)` gives the record back. Delivery is at least once: read by `id` where
    that matters.

    Args:
        path: the file.
        max_bytes: rotate before the file would grow larger (`calls.jsonl` to `calls.jsonl.1`, and so on). A batch is
            never split.
        backups: how many rotated files to keep.
        compress: "gzip" packs a file once it is rotated (`calls.jsonl.1.gz`), or None.
        lane: settings for this sink alone, as `spool="folder"`; see `LaneOptions`.

    Raises:
        ConfigError: an argument that cannot work, or `max_bytes` on a system without file locks (Windows).
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        max_bytes: int | None = None,
        backups: int = 3,
        compress: str | None = None,
        **lane: Unpack[LaneOptions],
    ) -> None:
        super().__init__(**lane)
        text = os.fspath(path)
        if not isinstance(text, str):
            raise ConfigError(f"path = {text!r}: it must be a text or a path")
        if max_bytes is not None:
            check_whole("max_bytes", max_bytes)
            if fcntl is None:
                raise ConfigError("max_bytes: this system has no file locks, with which processes take turns")
        check_whole("backups", backups, 0)
        if compress not in ("gzip", None):
            raise ConfigError(f"compress = {compress!r}: it must be 'gzip' or None")
        self.path: Path = file_path(text)
        self.destination = str(self.path)
        self.max_bytes = max_bytes
        self.backups = backups
        self.compress = compress
        self._descriptor: int | None = None

    @classmethod
    def from_url(cls, url: str) -> JSONLMetricsSink:
        """`jsonl:///relative` or `jsonl:////absolute`; options: `max_bytes`, `backups`, `compress` and the lane's."""
        address = parse(url)
        return cls(address.file(), **address.read(max_bytes=whole, backups=whole_or_zero, compress=str, **LANE_PARSERS))

    def send(self, batch: Sequence[AgentMetrics], deadline: float) -> Outcome:
        """Append the batch with one write."""
        lines = [line(record) for record in batch]
        try:
            outcome = self._append_in_turn(lines, b"".join(lines), deadline)
        except OSError as error:
            self.close()
            reason = file_reason(error)
            return Rejected(reason) if reason in _HOPELESS else RetryLater(reason=reason)
        if self.compress:
            for number in range(1, self.backups + 1):
                try:
                    _pack(f"{self.path}.{number}")
                except OSError as error:  # the batch is delivered all the same; the next one tries again
                    note("jsonl", error)
        return outcome

    def close(self) -> None:
        """Close the file."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            try:
                os.close(descriptor)
            except OSError:
                pass

    def after_fork(self) -> None:
        """A lock goes with the open file, which the child would share with its parent: open it anew."""
        self.close()

    def _open(self) -> int:
        """The file as it stands at the path now."""
        if self._descriptor is not None and not self._is_current(self._descriptor):
            self.close()
        if self._descriptor is None:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
            self._descriptor = descriptor
        return self._descriptor

    def _is_current(self, descriptor: int) -> bool:
        ours = os.fstat(descriptor)
        if not stat.S_ISREG(ours.st_mode):
            return self.path.exists()
        return _is_at(str(self.path), ours)

    def _append_in_turn(self, lines: list[bytes], data: bytes, deadline: float) -> Outcome:
        """Append under the file's lock, after a rotation where it is due."""
        while True:
            descriptor = self._open()
            if not _lock(descriptor, deadline):
                return RetryLater(reason="locked")
            try:
                if not self._is_current(descriptor):  # another process has rotated it while we waited
                    continue
                size = os.fstat(descriptor).st_size
                fits = self.max_bytes is None or size == 0 or size + len(data) <= self.max_bytes
                if fits or not self._rotate():
                    return _append(descriptor, size, lines, data)
            finally:
                _unlock(descriptor)

    def _rotate(self) -> bool:
        """Give the files the next names; False while another process packs one of them."""
        with contextlib.ExitStack() as locked:
            for number in range(1, self.backups + 1):
                try:
                    older = locked.enter_context(Path(f"{self.path}.{number}").open("rb"))
                except FileNotFoundError:
                    continue
                if not _lock(older.fileno(), 0.0):
                    return False
            for number in range(self.backups - 1, 0, -1):
                for ending, other in (("", ".gz"), (".gz", "")):
                    if Path(f"{self.path}.{number}{ending}").exists():
                        Path(f"{self.path}.{number}{ending}").replace(f"{self.path}.{number + 1}{ending}")
                        Path(f"{self.path}.{number + 1}{other}").unlink(missing_ok=True)  # older still
            if self.backups:
                self.path.replace(f"{self.path}.1")
            else:
                self.path.unlink()
        return True


def _pack(path: str) -> None:
    """Make `<path>.gz` of a rotated file, unless another process is at it. Meanwhile nobody gives it another name."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
    except FileNotFoundError:
        return
    temporary = Path(f"{path}.gz.tmp")  # one packs at a time
    with os.fdopen(descriptor, "rb") as plain:
        if not _lock(descriptor, 0.0) or not _is_at(path, os.fstat(descriptor)):
            return
        packed_to = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_CLOEXEC", 0), 0o600)
        with os.fdopen(packed_to, "wb") as raw, gzip.open(raw, "wb", compresslevel=6) as packed:
            shutil.copyfileobj(plain, packed, 1 << 20)
        temporary.replace(f"{path}.gz")
        Path(path).unlink()


def _is_at(path: str, ours: os.stat_result) -> bool:
    try:
        there = Path(path).stat()
    except FileNotFoundError:
        return False
    return (ours.st_dev, ours.st_ino) == (there.st_dev, there.st_ino)


def line(record: AgentMetrics) -> bytes:
    """A record as one line of JSON."""
    return encode(columns(record)) + b"\n"


def _append(descriptor: int, size: int, lines: list[bytes], data: bytes) -> Outcome:
    # Whoever wrote last may have been cut off by a full disk or a power cut: end that line before ours.
    torn = size > 0 and hasattr(os, "pread") and os.pread(descriptor, 1, size - 1) != b"\n"
    written = os.write(descriptor, b"\n" + data if torn else data) - torn
    if written == len(data):
        return Delivered()
    whole_lines = 0
    for text in lines:
        if written < len(text):
            break
        written -= len(text)
        whole_lines += 1
    return Partial(retry=tuple(range(whole_lines, len(lines))), reason="disk_full")


def _lock(descriptor: int, deadline: float) -> bool:
    """Take the file's lock; False at the deadline.

    It never waits within the system call, where a stopped process could make it wait for ever.
    """
    while fcntl is not None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.002)
        except OSError:  # a file system without locks: a write is still appended whole
            break
    return True


def _unlock(descriptor: int) -> None:
    if fcntl is not None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_UN)
        except OSError:
            pass
