"""The folder that processes share: which files are ours, how they are written, read and removed, and who is alive.

Each process has a name of its own and two files: `<name>.lock`, which it keeps locked as long as it lives, and
`<name>.snap`, what it counted. The kernel lets go of the lock however the process ends, so no process id that is used
again, and no other container that shares the folder, is taken for it. Locks are never renamed or replaced once they are
there, because a folder that is being listed may show a name that is replaced meanwhile twice, or not at all.

Where there is no `fcntl` (Windows), nobody can tell who is alive: all count as alive, and files are never added up.
"""

from __future__ import annotations

import os
import re
import secrets
import stat
import time
from pathlib import Path

from .trouble import trouble

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows
    fcntl = None  # type: ignore[assignment]

MAX_BYTES = 64 * 1024 * 1024
MAX_PROCESSES = 5000
_MAX_SPOILED = 3
_NEW_SECONDS = 60.0  # a lock that has not got its name after a minute will not get it any more
_NAME = r"[0-9]{1,10}-[0-9a-f]{16}"
_LOCK = re.compile(rf"({_NAME})\.lock")
_SNAP = re.compile(rf"({_NAME})\.(snap|tmp|new)")
_SPOILED = re.compile(r".+\.corrupt")
_FLAGS = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
_FLAGS |= getattr(os, "O_BINARY", 0)


class Refused(Exception):
    """The folder is not one that our files may be in."""


class Foreign(Exception):
    """A file that has one of our names, and is not ours."""


def new_name() -> str:
    """A name that no process has."""
    return f"{os.getpid()}-{secrets.token_hex(8)}"


