from __future__ import annotations

import errno
import inspect
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tellmeter.pipeline.spool import files as module
from tellmeter.pipeline.spool.files import Files
from tests.support.fake_files import FakeDisk, FakeFiles

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to somebody else")


@pytest.fixture
def files() -> Files:
    return Files()


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.security(10)
def test_folders_and_files_are_for_our_user_alone_whatever_the_umask(files: Files, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        files.make_folder(str(tmp_path / "a" / "b"))
        os.close(files.create(str(tmp_path / "a" / "b" / "file")))
        files.replace(str(tmp_path / "a" / "b"), "small", b"text")
        lock = files.lock(str(tmp_path / "a" / "b" / "lock"), create=True)
    finally:
        os.umask(before)
    assert lock is not None
    files.close(lock)
    files.make_folder(str(tmp_path / "a" / "b"))
    assert [mode(tmp_path / "a"), mode(tmp_path / "a" / "b")] == [0o700, 0o700]
    assert {mode(one) for one in (tmp_path / "a" / "b").iterdir()} == {0o600}


def test_a_folder_that_is_a_link_is_refused(files: Files, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(PermissionError):
        files.make_folder(str(tmp_path / "link"))
    assert not files.is_ours(str(tmp_path / "link")) and files.is_ours(str(tmp_path))


@AS_ROOT
def test_somebody_elses_folder_and_file_are_refused(files: Files, tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "file").write_bytes(b"x")
    os.chown(tmp_path / "theirs", 65534, 65534)
    os.chown(tmp_path / "file", 65534, 65534)
    with pytest.raises(PermissionError):
        files.make_folder(str(tmp_path / "theirs"))
    with pytest.raises(PermissionError):
        files.open(str(tmp_path / "file"))
    assert not files.is_ours(str(tmp_path / "theirs"))


@pytest.mark.security(10)
def test_links_are_not_followed(files: Files, tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"secret")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    for attempt in (
        files.open,
        files.create,
        lambda path: files.lock(path, create=True),
        lambda path: files.load(path, 9),
    ):
        with pytest.raises(OSError):
            attempt(str(tmp_path / "link"))
    assert (tmp_path / "target").read_bytes() == b"secret"


def test_a_lock_belongs_to_one_descriptor_until_it_is_closed(files: Files, tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    assert files.lock(path, create=False) is None and not files.is_locked(path)
    held = files.lock(path, create=True)
    assert held is not None and files.lock(path, create=True) is None and files.is_locked(path)
    files.close(held)
    assert not files.is_locked(path)
    assert files.lock(str(tmp_path / "none" / "lock"), create=True) is None


def test_the_kernel_lets_go_of_a_killed_processs_lock(files: Files, tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    code = "import sys; from tellmeter.pipeline.spool.files import Files; Files().lock(sys.argv[1], create=True); print(); input()"
    process = subprocess.Popen(
        [sys.executable, "-uc", code, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdout is not None and process.stdin is not None
    process.stdout.readline()
    assert files.is_locked(path) and files.lock(path, create=True) is None
    process.kill()
    process.communicate()
    held = files.lock(path, create=True)
    assert held is not None
    files.close(held)


def test_the_lock_of_a_file_that_was_removed_meanwhile_is_none(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "lock"
    flock = module.fcntl.flock

    def slow(descriptor: int, operation: int) -> None:
        path.unlink()
        path.touch()
        flock(descriptor, operation)

    monkeypatch.setattr(module.fcntl, "flock", slow)
    assert files.lock(str(path), create=True) is None


def test_a_file_system_without_locks_is_an_error_not_a_lock_that_somebody_has(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr(module.fcntl, "flock", flock)
    before = os.listdir("/proc/self/fd") if Path("/proc/self/fd").exists() else []
    with pytest.raises(OSError, match="no locks"):
        files.lock(str(tmp_path / "lock"), create=True)
    assert len(os.listdir("/proc/self/fd") if before else []) == len(before)


def test_the_fake_has_every_operation_of_the_real_one() -> None:
    for name, real in inspect.getmembers(Files, inspect.isfunction):
        if not name.startswith("_"):
            assert name in vars(FakeFiles), name
            assert inspect.signature(getattr(FakeFiles, name)) == inspect.signature(real), name


def use(files: Any, root: str) -> list[Any]:
    """What one program sees of a file system."""
    seen: list[Any] = []

    def see(function: Any, *arguments: Any, **named: Any) -> Any:
        try:
            result = function(*arguments, **named)
        except OSError as error:
            seen.append((function.__name__, error.errno))
            return None
        seen.append(
            (
                function.__name__,
                "a descriptor" if function.__name__ in ("create", "open", "open_slots", "lock") and result else result,
            )
        )
        return result

    see(files.names, f"{root}/one")
    see(files.is_ours, f"{root}/one")
    see(files.create, f"{root}/one/a")
    see(files.make_folder, f"{root}/one")
    see(files.is_ours, f"{root}/one")
    a = see(files.create, f"{root}/one/a")
    see(files.create, f"{root}/one/a")
    for data in (b"12345", memoryview(b"678")):
        see(files.write, a, data)
    see(files.read, a, 100, 3)
    see(files.read, a, 2, 3)
    see(files.read, a, 2, 30)
    see(files.cut, a, 6)
    see(files.write, a, b"x")
    see(files.sync, a)
    see(files.size, a)
    see(files.close, a)
    b = see(files.open, f"{root}/one/a")
    see(files.read, b, 100, 0)
    see(files.close, b)
    see(files.open, f"{root}/one/none")
    see(files.replace, f"{root}/one", "ack", b"first")
    see(files.replace, f"{root}/one", "ack", b"second")
    see(files.load, f"{root}/one/ack", 4)
    see(files.load, f"{root}/one/none", 4)
    slots = see(files.open_slots, f"{root}/one/slots")
    see(files.put, slots, b"first", 0)
    see(files.put, slots, b"x", 2)
    see(files.close, slots)
    slots = see(files.open_slots, f"{root}/one/slots")
    see(files.read, slots, 10, 0)
    see(files.close, slots)
    see(files.remove, f"{root}/one/slots")
    lock = see(files.lock, f"{root}/one/lock", create=True)
    see(files.lock, f"{root}/one/lock", create=True)
    see(files.is_locked, f"{root}/one/lock")
    see(files.close, lock)
    see(files.is_locked, f"{root}/one/lock")
    see(files.lock, f"{root}/two/lock", create=True)
    seen.append(files.weigh(f"{root}/one")[1])
    see(files.names, f"{root}/one")
    see(files.move, f"{root}/one/a", f"{root}/two/a")
    see(files.make_folder, f"{root}/two")
    see(files.move, f"{root}/one/a", f"{root}/two/a")
    see(files.remove_folder, f"{root}/two")
    for name in ("a", "a"):
        see(files.remove, f"{root}/two/{name}")
    for _ in range(2):
        see(files.remove_folder, f"{root}/two")
    see(files.names, f"{root}")
    return seen


def test_the_fake_behaves_as_the_real_one(files: Files, tmp_path: Path) -> None:
    disk = FakeDisk()
    disk.folders.add("/root")
    assert use(FakeFiles(disk), "/root") == use(files, str(tmp_path))
