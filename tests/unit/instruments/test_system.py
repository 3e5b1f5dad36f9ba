import builtins
import os
import sys
import threading
import time
import types

import pytest

from tellmeter import ConfigError, MetricsRegistry, MissingExtra, counts
from tellmeter.instruments import system
from tellmeter.instruments.system import program_name, track_system
from tellmeter.registry import registry as registry_module
from tests.support.metrics import in_child, values_of

NAMES = ("system_cpu_usage_percent", "system_memory_usage_bytes", "memory_usage", "system_disk_usage_bytes")


class FakePsutil(types.ModuleType):
    """Tells how often it was asked, and by how many threads."""

    def __init__(self):
        super().__init__("psutil")
        self.asked = threading.Semaphore(0)
        self.threads = set()
        self.percents = iter([0.0])
        self.broken = set()

    def cpu_percent(self, interval):
        assert interval is None
        return next(self.percents, 12.5)

    def virtual_memory(self):
        if "memory" in self.broken:
            raise RuntimeError("secret")
        return types.SimpleNamespace(used=1000)

    def disk_usage(self, path):
        self.threads.add(threading.get_ident())
        self.asked.release()
        if path in self.broken:
            raise OSError("secret")
        return types.SimpleNamespace(used=len(path))

    def Process(self):
        return types.SimpleNamespace(memory_info=lambda: types.SimpleNamespace(rss=77))


@pytest.fixture
def psutil(monkeypatch):
    made = FakePsutil()
    monkeypatch.setitem(sys.modules, "psutil", made)
    return made


@pytest.fixture
def registry():
    return MetricsRegistry(strict=True)


def until(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        threading.Event().wait(0.005)


def test_the_real_machine_is_sampled(registry):
    with track_system(0.01, registry=registry) as sampling:
        until(lambda: all(name in registry.get_all_metrics() for name in NAMES))
        assert sampling.running
    assert not sampling.running
    assert 0 <= values_of(registry, "system_cpu_usage_percent")[""] <= 100
    assert values_of(registry, "system_memory_usage_bytes")[""] > 1e6
    assert values_of(registry, "system_disk_usage_bytes")["mount_point=/"] > 0
    ((label, resident),) = values_of(registry, "memory_usage_bytes").items()
    assert label == f"process={program_name()}" and resident > 1e6


def test_every_interval_is_a_sample(psutil, registry):
    with track_system(0.01, registry=registry, disks=["/", "/data"]):
        for _ in range(8):
            assert psutil.asked.acquire(timeout=20)
        until(lambda: "system_cpu_usage_percent" in registry.get_all_metrics())
    assert values_of(registry, "system_cpu_usage_percent") == {"": 12.5}  # not the first, which is 0 by nature
    assert values_of(registry, "system_memory_usage_bytes") == {"": 1000}
    assert values_of(registry, "memory_usage_bytes") == {f"process={program_name()}": 77}
    assert values_of(registry, "system_disk_usage_bytes") == {"mount_point=/": 1, "mount_point=/data": 5}


def test_after_stop_there_is_no_thread(psutil, registry):
    sampling = track_system(3600, registry=registry)
    assert psutil.asked.acquire(timeout=20)
    for _ in range(2):
        sampling.stop()
    assert not sampling._thread.is_alive()
    assert registry not in system._running


def test_a_second_start_replaces_the_first(psutil, registry):
    first = track_system(0.01, registry=registry)
    with track_system(0.01, registry=registry) as second:
        until(lambda: not first._thread.is_alive())
        assert second.running and not first.running
        first.stop()
        assert second.running
        assert system._running[registry] is second
    other = MetricsRegistry()
    with track_system(registry=registry) as one, track_system(registry=other) as two:
        assert one.running and two.running


def test_without_a_registry_it_is_the_processs(psutil, monkeypatch):
    monkeypatch.setattr(registry_module, "_process_registry", None)
    with track_system():
        until(lambda: "memory_usage" in registry_module.get_metrics_registry().get_all_metrics())


def test_what_cannot_be_read_is_counted_and_the_rest_goes_on(psutil, registry):
    psutil.broken = {"memory", "/gone"}
    before = counts.snapshot().get("guarded_errors", {})
    with track_system(0.01, registry=registry, disks=["/gone", "/"]) as sampling:
        until(lambda: "system_disk_usage_bytes" in registry.get_all_metrics())
        assert sampling.running
    after = counts.snapshot()["guarded_errors"]
    assert after["system_memory"] > before.get("system_memory", 0)
    assert after["system_disk"] > before.get("system_disk", 0)
    assert values_of(registry, "system_disk_usage_bytes") == {"mount_point=/": 1}
    assert "system_memory_usage_bytes" not in registry.get_all_metrics()


def test_without_psutil_it_says_what_to_install(monkeypatch, registry):
    original = builtins.__import__

    def without(name, *arguments, **more):
        if name == "psutil":
            raise ImportError(name)
        return original(name, *arguments, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtra, match=r"pip install 'tellmeter\[system\]'"):
        track_system(registry=registry)


@pytest.mark.parametrize("interval", [0, -1, float("nan"), float("inf"), "15", True, None])
def test_an_interval_that_cannot_be_is_told(psutil, registry, interval):
    with pytest.raises(ConfigError, match="interval_seconds"):
        track_system(interval, registry=registry)
    assert registry not in system._running


def test_disks_are_paths(psutil, registry):
    with pytest.raises(ConfigError, match="disks"):
        track_system(registry=registry, disks=[1])
    with track_system(registry=registry, disks="/one"):
        until(lambda: "system_disk_usage_bytes" in registry.get_all_metrics())
    assert values_of(registry, "system_disk_usage_bytes") == {"mount_point=/one": 4}


@pytest.mark.parametrize(
    ("argument", "name"),
    [
        ("/usr/bin/gunicorn", "gunicorn"),
        ("worker.py", "worker.py"),
        ("/site/uvicorn/__main__.py", "uvicorn"),
        ("-c", "python"),
        ("-m", "python"),
        ("", "python"),
    ],
)
def test_a_program_has_one_name(monkeypatch, argument, name):
    monkeypatch.setattr(sys, "argv", [argument])
    assert program_name() == name


def test_a_program_without_arguments_has_a_name(monkeypatch):
    monkeypatch.delattr(sys, "argv")
    assert program_name() == "python"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_child_samples_once_it_asks_and_neither_exit_waits():
    code = """
    import json, os, sys, threading, time
    from tellmeter import MetricsRegistry
    from tellmeter.instruments.system import track_system

    registry = MetricsRegistry()
    began = time.monotonic()
    sampling = track_system(3600, registry=registry)
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        told = [sampling.running, threading.active_count()]
        sampling.stop()
        registry.reset()
        with track_system(3600, registry=registry) as own:
            while not registry.get_metric_stats("memory_usage"):
                time.sleep(0.005)
            told += [own.running, threading.active_count()]
        os.write(writing, json.dumps(told).encode())
        track_system(3600, registry=registry)
        sys.exit()
    status = os.waitpid(pid, 0)[1]
    print(json.dumps([status, sampling.running, json.loads(os.read(reading, 1000))]))
    """
    assert in_child(code) == [0, True, [False, 1, True, 2]]


def test_nothing_happens_before_it_is_asked_for():
    code = """
    import json, sys, threading
    import tellmeter.instruments.system
    print(json.dumps([threading.active_count(), "psutil" in sys.modules]))
    """
    assert in_child(code) == [1, False]
