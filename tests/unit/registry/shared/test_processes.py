"""Members of one folder in this process and, where its life matters, in real ones."""

import logging
import os
import threading
import time

import pytest

from tellmeter import counts
from tellmeter.registry.registry import MetricsRegistry
from tellmeter.registry.shared import processes, trouble
from tellmeter.registry.shared.dead import FOLD_LOCK
from tellmeter.registry.shared.folder import Folder
from tellmeter.registry.shared.processes import Member
from tellmeter.registry.text import write
from tests.support.metrics import in_child, read_page

FORKS = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")


@pytest.fixture(autouse=True)
def nothing_noticed(monkeypatch):
    monkeypatch.setattr(trouble, "_noticed", set())
    monkeypatch.setattr(trouble, "_logged", set())


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "shared")


@pytest.fixture
def join(path):
    """Makes members of the folder, which leave it in the end."""
    members = []

    def join():
        members.append(Member(MetricsRegistry(), path))
        return members[-1]

    yield join
    for member in members:
        if member._stop is not None:
            member._stop.set()
        member._leave()


def value(member, name="c_total"):
    found = read_page(b"".join(write(member.metrics())))
    return sum(number for family in found.values() for (sample, _), number in family.samples.items() if sample == name)


def files(path, kind=""):
    return sorted(file for file in os.listdir(path) if file.endswith(kind))


def eventually(what, seconds=30):
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return found


def test_all_are_shown_whoever_is_asked(join):
    one, other = join(), join()
    one.registry.increment("c", 1)
    other.registry.increment("c", 2)
    assert (value(one), value(other), value(one)) == (1, 3, 3)


def test_a_thread_writes_once_a_second(join, path):
    one, other = join(), join()
    one.start()
    one.registry.increment("c", 2)
    eventually(lambda: value(other) == 2)
    one.registry.increment("c", 3)
    eventually(lambda: value(other) == 5)
    assert "tellmeter-snapshots" in [thread.name for thread in threading.enumerate()]


def test_the_thread_adds_up_the_dead_where_nobody_asks(join, path, monkeypatch):
    monkeypatch.setattr(processes, "SECONDS", 0.01)
    gone, one = join(), join()
    gone.registry.increment("c", 2)
    gone.stop()
    one.start()
    eventually(lambda: files(path) == ["dead.snap", FOLD_LOCK])


def test_a_process_that_stopped_keeps_its_counts(join, path):
    one, other = join(), join()
    one.registry.increment("c", 2)
    one.stop()
    assert value(other) == 2
    assert len(files(path, ".lock")) == 1  # FOLD_LOCK
    assert value(other) == 2


def test_nothing_is_written_where_nothing_changed(join, path):
    one = join()
    one.registry.increment("c", 2)
    one.write()
    (file,) = files(path, ".snap")
    before = os.stat(f"{path}/{file}").st_ino
    for _ in range(3):
        one.write()
    assert os.stat(f"{path}/{file}").st_ino == before
    one.registry.increment("c", 2)
    one.write()
    assert os.stat(f"{path}/{file}").st_ino != before


def test_who_has_nothing_to_tell_leaves_nothing(join, path):
    busy, asking = join(), join()
    busy.registry.increment("c", 2)
    busy.write()
    asking.registry.counter("never")
    before = files(path)
    assert value(asking) == 2
    asking.stop()
    assert files(path) == before


def test_who_only_asks_makes_no_folder(join, path):
    assert value(join()) == 0
    assert not os.path.exists(path)


def test_a_folder_that_somebody_emptied_is_filled_again(join, path):
    one, other = join(), join()
    one.registry.increment("c", 2)
    one.write()
    for file in files(path):
        os.unlink(f"{path}/{file}")
    one.write()
    assert value(other) == 2
    for file in files(path):
        os.unlink(f"{path}/{file}")
    os.rmdir(path)
    one.write()
    assert value(other) == 2
    assert len(files(path, ".snap")) == 1


def test_a_refused_folder_is_one_warning_and_one_process_alone(join, path, tmp_path, caplog):
    (tmp_path / "real").mkdir()
    os.symlink(tmp_path / "real", path)
    one = join()
    one.registry.increment("c", 2)
    with caplog.at_level(logging.WARNING):
        assert [value(one), value(one)] == [2, 2]
        one.fold()
    assert len(caplog.messages) == 1 and "it is a link" in caplog.messages[0] and path in caplog.messages[0]
    assert os.listdir(tmp_path / "real") == []
    assert counts.snapshot()["snapshot_errors"] == {"refused": 1}