class Folder:
    """A folder by its absolute path. What cannot be done raises OSError."""

    def __init__(self, path: str) -> None:
        self.path = path

    def exists(self) -> bool:
        """Whether it is there.

        Raises:
            Refused: it is, but it is a link, or somebody else's.
        """
        try:
            found = Path(self.path).lstat()
        except FileNotFoundError:
            return False
        if not stat.S_ISDIR(found.st_mode):
            raise Refused("it is a link" if stat.S_ISLNK(found.st_mode) else "it is no folder")
        if hasattr(os, "geteuid") and found.st_uid != os.geteuid():
            raise Refused("it belongs to another user; name a folder inside it, which is then made")
        return True

    def make(self) -> None:
        """Make it, for our user alone, if it is not there.

        Raises:
            Refused: as `exists`.
        """
        if not self.exists():
            Path(self.path).mkdir(mode=0o700, parents=True, exist_ok=True)
            self.exists()

    # ------------------------------------------------------------------ files

    def write(self, file: str, data: bytes) -> None:
        """Replace `file` by `data` in one step: a reader sees the old or the new."""
        base = file.rpartition(".")[0]
        temporary = f"{self.path}/{base}.tmp"
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | _FLAGS, 0o600)
            try:
                rest = memoryview(data)
                while rest:
                    rest = rest[os.write(descriptor, rest) :]
            finally:
                os.close(descriptor)
            Path(temporary).replace(f"{self.path}/{file}")
        except OSError:
            self.remove(f"{base}.tmp")  # what a full disk took of it
            raise

    def open(self, file: str) -> int | None:
        """A descriptor to read `file` with; None where it is not there."""
        try:
            return os.open(f"{self.path}/{file}", os.O_RDONLY | _FLAGS)
        except FileNotFoundError:
            return None

    def read(self, file: str) -> bytes | None:
        """What is in `file`; None where it is not there.

        Raises:
            Foreign: it is too large, no file, or somebody else's.
        """
        try:
            descriptor = self.open(file)
        except OSError:  # a link, or nothing that we may read
            raise Foreign from None
        if descriptor is None:
            return None
        try:
            return read_all(descriptor)
        finally:
            os.close(descriptor)

    def same(self, file: str, descriptor: int | None) -> bool:
        """Whether `file` still is what was opened as `descriptor`; None stands for a file that was not there."""
        try:
            now = os.stat(f"{self.path}/{file}", follow_symlinks=False)  # noqa: PTH116 - twice a second, and a scrape
        except FileNotFoundError:
            return descriptor is None
        return descriptor is not None and os.path.samestat(now, os.fstat(descriptor))

    def remove(self, file: str) -> bool:
        """Whether `file` is gone."""
        try:
            Path(self.path, file).unlink(missing_ok=True)
        except OSError:
            return False
        return True

    def set_aside(self, file: str) -> None:
        """Keep an unreadable file for whoever wants to know why, but only the newest few."""
        try:
            Path(self.path, file).replace(f"{self.path}/{file}.corrupt")
        except OSError:
            self.remove(file)
        with os.scandir(self.path) as entries:
            spoiled = [entry for entry in entries if _SPOILED.fullmatch(entry.name)]
        by_age = sorted(spoiled, key=_age, reverse=True)
        for entry in by_age[_MAX_SPOILED:]:
            self.remove(entry.name)

    # ------------------------------------------------------------------ processes

    def processes(self) -> list[str]:
        """The names of the processes that have a lock here, up to `MAX_PROCESSES`."""
        found = self._names(_LOCK)
        if len(found) > MAX_PROCESSES:
            trouble("too_many", "%s has more than %d processes; the others are left out", self.path, MAX_PROCESSES)
        return found[:MAX_PROCESSES]

    def strays(self) -> list[str]:
        """Files of processes that have no lock: of one that ended within a step, or whose lock somebody removed."""
        known = set(self._names(_LOCK))
        old = time.time() - _NEW_SECONDS
        found = []
        with os.scandir(self.path) as entries:
            for entry in entries:
                match = _SNAP.fullmatch(entry.name)
                if match and match[1] not in known and (match[2] != "new" or _age(entry) < old):
                    found.append((match[1], entry.name))
        # Looked for once more: a process that came meanwhile had its lock before it had anything else.
        return [file for name, file in found if not Path(self.path, f"{name}.lock").exists()]

    def _names(self, pattern: re.Pattern[str]) -> list[str]:
        try:
            with os.scandir(self.path) as entries:
                return sorted(match[1] for entry in entries if (match := pattern.fullmatch(entry.name)))
        except FileNotFoundError:
            return []

    def enter(self, name: str) -> int:
        """The locked lock of a new process; whoever closes the descriptor is dead to the others."""
        new = Path(self.path, f"{name}.new")
        descriptor = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | _FLAGS, 0o600)
        try:
            if fcntl is not None:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            # It has its name only now that it is locked: nobody ever sees it unlocked while its process lives.
            new.replace(f"{self.path}/{name}.lock")
        except OSError:
            os.close(descriptor)
            self.remove(new.name)
            raise
        return descriptor

    def alive(self, name: str) -> bool:
        """Whether the process lives. One without a lock does not."""
        if fcntl is None:
            return True
        try:
            descriptor = self.open(f"{name}.lock")
        except OSError:
            return True  # what we may not read, we do not judge
        if descriptor is None:
            return False
        try:
            # Shared, so that two who ask at the same moment do not take each other for the process.
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
        finally:
            os.close(descriptor)
        return False

    def only_one(self, file: str) -> int | None:
        """A descriptor that one process at a time can have; None while another has it, or where there are no locks."""
        if fcntl is None:
            return None
        descriptor = os.open(f"{self.path}/{file}", os.O_RDWR | os.O_CREAT | _FLAGS, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            return None
        return descriptor


def read_all(descriptor: int) -> bytes:
    """What is in the file of ours that `descriptor` reads.

    Raises:
        Foreign: it is too large, no file, or somebody else's.
    """
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_size > MAX_BYTES:
        raise Foreign
    if hasattr(os, "geteuid") and found.st_uid != os.geteuid():
        raise Foreign
    return os.read(descriptor, found.st_size)  # a file whose length does not fit its head is refused by `decode`


def _age(entry: os.DirEntry[str]) -> float:
    try:
        return entry.stat(follow_symlinks=False).st_mtime
    except OSError:
        return 0.0
