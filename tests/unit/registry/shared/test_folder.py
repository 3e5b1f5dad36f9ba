import os
import stat
import subprocess
import sys

import pytest

from tellmeter import counts
from tellmeter.registry.shared import folder as module
from tellmeter.registry.shared.folder import Folder, Foreign, Refused, new_name

NAME = "12-0123456789abcdef"
OTHER = "13-0123456789abcdef"


@pytest.fixture
def folder(tmp_path):
    folder = Folder(str(tmp_path / "shared"))
    folder.make()
    return folder


def files(folder):
    return sorted(os.listdir(folder.path))


def test_names_are_new_and_ours():
    assert len({new_name() for _ in range(100)}) == 100
    assert module._LOCK.fullmatch(f"{new_name()}.lock")


def test_the_folder_is_made_for_our_user_alone(tmp_path):
    folder = Folder(str(tmp_path / "a" / "b"))
    assert not folder.exists()
    folder.make()
    folder.make()
    assert folder.exists()
    assert stat.S_IMODE(os.stat(folder.path).st_mode) == 0o700


@pytest.mark.parametrize("kind", ["link", "file", "broken link"])
def test_what_is_no_folder_is_refused(tmp_path, kind):
    path = tmp_path / "shared"
    (tmp_path / "real").mkdir()
    if kind == "file":
        path.touch()
    else:
        path.symlink_to(tmp_path / ("real" if kind == "link" else "nowhere"))
    with pytest.raises(Refused, match="link" if kind != "file" else "no folder"):
        Folder(str(path)).make()
    assert os.listdir(tmp_path / "real") == []


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="no users here")
def test_a_folder_of_another_user_is_refused(folder, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(Refused, match="another user"):
        folder.make()


def test_a_file_is_replaced_as_a_whole_and_for_us_alone(folder):
    folder.write(f"{NAME}.snap", b"first")
    folder.write(f"{NAME}.snap", b"second")
    assert folder.read(f"{NAME}.snap") == b"second"
    assert files(folder) == [f"{NAME}.snap"]
    assert stat.S_IMODE(os.stat(f"{folder.path}/{NAME}.snap").st_mode) == 0o600


def test_what_is_not_there_is_none(folder):
    assert folder.read("x.snap") is None
    assert folder.open("x.snap") is None
    assert folder.same("x.snap", None)
    assert folder.remove("x.snap")
    assert Folder(f"{folder.path}/nowhere").processes() == []


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(folder, monkeypatch):
    folder.write(f"{NAME}.snap", b"first")

    def full(descriptor, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError):
        folder.write(f"{NAME}.snap", b"second")
    assert folder.read(f"{NAME}.snap") == b"first"
    assert files(folder) == [f"{NAME}.snap"]


def test_a_write_in_pieces_is_whole(folder, monkeypatch):
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:3]))
    folder.write(f"{NAME}.snap", b"0123456789")
    assert folder.read(f"{NAME}.snap") == b"0123456789"


@pytest.mark.parametrize("kind", ["link", "folder", "pipe", "large", "other user"])
def test_what_is_no_file_of_ours_is_foreign(folder, tmp_path, monkeypatch, kind):
    path = f"{folder.path}/{NAME}.snap"
    if kind == "link":
        (tmp_path / "secret").write_bytes(b"secret")
        os.symlink(tmp_path / "secret", path)
    elif kind == "folder":
        os.mkdir(path)
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        folder.write(f"{NAME}.snap", b"data")
        if kind == "large":
            monkeypatch.setattr(module, "MAX_BYTES", 3)
        else:
            monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(Foreign):
        folder.read(f"{NAME}.snap")


def test_a_file_that_was_replaced_is_another(folder):
    folder.write("dead.snap", b"1")
    descriptor = folder.open("dead.snap")
    assert folder.same("dead.snap", descriptor)
    folder.write("dead.snap", b"1")
    assert not folder.same("dead.snap", descriptor)
    assert not folder.same("dead.snap", None)
    folder.remove("dead.snap")
    assert not folder.same("dead.snap", descriptor)
    os.close(descriptor)


