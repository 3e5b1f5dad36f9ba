"""The ends of a process with a spool, in every Python there is: what is not delivered is on disk, and ends do not take long."""

from __future__ import annotations

import signal
import subprocess
import textwrap
import threading
import time
from pathlib import Path

import pytest

from tellmeter import AgentMetrics, MetricsCollector, MetricsConfig
from tellmeter.pipeline.spool.left import look
from tellmeter.registry.registry import MetricsRegistry
from tellmeter.testing import OracleSink
from tests.support.interpreters import RELEASES, environment, interpreter

CALLS = 100
ENDINGS = {
    "return": ("", 0),
    "exception": ("raise ValueError", 1),
    "sys.exit": ("sys.exit(3)", 3),
    "sys.exit in a thread": ("t = threading.Thread(target=sys.exit); t.start(); t.join()", 0),
    "os._exit after a shutdown": ("tellmeter.get_metrics_collector().shutdown_sync(); os._exit(4)", 4),
    "a daemon thread that records": ("threading.Thread(target=more, daemon=True).start()", 0),
    "a thread that ends later": ("threading.Thread(target=lambda: (main.join(), record())).start()", 0),
    "atexit, before us": ("atexit.register(record)", 0),
    "asyncio": ("asyncio.run(later())", 0),
    "SystemExit in asyncio": ("asyncio.run(leave())", 5),
    "multiprocessing was imported": ("import multiprocessing, concurrent.futures.thread", 0),
}
PROGRAM = """
import asyncio, atexit, os, signal, sys, threading, time
{early}
import tellmeter
main = threading.main_thread()
{sinks}

def record(number=0):
    tellmeter.get_metrics_collector().record(tellmeter.AgentMetrics(model="m", provider="openai"))

def more():
    while True:
        time.sleep(0.01)

async def later():
    await asyncio.sleep(0)

async def leave():
    sys.exit(5)

for number in range({calls}):
    record(number)
{ending}
"""
JSONL = 'tellmeter.configure(tellmeter.MetricsConfig({config}), sinks=["jsonl:///{folder}/calls.jsonl"])'
STUCK = """
class Stuck:
    destination = "somewhere"
    def send(self, batch, deadline):
        {send}
tellmeter.configure(tellmeter.MetricsConfig({config}), sinks=[Stuck()])
"""


@pytest.fixture(params=RELEASES)
def python(request: pytest.FixtureRequest) -> str:
    found = interpreter(request.param)
    if found is None:
        pytest.skip(f"no Python {request.param} with tellmeter's dependencies")
    return found


