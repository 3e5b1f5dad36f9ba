from __future__ import annotations

import errno
import gzip
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from hypothesis import given

from tellmeter.errors import ConfigError
from tellmeter.pipeline.outcome import Delivered, Partial, Rejected, RetryLater
from tellmeter.records import AgentMetrics, StreamMetrics
from tellmeter.sinks import jsonl as module
from tellmeter.sinks.jsonl import JSONLMetricsSink, line
from tests.unit.sinks import made
from tests.unit.sinks.made import deadline, python, record

fcntl = pytest.importorskip("fcntl") if sys.platform != "win32" else None
rotating = pytest.mark.skipif(fcntl is None, reason="no file locks here")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "calls.jsonl"


def read(*paths):
    return [msgspec.json.decode(text, type=AgentMetrics) for path in paths for text in path.read_bytes().splitlines()]


def files(path):
    return sorted(path.parent.glob(f"{path.name}*"))


@given(made.records)
def test_a_line_gives_the_record_back(one):
    text = line(one)
    assert text.count(b"\n") == 1
    assert text.endswith(b"\n")
    assert msgspec.json.decode(text, type=AgentMetrics) == one


def test_a_line_has_zeros_and_defaults_but_nothing_empty():
    fields = json.loads(line(record(stream=StreamMetrics())))
    assert (fields["status"], fields["retries"], fields["cached_tokens"]) == ("success", 0, 0)
    assert fields["stream"]["stalls"] == 0
    assert not {"cost_usd", "tags", "tools_used", "error_class"} & set(fields)


def test_batches_are_appended(path):
    sink, rows = JSONLMetricsSink(path), [record(number) for number in range(3)]
    assert sink.send(rows[:2], deadline()) == Delivered()
    assert sink.send(rows[2:], deadline()) == Delivered()
    sink.close()
    again = record(4)
    JSONLMetricsSink(path).send([again], deadline())
    assert read(path) == [*rows, again]


def test_the_file_and_its_folder_are_ours_alone(tmp_path):
    path = tmp_path / "new" / "calls.jsonl"
    JSONLMetricsSink(path).send([record()], deadline())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_file_moved_away_is_made_anew(path):
    sink = JSONLMetricsSink(path)
    sink.send([record(1)], deadline())
    path.rename(f"{path}.moved")
    sink.send([record(2)], deadline())
    path.unlink()
    sink.send([record(3)], deadline())
    assert [row.timestamp - made.T0 for row in read(path)] == [3]


def test_a_line_cut_by_a_power_cut_is_ended_first(path):
    path.write_bytes(line(record(1)) + b'{"model": "cu')
    sink = JSONLMetricsSink(path)
    sink.send([record(2)], deadline())
    sink.send([record(3)], deadline())
    lines = path.read_bytes().splitlines()
    assert lines[1] == b'{"model": "cu'
    assert [msgspec.json.decode(text, type=AgentMetrics).timestamp - made.T0 for text in (lines[0], *lines[2:])] == [
        1,
        2,
        3,
    ]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_is_tried_again_later():
    sink = JSONLMetricsSink("/dev/full")
    assert sink.send([record()], deadline()) == RetryLater(reason="disk_full")
    sink.close()


def test_a_batch_that_fits_in_part_is_delivered_in_part(path):
    pytest.importorskip("resource")
    code = """
import resource, signal, sys
from tellmeter.sinks.jsonl import JSONLMetricsSink, line
from tests.unit.sinks.made import deadline, record
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
sink, rows = JSONLMetricsSink(sys.argv[1]), [record(number) for number in range(5)]
size = len(line(rows[0]))
resource.setrlimit(resource.RLIMIT_FSIZE, (int(size * 2.5), resource.RLIM_INFINITY))
print(sink.send(rows, deadline()))
print(sink.send(rows[2:], deadline()))
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(sink.send(rows[2:], deadline()))
"""
    answers = python(code, path).stdout.splitlines()
    assert answers[0] == str(Partial(retry=(2, 3, 4), reason="disk_full"))
    assert answers[1] == str(RetryLater(reason="file_too_big"))
    assert answers[2] == str(Delivered())
    lines = path.read_bytes().splitlines()
    kept = [text for text in lines if text.endswith(b"}")]
    assert len(lines) == len(kept) + 1
    assert [json.loads(text)["timestamp"] - made.T0 for text in kept] == [0, 1, 2, 3, 4]