def test_a_process_lives_as_long_as_its_lock(folder):
    descriptor = folder.enter(NAME)
    assert folder.processes() == [NAME]
    assert files(folder) == [f"{NAME}.lock"]
    assert folder.alive(NAME)
    assert folder.alive(NAME)  # asking changes nothing
    os.close(descriptor)
    assert not folder.alive(NAME)
    assert not folder.alive(OTHER)


def test_two_who_ask_at_the_same_time_do_not_see_each_other(folder):
    os.close(folder.enter(NAME))
    asking = os.open(f"{folder.path}/{NAME}.lock", os.O_RDONLY)
    module.fcntl.flock(asking, module.fcntl.LOCK_SH)
    assert not folder.alive(NAME)
    os.close(asking)


def test_a_killed_process_is_dead(folder):
    code = "import sys, os; from tellmeter.registry.shared.folder import Folder; Folder(sys.argv[1]).enter(sys.argv[2]); print(flush=True); sys.stdin.read()"
    child = subprocess.Popen(
        [sys.executable, "-c", code, folder.path, NAME], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    child.stdout.readline()
    assert folder.alive(NAME)
    child.kill()
    child.communicate()
    assert not folder.alive(NAME)


def test_where_there_are_no_locks_all_live_and_nobody_folds(folder, monkeypatch):
    monkeypatch.setattr(module, "fcntl", None)
    os.close(folder.enter(NAME))
    assert folder.alive(NAME)
    assert folder.only_one("fold.lock") is None


def test_a_name_that_is_taken_is_no_process(folder):
    first = folder.enter(NAME)
    with open(f"{folder.path}/{OTHER}.new", "w"):
        pass
    with pytest.raises(FileExistsError):
        folder.enter(OTHER)
    os.close(first)


def test_one_at_a_time(folder):
    first = folder.only_one("fold.lock")
    assert folder.only_one("fold.lock") is None
    os.close(first)
    second = folder.only_one("fold.lock")
    assert second is not None
    os.close(second)


def test_only_our_names_are_processes(folder):
    for name in ("a.lock", "1.lock", f"{NAME}.lock.bak", f"x{NAME}.lock", "counter_12.db", "fold.lock", f"{NAME}.LOCK"):
        open(f"{folder.path}/{name}", "w").close()
    assert folder.processes() == []
    assert folder.strays() == []


def test_the_number_of_processes_is_bounded(folder, monkeypatch):
    monkeypatch.setattr(module, "MAX_PROCESSES", 3)
    for number in range(5):
        os.close(folder.enter(f"{number}-0123456789abcdef"))
    assert len(folder.processes()) == 3
    assert counts.snapshot()["snapshot_errors"] == {"too_many": 1}


def test_files_without_a_process_are_strays(folder):
    descriptor = folder.enter(NAME)
    for file in (
        f"{NAME}.snap",
        f"{NAME}.tmp",
        f"{OTHER}.snap",
        f"{OTHER}.tmp",
        f"{OTHER}.new",
        "dead.snap",
        "dead.tmp",
    ):
        open(f"{folder.path}/{file}", "w").close()
    assert sorted(folder.strays()) == [f"{OTHER}.snap", f"{OTHER}.tmp"]
    os.utime(f"{folder.path}/{OTHER}.new", (0, 0))  # for long nobody came back to it
    assert sorted(folder.strays()) == [f"{OTHER}.new", f"{OTHER}.snap", f"{OTHER}.tmp"]
    os.close(descriptor)


def test_only_the_newest_unreadable_files_are_kept(folder):
    for number in range(6):
        file = f"{number}-0123456789abcdef.snap"
        open(f"{folder.path}/{file}", "w").close()
        os.utime(f"{folder.path}/{file}", (number, number))
        folder.set_aside(file)
    assert files(folder) == [f"{number}-0123456789abcdef.snap.corrupt" for number in (3, 4, 5)]
