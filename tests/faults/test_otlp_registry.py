"""A registry's export and the ends of a process: exit, fork, a receiver that hangs, a kill."""

import os
import signal
import subprocess
import sys
import time

import pytest

from tellmeter.testing import Answer, Hang
from tests.support.otlp import Receiver, totals
from tests.unit.sinks.made import PATHS, python

PROGRAM = """
import os, sys, time, warnings
import tellmeter
from tellmeter.registry.registry import get_metrics_registry
from tellmeter.telemetry.metrics_out import RegistryExport
from tellmeter.telemetry.settings import TelemetrySettings
warnings.simplefilter("ignore", DeprecationWarning)
def started(**options):
    export = RegistryExport(get_metrics_registry(), TelemetrySettings.from_env(otlp_endpoint=sys.argv[1], **options))
    export.start()
    return export
def call(number):
    for _ in range(number):
        with tellmeter.meter_call(provider="openai", model="gpt-4o"):
            pass
"""
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def receiver():
    with Receiver() as one:
        yield one


def by_instance(receiver, name="llm_requests"):
    found = {}
    for point in receiver.points():
        if point.name == name:
            key = point.resource["service.instance.id"]
            number = point.value[0] if isinstance(point.value, tuple) else point.value
            found[key] = number + (found.get(key, 0) if point.delta else 0)
    return sorted(found.values())


def test_a_short_program_exports_at_its_exit(receiver):
    done = python(f"{PROGRAM}\nexport = started()\ncall(7)", receiver.url, timeout=60)
    assert done.stderr == ""
    assert totals(receiver)["calls"] == 7


def test_a_program_that_forgets_its_export_exports_all_the_same(receiver):
    python(f"{PROGRAM}\nstarted()\ncall(7)", receiver.url, timeout=60)
    assert totals(receiver)["calls"] == 7


def test_an_exit_does_not_wait_for_a_receiver_that_hangs(receiver):
    receiver.default = Hang()
    python(f"{PROGRAM}\nexport = started()\ncall(7)", receiver.url, timeout=60)
    assert receiver.received >= 1


@pytest.mark.parametrize("temporality", ["cumulative", "delta"])
@pytest.mark.parametrize("shared", [False, True])
def test_a_forked_child_exports_what_it_counted_itself(monkeypatch, tmp_path, receiver, temporality, shared):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", temporality)
    if shared:
        monkeypatch.setenv("TELLMETER_MULTIPROC_DIR", str(tmp_path / "metrics"))
    done = python(
        PROGRAM
        + """
export = started()
call(100)
assert export.flush(30)
child = os.fork()
if child:
    call(10)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
else:
    call(1)
    assert export.flush(30)
    call(2)
    assert export.flush(30)
    export.close(30)
    os._exit(0)
""",
        receiver.url,
        timeout=60,
    )
    assert done.stderr == ""
    for name in ("llm_requests", "gen_ai.client.operation.duration"):
        assert by_instance(receiver, name) == [3, 110]


def test_a_worker_exports_at_its_end_and_one_that_did_nothing_does_not(receiver):
    done = python(
        PROGRAM
        + """
import multiprocessing
export = started()
call(5)
assert export.flush(30)
context = multiprocessing.get_context("fork")
workers = [context.Process(target=call, args=(number,)) for number in (0, 3)]
for one in workers:
    one.start()
for one in workers:
    one.join()
assert [one.exitcode for one in workers] == [0, 0]
""",
        receiver.url,
        timeout=60,
    )
    assert done.stderr == ""
    assert by_instance(receiver) == [3, 5]
    assert len({point.resource["service.instance.id"] for point in receiver.points()}) == 2


def test_forks_while_exports_run_leave_no_child_hanging(receiver):
    receiver.default = Answer(delay=0.01)
    done = python(
        PROGRAM
        + """
export = started(metrics_interval_ms=1)
children = []
for _ in range(10):
    call(1)
    export.flush(30)
    child = os.fork()
    if not child:
        call(1)
        done = export.flush(30)
        export.close(30)
        os._exit(0 if done else 1)
    children.append(child)
print([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children])
""",
        receiver.url,
        timeout=100,
    )
    assert done.stdout.strip() == str([0] * 10)
    assert by_instance(receiver) == [1] * 10 + [10]


def test_calls_before_a_kill_were_exported_by_the_interval(receiver):
    child = subprocess.Popen(
        [sys.executable, "-c", f"{PROGRAM}\nstarted(metrics_interval_ms=50)\ncall(7)\ntime.sleep(100)", receiver.url],
        env={**os.environ, **PATHS},
    )
    try:
        deadline = time.monotonic() + 60
        while totals(receiver)["calls"] < 7 and time.monotonic() < deadline:
            receiver.wait_for(receiver.received + 1, 60)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait(30)
    assert totals(receiver)["calls"] == 7