def test_a_full_disk_is_counted_and_its_process_still_shows_all(join, monkeypatch, caplog):
    one, other = join(), join()
    one.registry.increment("c", 2)
    other.registry.increment("c", 40)
    assert (value(one), value(other)) == (2, 42)

    def full(self, file, data):
        raise OSError(28, "No space left on device")

    one.registry.increment("c", 1)
    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING):
        patch.setattr(Folder, "write", full)
        assert [value(one), value(one)] == [43, 43]
    assert counts.snapshot()["snapshot_errors"] == {"write": 2}
    assert len(caplog.messages) == 1
    one.write()
    assert value(other) == 43


def test_what_cannot_be_added_up_still_counts(join, path, monkeypatch):
    gone, one = join(), join()
    gone.registry.increment("c", 2)
    gone.stop()

    def full(folder, **options):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(processes, "fold", full)
        assert [value(one), value(one)] == [2, 2]
    assert counts.snapshot()["snapshot_errors"] == {"write": 2}
    assert [value(one), value(one)] == [2, 2]
    assert files(path) == ["dead.snap", FOLD_LOCK]


def test_a_folder_that_cannot_be_read_is_counted(join, monkeypatch):
    one, other = join(), join()
    other.registry.increment("c", 2)
    other.write()

    def broken(folder, me):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(processes, "read_others", broken)
    assert value(one) == 0
    assert counts.snapshot()["snapshot_errors"] == {"read": 1}


def test_one_adds_up_at_a_time(join, path):
    gone, one, other = join(), join(), join()
    gone.registry.increment("c", 2)
    gone.stop()
    held = Folder(path).only_one(FOLD_LOCK)
    one.fold()
    assert len(files(path, ".snap")) == 1
    assert value(other) == 2
    os.close(held)
    one.fold()
    assert files(path) == ["dead.snap", FOLD_LOCK]


def test_who_asks_amidst_writing_gets_what_there_is(join, monkeypatch):
    """As a signal handler or a finalizer may."""
    one = join()
    one.registry.increment("c", 2)
    seen = []

    def enter(self, name, really=Folder.enter):
        seen.append(value(one))
        return really(self, name)

    monkeypatch.setattr(Folder, "enter", enter)
    assert value(one) == 2
    assert seen == [2]


def test_label_sets_of_the_dead_are_bounded_by_the_registry(join, path):
    asked = join()
    asked.registry.max_series = 3
    for number in range(10):
        one = join()
        one.registry.increment("c", 1, {"x": str(number)})
        one.stop()
    asked.fold()
    (metric,) = asked.metrics()
    assert len(list(metric.shown())) == 4
    assert value(asked) == 10


# ---------------------------------------------------------------------- the process's own

BEGIN = """
import json, os, sys, threading, time
from tellmeter.registry.page import page
from tellmeter.registry.shared.processes import write_now
from tellmeter.registry.registry import get_metrics_registry
registry = get_metrics_registry()

def shown():
    lines = [line.split() for line in b"".join(page()).decode().splitlines() if line[0] != "#"]
    return {name: float(value) for name, value in lines if "bucket" not in name}

def threads():
    return sum(thread.name == "tellmeter-snapshots" for thread in threading.enumerate())

def forked(work, code=0):
    pid = os.fork()
    if pid == 0:
        try:
            code = work() or 0
        except BaseException:
            import traceback; traceback.print_exc()
            code = 99
        finally:
            os._exit(code)
    return pid

def end(pid):
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
"""


@pytest.fixture
def child(path, monkeypatch):
    """Runs a program whose process shares the folder; what it prints."""
    monkeypatch.setenv("TELLMETER_MULTIPROC_DIR", path)
    return lambda code, *arguments: in_child(BEGIN + code, *arguments)


def test_importing_starts_nothing(child, path, monkeypatch):
    assert in_child(
        "import tellmeter, tellmeter.registry.page, threading, json; print(json.dumps(threading.active_count()))"
    ) == 1  # fmt: skip
    assert not os.path.exists(path)
    assert child("print(json.dumps(threads()))") == 1
    monkeypatch.delenv("TELLMETER_MULTIPROC_DIR")
    assert child("registry.increment('c'); shown(); print(json.dumps(threads()))") == 0


@FORKS
def test_a_forked_child_starts_at_zero_and_the_parent_keeps_what_it_had(child):
    assert child(
        """
counter, gauge = registry.counter("c", labels=["x"]).labels("a"), registry.gauge("g", labels=())
histogram = registry.histogram("h", labels=())
counter.inc(5); gauge.set(7); histogram.observe(2)
registry.counter("other", labels=()).inc()

def work():
    assert threads() == 1
    before = {name: value for name, value in shown().items()}
    counter.inc(1); histogram.observe(0.5)  # bound before the fork
    mine = [family.name for family in registry.families() for series in family.shown()]
    assert mine == ["c", "h"], mine
    write_now()

assert shown()['c_total{x="a"}'] == 5
for _ in range(3):
    end(forked(work))
print(json.dumps(shown()))
"""
    ) == {'c_total{x="a"}': 8, "g": 7, "h_count": 4, "h_sum": 3.5, "other_total": 1}