def run(python: str, code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [python, "-c", textwrap.dedent(code)],
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def lines(folder: Path) -> int:
    path = folder / "calls.jsonl"
    return path.read_text().count('"model":"m"') if path.exists() else 0


def spooled(folder: Path) -> int:
    return sum(one.records for one in look(str(folder)))


@pytest.mark.fault(14)
@pytest.mark.parametrize("spool", [False, True], ids=["memory", "spool"])
@pytest.mark.parametrize("ending", ENDINGS)
def test_everything_is_delivered_by(python: str, ending: str, spool: bool, tmp_path: Path) -> None:
    code, expected = ENDINGS[ending]
    config = (
        f"batch_timeout_seconds=3600, spool={str(tmp_path)!r} + '/spool'" if spool else "batch_timeout_seconds=3600"
    )
    sinks = JSONL.format(config=config, folder=tmp_path)
    done = run(python, PROGRAM.format(early="", sinks=sinks, calls=CALLS, ending=code))
    assert done.returncode == expected, done.stderr
    more = "ends later" in ending or "atexit" in ending
    assert lines(tmp_path) == CALLS + more, done.stderr
    assert "not delivered" not in done.stderr and "Exception ignored" not in done.stderr
    assert spooled(tmp_path / "spool") == 0


@pytest.mark.fault(14)
def test_an_exit_handler_that_was_there_before_us_runs_after_us_and_its_record_is_counted(
    python: str, tmp_path: Path
) -> None:
    """Python runs exit handlers in the reverse order: whoever wants to record in one registers it after the import."""
    sinks = JSONL.format(config="", folder=tmp_path)
    early = "atexit.register(lambda: (record(), print(tellmeter.get_metrics_collector().stats().balanced)))"
    done = run(python, PROGRAM.format(early=early, sinks=sinks, calls=CALLS, ending=""))
    assert (done.returncode, done.stdout.split()) == (0, ["True"]), done.stderr
    assert lines(tmp_path) >= CALLS


@pytest.mark.fault(2, 14)
@pytest.mark.parametrize("ending", ["return", "exception", "sys.exit"])
def test_a_sink_that_hangs_leaves_everything_in_the_spool_and_the_end_is_soon(
    python: str, ending: str, tmp_path: Path
) -> None:
    code, expected = ENDINGS[ending]
    config = f"exit_timeout_seconds=1, batch_timeout_seconds=0.01, spool={str(tmp_path)!r} + '/spool'"
    sinks = STUCK.format(config=config, send="time.sleep(3600)")
    done = run(python, PROGRAM.format(early="", sinks=sinks, calls=CALLS, ending=code))  # or it ends in no time at all
    assert done.returncode == expected, done.stderr
    assert "not delivered" not in done.stderr
    assert spooled(tmp_path / "spool") == CALLS


@pytest.mark.fault(14)
def test_what_one_process_left_the_next_one_delivers(python: str, tmp_path: Path) -> None:
    config = f"exit_timeout_seconds=0.5, spool={str(tmp_path)!r} + '/spool'"
    down = STUCK.format(config=config, send="return tellmeter.RetryLater()")
    done = run(python, PROGRAM.format(early="", sinks=down, calls=CALLS, ending=""))
    assert done.returncode == 0, done.stderr
    assert spooled(tmp_path / "spool") == CALLS

    class Stuck(OracleSink):
        destination = "somewhere"

    oracle = Stuck()
    collector = MetricsCollector(
        MetricsConfig(spool=tmp_path / "spool", flush_timeout_seconds=30), sinks=[oracle], registry=MetricsRegistry()
    )
    oracle.wait_for(CALLS, 30)  # nothing has to be recorded for that
    assert collector.shutdown_sync().complete
    ledger = collector.stats().sinks["Stuck"]
    assert (ledger.adopted, ledger.delivered, ledger.dropped) == (CALLS, CALLS, {})
    assert spooled(tmp_path / "spool") == 0


@pytest.mark.fault(14)
@pytest.mark.parametrize(
    "names",
    [{"tellmeter-OracleSink"}, {"tellmeter-OracleSink-spool"}, {"tellmeter-OracleSink", "tellmeter-OracleSink-spool"}],
    ids=["send", "write", "both"],
)
def test_threads_that_could_not_be_started_are_not_waited_for(
    names: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python 3.12 and later start none once the interpreter is ending, which may be between the two of a lane."""
    real = threading.Thread.start

    def start(thread: threading.Thread) -> None:
        if thread.name in names:
            raise RuntimeError("can't create new thread at interpreter shutdown")
        real(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    oracle = OracleSink()
    collector = MetricsCollector(MetricsConfig(spool=tmp_path / "spool"), sinks=[oracle], registry=MetricsRegistry())
    for _ in range(CALLS):
        collector.record(AgentMetrics(model="m"))
    collector.at_exit(time.monotonic())
    assert len(oracle.delivered) == CALLS
    oracle.check(collector.stats())
    assert spooled(tmp_path / "spool") == 0


# ---------------------------------------------------------------------- signals

# Not by signal.pause(): a signal that comes just before it would be noted, and never acted upon.
WAITS = '{wait}\nprint("ready", flush=True)\nwhile True: time.sleep(0.05)'


def kill(python: str, number: int, sinks: str, wait: str = "", early: str = "") -> int:
    """How a program ends that is sent a signal when it is ready."""
    code = PROGRAM.format(early="", sinks=sinks + "\n" + early, calls=CALLS, ending=WAITS.format(wait=wait))
    with subprocess.Popen([python, "-c", code], env=environment(), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        process.send_signal(number)
        return process.wait(60)


@pytest.mark.fault(15)
def test_the_recipe_for_sigterm_delivers(python: str, tmp_path: Path) -> None:
    sinks = JSONL.format(config="batch_timeout_seconds=3600", folder=tmp_path)
    assert kill(python, signal.SIGTERM, sinks, early="tellmeter.install_signal_flush()") == -signal.SIGTERM
    assert lines(tmp_path) == CALLS


@pytest.mark.fault(15)
def test_the_recipe_for_sigterm_leaves_what_a_hanging_sink_does_not_take_in_the_spool(
    python: str, tmp_path: Path
) -> None:
    config = f"exit_timeout_seconds=0.5, spool={str(tmp_path)!r} + '/spool'"
    sinks = STUCK.format(config=config, send="time.sleep(3600)")
    assert kill(python, signal.SIGTERM, sinks, early="tellmeter.install_signal_flush()") == -signal.SIGTERM
    assert spooled(tmp_path / "spool") == CALLS


@pytest.mark.fault(8, 15)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_without_the_recipe_a_second_old_is_in_the_spool(python: str, number: int, tmp_path: Path) -> None:
    config = f"spool={str(tmp_path)!r} + '/spool'"
    sinks = STUCK.format(config=config, send="time.sleep(3600)")
    assert kill(python, number, sinks, wait="time.sleep(1)") == -number
    assert spooled(tmp_path / "spool") == CALLS


@pytest.mark.fault(15)
def test_without_the_recipe_the_default_loses_the_queue_at_most(python: str, tmp_path: Path) -> None:
    sinks = JSONL.format(config="batch_timeout_seconds=3600", folder=tmp_path)
    flushed = "tellmeter.get_metrics_collector().flush_sync()\nfor _ in range(7): record()"
    assert kill(python, signal.SIGTERM, sinks, wait=flushed) == -signal.SIGTERM
    assert CALLS <= lines(tmp_path) <= CALLS + 7
