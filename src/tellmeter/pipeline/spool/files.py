"""The file system as the spool uses it: one place for its flags and modes, which tests replace by one that fails."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from ...registry.shared.folder import Folder, Refused

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows
    fcntl = None  # type: ignore[assignment]

_FLAGS = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)
CAN_LOCK = fcntl is not None


class Files:
    """What can be done with files: 0600, in folders that are 0700; links are not followed. Failures are OSErrors."""

    def make_folder(self, path: str) -> None:
        """Make a folder for our user alone; one that is a link or somebody else's is a PermissionError."""
        for parent in reversed(Path(path).parents):  # mkdir(parents=True) gives them the umask's modes
            if not parent.exists():
                parent.mkdir(mode=0o700, exist_ok=True)
        try:
            Folder(path).make()
        except Refused as error:
            raise PermissionError(1, str(error)) from None

    def is_ours(self, path: str) -> bool:
        """Whether there is such a folder, which is no link and nobody else's."""
        try:
            return Folder(path).exists()
        except Refused:
            return False

    def names(self, path: str) -> list[str]:
        """What is in a folder, sorted; nothing where there is none."""
        try:
            return sorted(os.listdir(path))  # noqa: PTH208 - names are what is asked
        except (FileNotFoundError, NotADirectoryError):
            return []

    def create(self, path: str) -> int:
        """A descriptor of a new file that is written at its end and can be read."""
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | _FLAGS, 0o600)

    def open(self, path: str) -> int:
        """A descriptor of a file of ours that can be read and cut."""
        descriptor = os.open(path, os.O_RDWR | _FLAGS)
        if os.fstat(descriptor).st_uid != os.geteuid():
            os.close(descriptor)
            raise PermissionError(1, "somebody else's file")
        return descriptor

    def write(self, descriptor: int, data: bytes | memoryview) -> int:
        """Write at the end; how many bytes were taken."""
        return os.write(descriptor, data)

    def open_slots(self, path: str) -> int:
        """A descriptor of a small file, made where it is missing, that `put` writes to."""
        return os.open(path, os.O_RDWR | os.O_CREAT | _FLAGS, 0o600)

    def put(self, descriptor: int, data: bytes, offset: int) -> None:
        """Write a few bytes where they belong."""
        if os.pwrite(descriptor, data, offset) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def read(self, descriptor: int, number: int, offset: int) -> bytes:
        """Up to `number` bytes from `offset`."""
        return os.pread(descriptor, number, offset)

    def size(self, descriptor: int) -> int:
        """The length in bytes."""
        return os.fstat(descriptor).st_size

    def cut(self, descriptor: int, size: int) -> None:
        """Make the file `size` bytes long."""
        os.ftruncate(descriptor, size)

    def sync(self, descriptor: int) -> None:
        """Have what was written survive a power cut."""
        getattr(os, "fdatasync", os.fsync)(descriptor)

    def close(self, descriptor: int) -> None:
        """Close it."""
        os.close(descriptor)

    def replace(self, folder: str, name: str, data: bytes) -> None:
        """Write a small file in one step: whoever reads sees the old or the new."""
        Folder(folder).write(name, data)

    def load(self, path: str, most: int) -> bytes | None:
        """Up to `most` bytes of a small file; None where there is none."""
        try:
            descriptor = self.open(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            return self.read(descriptor, most, 0)
        finally:
            self.close(descriptor)

    def move(self, path: str, target: str) -> None:
        """Give a file another name."""
        Path(path).replace(target)

    def remove(self, path: str) -> None:
        """Remove a file; one that is gone is fine."""
        Path(path).unlink(missing_ok=True)

    def remove_folder(self, path: str) -> None:
        """Remove a folder that is empty; one that is gone is fine."""
        try:
            Path(path).rmdir()
        except FileNotFoundError:
            pass

    def lock(self, path: str, *, create: bool) -> int | None:
        """A descriptor that holds the file's lock; None while another has it, or where the file is gone.

        The kernel lets go of it however the process ends, so no process id that is used again is taken for it.
        """
        try:
            flags = os.O_RDWR | _FLAGS | (os.O_CREAT if create else 0)
            descriptor = os.open(path, flags, 0o600)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The file may have been removed by its last owner between our two steps.
            if os.path.samestat(os.fstat(descriptor), os.stat(path, follow_symlinks=False)):  # noqa: PTH116
                return descriptor
        except (BlockingIOError, FileNotFoundError):
            pass
        except OSError:  # a file system without locks
            os.close(descriptor)
            raise
        os.close(descriptor)
        return None

    def is_locked(self, path: str) -> bool:
        """Whether somebody has the lock, or we may not tell."""
        try:
            descriptor = os.open(path, os.O_RDWR | _FLAGS)
        except FileNotFoundError:
            return False
        except OSError:
            return True
        try:
            # Shared, so that two who ask at the same moment do not take each other for the owner.
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
        finally:
            os.close(descriptor)
        return False

    def weigh(self, folder: str) -> tuple[float, int]:
        """When the newest file of a folder was written (Unix seconds; 0.0 for an empty one), and the bytes of all."""
        newest, size = 0.0, 0
        with os.scandir(folder) as entries:
            for entry in entries:
                try:
                    found = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                newest = max(newest, found.st_mtime)
                size += found.st_size
        return newest, size