def test_a_folder_in_its_place_rejects(path):
    path.mkdir()
    assert JSONLMetricsSink(path).send([record()], deadline()) == Rejected("is_a_directory")


def test_a_file_in_the_place_of_its_folder_is_no_crash(tmp_path):
    (tmp_path / "file").touch()
    outcome = JSONLMetricsSink(tmp_path / "file" / "calls.jsonl").send([record()], deadline())
    assert isinstance(outcome, (Rejected, RetryLater))


@rotating
def test_the_file_rotates_before_it_grows_too_large(path):
    size = len(line(record(1)))
    sink = JSONLMetricsSink(path, max_bytes=size * 2, backups=2)
    for number in range(1, 8):
        assert sink.send([record(number)], deadline()) == Delivered()
    assert [found.name for found in files(path)] == ["calls.jsonl", "calls.jsonl.1", "calls.jsonl.2"]
    assert [row.timestamp - made.T0 for row in read(*reversed(files(path)))] == [3, 4, 5, 6, 7]
    assert all(found.stat().st_size <= size * 2 for found in files(path))
    assert {stat.S_IMODE(found.stat().st_mode) for found in files(path)} == {0o600}


@rotating
def test_without_backups_a_full_file_starts_over(path):
    sink = JSONLMetricsSink(path, max_bytes=1, backups=0)
    for number in range(3):
        sink.send([record(number)], deadline())
    assert files(path) == [path]
    assert [row.timestamp - made.T0 for row in read(path)] == [2]


@rotating
def test_a_batch_is_never_split(path):
    sink = JSONLMetricsSink(path, max_bytes=10)
    sink.send([record(1), record(2)], deadline())
    sink.send([record(3)], deadline())
    assert [len(read(found)) for found in files(path)] == [1, 2]


@rotating
@pytest.mark.parametrize("max_bytes", [None, 10_000])
def test_a_lock_held_elsewhere_is_waited_for_no_longer_than_told(path, max_bytes):
    sink = JSONLMetricsSink(path, max_bytes=max_bytes)
    sink.send([record()], deadline())
    with path.open() as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert sink.send([record()], deadline(0)) == RetryLater(reason="locked")
    assert sink.send([record()], deadline()) == Delivered()
    assert len(read(path)) == 2


WRITER = """
import sys
from tellmeter.pipeline.outcome import Delivered
from tellmeter.sinks.jsonl import JSONLMetricsSink
from tests.unit.sinks.made import deadline, record
options = {"max_bytes": 20_000, "backups": 1000} if sys.argv[2] == "rotate" else {}
sink = JSONLMetricsSink(sys.argv[1], **options)
print("ready", flush=True)
sys.stdin.readline()
for _ in range(100):
    assert sink.send([record() for _ in range(10)], deadline(60)) == Delivered()
"""


@pytest.mark.parametrize("how", ["append", pytest.param("rotate", marks=rotating)])
def test_processes_that_write_at_once_lose_and_mix_nothing(path, how):
    children = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), how],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **made.PATHS},
        )
        for _ in range(3)
    ]
    for child in children:
        child.stdout.readline()
    for child in children:
        child.stdin.write("go\n")
        child.stdin.flush()
    for child in children:
        _, errors = child.communicate(timeout=100)
        assert (child.returncode, errors) == (0, "")
    rows = read(*files(path))
    assert len({row.id for row in rows}) == len(rows) == 3000
    assert (len(files(path)) > 10) == (how == "rotate")