@FORKS
def test_without_the_variable_a_fork_is_a_copy(child, monkeypatch):
    monkeypatch.delenv("TELLMETER_MULTIPROC_DIR")
    assert child(
        """
registry.increment("c", 5)
def work():
    registry.increment("c")
    assert shown() == {"c_total": 6} and threads() == 0
end(forked(work))
print(json.dumps(shown()))
"""
    ) == {"c_total": 5}


@FORKS
def test_a_childs_thread_writes_and_the_child_may_be_killed(child):
    assert child(
        """
import signal
registry.increment("c", 1)
def work():
    registry.increment("c", 10)
    time.sleep(600)
pids = [forked(work) for _ in range(3)]
deadline = time.monotonic() + 50
while shown()["c_total"] != 31: assert time.monotonic() < deadline
for pid in pids:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
print(json.dumps([shown(), shown(), len(os.listdir(os.environ["TELLMETER_MULTIPROC_DIR"]))]))
"""
    ) == [{"c_total": 31}, {"c_total": 31}, 4]


@FORKS
def test_a_child_that_outlives_its_parent_does_not_keep_it_alive(child, path):
    """A gauge of those that live, in a parent that is dead: its lock must not live on in the child."""
    assert child(
        """
read, write = os.pipe()
def parent():
    registry.set_gauge("g", 100)
    write_now()
    def grandchild():
        registry.set_gauge("g", 1)
        os.close(write)
        assert os.read(read, 1) == b""  # the last to write has ended, the parent too
        print(json.dumps(shown()), flush=True)
    forked(grandchild)
    registry.set_gauge("g", 200)
    write_now()
end(forked(parent))
os.close(write)
"""
    ) == {"g": 1}


@FORKS
def test_a_fork_amidst_adding_up_does_not_keep_the_others_from_it(child):
    assert child(
        """
from tellmeter.registry.shared import processes
from tellmeter.registry.shared.dead import FOLD_LOCK
from tellmeter.registry.shared.folder import Folder
registry.increment("c"); write_now()
entered, leave = threading.Event(), threading.Event()
def slow(folder, **options):
    entered.set(); leave.wait(30)
processes.fold = slow
thread = threading.Thread(target=processes._member.fold); thread.start()
entered.wait(30)
read, write = os.pipe()
ready, tell = os.pipe()
pid = forked(lambda: os.write(tell, b"!") and os.close(write) or os.read(read, 1) and None)
os.read(ready, 1); leave.set(); thread.join()
free = Folder(os.environ["TELLMETER_MULTIPROC_DIR"]).only_one(FOLD_LOCK) is not None
os.close(write); end(pid)
print(json.dumps(free))
"""
    )


@FORKS
def test_what_tellmeter_notices_before_a_fork_is_told_once(child):
    found = child(
        """
registry.tell_about_itself()
registry.counter("c", labels=["x"])
registry.increment("c", 1, {"y": "undeclared"})
def work():
    registry.increment("c", 1, {"z": "undeclared"})
    write_now()
end(forked(work))
print(json.dumps(shown()))
"""
    )
    assert found['tellmeter_label_errors_total{metric="c",kind="undeclared"}'] == 2


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_workers_of_multiprocessing_write_at_their_end(path, tmp_path, monkeypatch, method):
    monkeypatch.setenv("TELLMETER_MULTIPROC_DIR", path)
    program = tmp_path / "program.py"
    program.write_text(
        """
import multiprocessing, sys
import tellmeter
from tellmeter.registry.registry import get_metrics_registry
counter = get_metrics_registry().counter("c", labels=())
def work(number):
    counter.inc(number)
    for _ in range(number):
        with tellmeter.meter_call(model="m"):
            pass
    tellmeter.get_metrics_collector().track_request(model="open").__enter__()  # counted when the collector ends
if __name__ == "__main__":
    counter.inc(1000)
    context = multiprocessing.get_context(sys.argv[1])
    workers = [context.Process(target=work, args=(number,)) for number in (1, 10, 100)]
    for worker in workers: worker.start()
    for worker in workers: worker.join()
"""
    )
    code = "import subprocess, sys; print(subprocess.run([sys.executable, '-W', 'ignore', *sys.argv[1:]]).returncode)"
    assert in_child(code, program, method) == 0
    asked = Member(MetricsRegistry(), path)
    assert (value(asked), value(asked, "llm_requests_total")) == (1111, 114)


