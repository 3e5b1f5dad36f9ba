"""The spool's file system in memory: it fails when told to, writes short, and forgets what a power cut would.

A `FakeDisk` is shared by processes, each of which has a `FakeFiles` of its own. What was written survives `crash()` (a
kill -9); of what was not synced `power_cut()` keeps a part. As in a journaling file system, names that were made,
changed or removed since the last sync may be undone, the latest first.
"""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Callable
from pathlib import PurePosixPath

from tellmeter.pipeline.spool.files import Files


class _File:
    def __init__(self, owner: FakeFiles | None = None) -> None:
        self.data = bytearray()
        self.durable = b""  # what was there at the last sync
        self.written = 0.0
        self.locked_by: FakeFiles | None = owner


class FakeDisk:
    """Names, contents and locks; and what goes wrong.

    fails: operation -> errno, as long as it is there. room: bytes that can still be written, None for no end.
    """

    def __init__(self) -> None:
        self.files: dict[str, _File] = {}
        self.folders: set[str] = set()
        self.fails: dict[str, int] = {}
        self.room: int | None = None
        self.calls: Counter[str] = Counter()
        self.faults = 0
        self.time = 0.0
        self._journal: list[tuple[dict[str, _File], set[str]]] = []  # the names before each change since a sync

    def check(self, operation: str) -> None:
        """Raise what the operation fails with."""
        self.calls[operation] += 1
        if (code := self.fails.get(operation)) is not None:
            self.faults += 1
            raise OSError(code, os.strerror(code))

    def remember(self) -> None:
        """A name is about to change."""
        self._journal.append((dict(self.files), set(self.folders)))

    def committed(self) -> None:
        """A sync: names up to here survive."""
        self._journal.clear()

    def power_cut(self, undone: int, part: Callable[[int], int], *, zeros: bool = False) -> None:
        """All processes end; `undone` changes of names are lost, and of each unsynced tail all but `part(length)`.

        zeros: what is lost of a tail reads as zeros, as where a file's length came to disk before its content.
        """
        for file in self.files.values():
            file.locked_by = None
        if undone and self._journal:
            self.files, self.folders = self._journal[-min(undone, len(self._journal))]
        for file in self.files.values():
            file.locked_by = None
            whole = bytes(file.data)
            if whole == file.durable:
                continue
            if not whole.startswith(file.durable):
                file.data[:] = file.durable
                continue
            tail = len(whole) - len(file.durable)
            kept = len(file.durable) + part(tail)
            file.data[:] = whole[:kept] + (bytes(len(whole) - kept) if zeros else b"")
        self._journal.clear()
        for file in self.files.values():
            file.durable = bytes(file.data)

    def size(self, folder: str) -> int:
        """The bytes of a folder's files."""
        return sum(len(file.data) for path, file in self.files.items() if path.startswith(f"{folder}/"))