@rotating
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_takes_its_own_turns(path):
    code = """
import fcntl, os, sys
from tellmeter.sinks.jsonl import JSONLMetricsSink
from tests.unit.sinks.made import deadline, record
sink = JSONLMetricsSink(sys.argv[1], max_bytes=1_000_000)
sink.send([record()], deadline())
child = os.fork()
if child == 0:
    sink.after_fork()
    fcntl.flock(sink._open(), fcntl.LOCK_EX)
    os.kill(os.getpid(), 19)  # SIGSTOP, with the lock
    os._exit(0)
os.waitpid(child, os.WUNTRACED)
print(sink.send([record()], deadline(0)))
os.kill(child, 18)  # SIGCONT
os.waitpid(child, 0)
print(sink.send([record()], deadline()))
"""
    assert python(code, path, timeout=60).stdout.splitlines() == [str(RetryLater(reason="locked")), str(Delivered())]


@rotating
def test_a_file_system_without_locks_is_written_to_all_the_same(path, monkeypatch):
    def unsupported(descriptor, operation):
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(module.fcntl, "flock", unsupported)
    assert JSONLMetricsSink(path).send([record()], deadline()) == Delivered()


def test_a_system_without_locks_refuses_to_rotate(path, monkeypatch):
    monkeypatch.setattr(module, "fcntl", None)
    with pytest.raises(ConfigError, match="no file locks"):
        JSONLMetricsSink(path, max_bytes=10)
    assert JSONLMetricsSink(path).send([record()], deadline()) == Delivered()


@pytest.mark.parametrize("options", [{"max_bytes": 0}, {"max_bytes": 1.5}, {"backups": -1}])
def test_bad_arguments_are_refused(path, options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        JSONLMetricsSink(path, **options)
    with pytest.raises(ConfigError):
        JSONLMetricsSink(b"bytes")


@rotating
def test_a_url_names_the_file_and_its_bounds(path):
    sink = JSONLMetricsSink.from_url(f"jsonl:///{path}?max_bytes=100&backups=0")
    assert (sink.path, sink.max_bytes, sink.backups) == (path, 100, 0)


def test_closing_twice_and_writing_after_it_work(path):
    sink = JSONLMetricsSink(path)
    sink.close()
    sink.send([record()], deadline())
    sink.close()
    sink.close()
    sink.send([record()], deadline())
    assert len(read(path)) == 2


@rotating
def test_rotated_files_are_packed_and_nothing_is_lost(path):
    sink = JSONLMetricsSink(path, max_bytes=3000, backups=50, compress="gzip")
    sent = [made.record(number) for number in range(60)]
    for start in range(0, 60, 3):
        assert sink.send(sent[start : start + 3], made.deadline()) == Delivered()
    sink.close()
    packed = sorted(path.parent.glob("*.gz"))
    assert len(packed) > 5 and [file.name for file in path.parent.glob(f"{path.name}.?")] == []
    texts = [gzip.decompress(file.read_bytes()) for file in packed] + [path.read_bytes()]
    found = [msgspec.json.decode(line, type=AgentMetrics) for text in texts for line in text.splitlines()]
    assert sorted(found, key=lambda record: record.timestamp) == sent
    assert all(stat.S_IMODE(file.stat().st_mode) == 0o600 for file in packed)


@rotating
def test_the_oldest_packed_files_go_too(path):
    sink = JSONLMetricsSink(path, max_bytes=100, backups=2, compress="gzip")
    for number in range(6):
        sink.send([made.record(number)], made.deadline())
    sink.close()
    assert sorted(file.name for file in path.parent.iterdir()) == [path.name, f"{path.name}.1.gz", f"{path.name}.2.gz"]


@rotating
def test_a_file_that_another_process_packs_keeps_its_name_and_the_rotation_waits(path):
    sink = JSONLMetricsSink(path, max_bytes=100, backups=2)
    for number in range(3):
        sink.send([made.record(number)], made.deadline())
    with open(f"{path}.1", "rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        before = os.fstat(held.fileno()).st_ino
        assert sink.send([made.record(3)], made.deadline()) == Delivered()
        assert os.stat(f"{path}.1").st_ino == before
    assert path.read_text().count("\n") == 2
    sink.close()