@pytest.mark.parametrize("first", ["registry", "collector"])
@pytest.mark.parametrize("ending", ["", "sys.exit(0)", "raise KeyboardInterrupt"])
def test_what_is_counted_at_the_exit_is_written(path, tmp_path, monkeypatch, first, ending):
    """The collector counts the calls that wait when the process ends; that is written."""
    monkeypatch.setenv("TELLMETER_MULTIPROC_DIR", path)
    own = "collector = tellmeter.MetricsCollector(registry=MetricsRegistry(), sinks=['memory:'])"
    program = tmp_path / "program.py"
    program.write_text(
        f"""
import sys
import tellmeter
from tellmeter.registry.registry import MetricsRegistry, get_metrics_registry
{"get_metrics_registry()" if first == "registry" else own}  # which hooks its exit first
tellmeter.configure(sinks=["memory:"])
for _ in range(300):
    with tellmeter.meter_call(model="gpt-4o", provider="openai"):
        pass
get_metrics_registry().increment("plain", 7)
tellmeter.get_metrics_collector().track_request(model="open").__enter__()  # counted when the collector ends
{ending}
"""
    )
    code = "import subprocess, sys; print(abs(subprocess.run([sys.executable, sys.argv[1]], stderr=subprocess.DEVNULL).returncode))"
    assert in_child(code, program) == (2 if "Key" in ending else 0)
    asked = Member(MetricsRegistry(), path)
    assert (value(asked, "llm_requests_total"), value(asked, "plain_total")) == (301, 7)


def test_the_command_line_sees_what_others_counted_and_leaves_nothing(child, path, join, monkeypatch):
    one = join()
    one.registry.increment("c", 2)
    one.write()
    before = files(path)
    monkeypatch.delenv("TELLMETER_MULTIPROC_DIR")
    assert child(f"os.environ['TELLMETER_MULTIPROC_DIR'] = {path!r}; print(json.dumps(shown()))") == {"c_total": 2}
    assert files(path) == before


def test_a_relative_folder_is_where_it_was_named(path, tmp_path, child, monkeypatch):
    monkeypatch.setenv("TELLMETER_MULTIPROC_DIR", "relative")
    monkeypatch.chdir(tmp_path)
    assert child("registry.increment('c'); os.chdir('/'); print(json.dumps(shown()))") == {"c_total": 1}
    assert len(files(tmp_path / "relative", ".snap")) == 1


def test_a_directory_that_is_gone_stops_nothing(tmp_path, child, monkeypatch):
    monkeypatch.setenv("TELLMETER_MULTIPROC_DIR", "relative")
    program = "registry.increment('c'); print(json.dumps(shown()))"
    gone = "import os; os.mkdir('gone'); os.chdir('gone'); os.rmdir('../gone')\n"
    monkeypatch.chdir(tmp_path)
    assert in_child(gone + BEGIN + program) == {"c_total": 1}


def test_another_folder_is_another_membership(child, path):
    assert child(
        """
registry.increment("c", 1)
first = shown()
os.environ["TELLMETER_MULTIPROC_DIR"] += "-2"
second = shown()
print(json.dumps([first, second, threads() <= 2]))
"""
    ) == [{"c_total": 1}, {"c_total": 1}, True]
    assert len(files(path, ".snap")) == len(files(f"{path}-2", ".snap")) == 1


@FORKS
@pytest.mark.heavy
def test_forks_under_load_add_up(child):
    """Threads that record and others that ask, while children come and go."""
    assert child(
        """
counter = registry.counter("c", labels=["x"])
running, made, floor, errors = True, [0, 0], [0], []
def load(index):
    while running:
        counter.labels(str(made[index] % 50)).inc()
        made[index] += 1
        if made[index] % 100 == 0: time.sleep(0.001)
def ask():
    while running:
        found = sum(shown().values())
        if found < floor[0]: errors.append((floor[0], found))
        floor[0] = found
workers = [threading.Thread(target=load, args=(index,)) for index in range(2)] + [threading.Thread(target=ask)]
for worker in workers: worker.start()
def work():
    counter.labels("child").inc()
    write_now()
for _ in range(150):
    end(forked(work))
running = False
for worker in workers: worker.join()
total = sum(shown().values())
print(json.dumps([total == sum(made) + 150, errors, len(os.listdir(os.environ["TELLMETER_MULTIPROC_DIR"]))]))
"""
    ) == [True, [], 4]