class FakeFiles(Files):
    """One process's view of a `FakeDisk`."""

    def __init__(self, disk: FakeDisk) -> None:
        self.disk = disk
        self.open_files: dict[int, tuple[str, _File]] = {}
        self._next = 100

    def crash(self) -> None:
        """The process ends: its locks are free, its descriptors closed."""
        self.open_files.clear()
        for file in self.disk.files.values():
            if file.locked_by is self:
                file.locked_by = None

    def make_folder(self, path: str) -> None:
        self.disk.check("make_folder")
        if path in self.disk.files:
            raise PermissionError(errno.EPERM, "it is no folder")
        if path not in self.disk.folders:
            self.disk.remember()
            self.disk.folders.add(path)

    def is_ours(self, path: str) -> bool:
        self.disk.check("is_ours")
        return path in self.disk.folders

    def names(self, path: str) -> list[str]:
        self.disk.check("names")
        inside = (PurePosixPath(one) for one in (*self.disk.files, *self.disk.folders))
        return sorted({one.name for one in inside if str(one.parent) == path})

    def create(self, path: str) -> int:
        self.disk.check("create")
        if path in self.disk.files:
            raise FileExistsError(errno.EEXIST, path)
        return self._opened(path, self._new(path))

    def open(self, path: str) -> int:
        self.disk.check("open")
        return self._opened(path, self._file(path))

    def write(self, descriptor: int, data: bytes | memoryview) -> int:
        self.disk.check("write")
        disk = self.disk
        if disk.room is not None:
            if disk.room <= 0:
                disk.faults += 1
                raise OSError(errno.ENOSPC, "full")
            data = data[: disk.room]
            disk.room -= len(data)
        file = self.open_files[descriptor][1]
        file.data += data
        disk.time += 1
        file.written = disk.time
        return len(data)

    def open_slots(self, path: str) -> int:
        self.disk.check("open_slots")
        return self._opened(path, self.disk.files.get(path) or self._new(path))

    def put(self, descriptor: int, data: bytes, offset: int) -> None:
        self.disk.check("put")
        file = self.open_files[descriptor][1]
        file.data[offset : offset + len(data)] = data
        self.disk.time += 1
        file.written = self.disk.time

    def read(self, descriptor: int, number: int, offset: int) -> bytes:
        self.disk.check("read")
        return bytes(self.open_files[descriptor][1].data[offset : offset + number])

    def size(self, descriptor: int) -> int:
        self.disk.check("size")
        return len(self.open_files[descriptor][1].data)

    def cut(self, descriptor: int, size: int) -> None:
        self.disk.check("cut")
        file = self.open_files[descriptor][1]
        assert size <= len(file.data)
        del file.data[size:]

    def sync(self, descriptor: int) -> None:
        self.disk.check("sync")
        file = self.open_files[descriptor][1]
        file.durable = bytes(file.data)
        self.disk.committed()

    def close(self, descriptor: int) -> None:
        _, file = self.open_files.pop(descriptor)
        if file.locked_by is self and not any(other is file for _, other in self.open_files.values()):
            file.locked_by = None

    def replace(self, folder: str, name: str, data: bytes) -> None:
        self.disk.check("replace")
        self._folder(folder)
        file = self._new(f"{folder}/{name}")
        file.data += data

    def load(self, path: str, most: int) -> bytes | None:
        self.disk.check("load")
        file = self.disk.files.get(path)
        return None if file is None else bytes(file.data[:most])

    def move(self, path: str, target: str) -> None:
        self.disk.check("move")
        file = self._file(path)
        self._folder(str(PurePosixPath(target).parent))
        self.disk.remember()
        del self.disk.files[path]
        self.disk.files[target] = file

    def remove(self, path: str) -> None:
        self.disk.check("remove")
        if path in self.disk.files:
            self.disk.remember()
            del self.disk.files[path]

    def remove_folder(self, path: str) -> None:
        self.disk.check("remove_folder")
        if any(one.startswith(f"{path}/") for one in (*self.disk.files, *self.disk.folders)):
            raise OSError(errno.ENOTEMPTY, path)
        self.disk.remember()
        self.disk.folders.discard(path)

    def lock(self, path: str, *, create: bool) -> int | None:
        self.disk.check("lock")
        file = self.disk.files.get(path)
        if file is None:
            if not create or str(PurePosixPath(path).parent) not in self.disk.folders:
                return None
            file = self._new(path)
        if file.locked_by is not None:  # by this process too: two descriptors do not share a lock
            return None
        file.locked_by = self
        return self._opened(path, file)

    def is_locked(self, path: str) -> bool:
        if "is_locked" in self.disk.fails:
            return True
        file = self.disk.files.get(path)
        return file is not None and file.locked_by is not None

    def weigh(self, folder: str) -> tuple[float, int]:
        self.disk.check("weigh")
        self._folder(folder)
        inside = [file for path, file in self.disk.files.items() if str(PurePosixPath(path).parent) == folder]
        return max((file.written for file in inside), default=0.0), sum(len(file.data) for file in inside)

    def _new(self, path: str) -> _File:
        self._folder(str(PurePosixPath(path).parent))
        self.disk.remember()
        self.disk.time += 1
        file = self.disk.files[path] = _File()
        file.written = self.disk.time
        return file

    def _file(self, path: str) -> _File:
        if path not in self.disk.files:
            raise FileNotFoundError(errno.ENOENT, path)
        return self.disk.files[path]

    def _folder(self, path: str) -> None:
        if path not in self.disk.folders:
            raise FileNotFoundError(errno.ENOENT, path)

    def _opened(self, path: str, file: _File) -> int:
        self._next += 1
        self.open_files[self._next] = path, file
        return self._next
