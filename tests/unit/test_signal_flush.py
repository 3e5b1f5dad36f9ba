"""install_signal_flush() in processes of its own: it changes signal handlers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

START = "import os, signal, sys, tellmeter\nfrom tellmeter import signal_flush\n"


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", START + textwrap.dedent(code)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
@pytest.mark.fault(15)
def test_what_waits_is_delivered_and_the_program_dies_as_ever(name: str, tmp_path: Path) -> None:
    code = f"""
    tellmeter.install_signal_flush(signal.{name})
    for _ in range(500):
        tellmeter.get_metrics_collector().record(tellmeter.AgentMetrics(model="m"))
    os.kill(os.getpid(), signal.{name})
    """
    done = python(code, TELLMETER_SINKS=f"jsonl:///{tmp_path}/calls.jsonl")
    assert done.returncode == -signal.Signals[name], done.stderr
    assert (tmp_path / "calls.jsonl").read_text().count('"model":"m"') == 500


@pytest.mark.fault(15)
def test_it_dies_even_while_the_interrupted_code_holds_the_locks(tmp_path: Path) -> None:
    code = """
    tellmeter.install_signal_flush()
    signal_flush.FLUSH_SECONDS = 0.3
    collector = tellmeter.get_metrics_collector()
    collector.record(tellmeter.AgentMetrics(model="m"))
    collector.at_exit = lambda started: __import__("time").sleep(60)
    os.kill(os.getpid(), signal.SIGTERM)
    """
    assert python(code, TELLMETER_SINKS=f"jsonl:///{tmp_path}/calls.jsonl").returncode == -signal.SIGTERM


@pytest.mark.parametrize("moment", ["during", "before"])
@pytest.mark.fault(15)
def test_a_signal_during_the_exit_lets_it_deliver(moment: str, tmp_path: Path) -> None:
    """A pool ends its workers so: they may be leaving by themselves at that moment."""
    code = f"""
    import atexit
    tellmeter.install_signal_flush()
    collector = tellmeter.get_metrics_collector()
    collector.record(tellmeter.AgentMetrics(model="m"))
    end = lambda: os.kill(os.getpid(), signal.SIGTERM)
    if "{moment}" == "before":
        atexit.register(end)
    else:
        exit, collector.at_exit = collector.at_exit, lambda started: (end(), exit(started))
    """
    done = python(code, TELLMETER_SINKS=f"jsonl:///{tmp_path}/calls.jsonl")
    assert done.returncode == -signal.SIGTERM, done.stderr
    assert (tmp_path / "calls.jsonl").read_text().count('"model":"m"') == 1


@pytest.mark.parametrize("before", ["signal.SIG_IGN", "print"])
def test_a_disposition_that_is_not_the_default_stays(before: str) -> None:
    code = f"""
    signal.signal(signal.SIGTERM, {before})
    tellmeter.install_signal_flush()
    print(signal.getsignal(signal.SIGTERM) is {before})
    """
    assert python(code).stdout.split() == ["True"]


def test_off_the_main_thread_it_does_nothing() -> None:
    code = """
    import threading
    thread = threading.Thread(target=tellmeter.install_signal_flush); thread.start(); thread.join()
    print(signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)
    """
    done = python(code)
    assert (done.stdout.split(), done.stderr) == (["True"], "")


SERVED = """
tellmeter.install_signal_flush()
import uvicorn

async def app(scope, receive, send):
    if scope["type"] != "http":
        raise RuntimeError
    tellmeter.get_metrics_collector().record(tellmeter.AgentMetrics(model="m"))
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})
    os.kill(os.getpid(), signal.SIGTERM)

import threading, urllib.request, socket
listening = socket.create_server(("127.0.0.1", 0))
address = "http://127.0.0.1:%d/" % listening.getsockname()[1]
threading.Thread(target=lambda: urllib.request.urlopen(address, timeout=20).read(), daemon=True).start()
server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
server.run(sockets=[listening])
"""


@pytest.mark.fault(15)
def test_what_uvicorn_served_last_is_delivered(tmp_path: Path) -> None:
    """It ends by SIGTERM once more, under the handler that it found, so that no exit handler runs."""
    done = python(SERVED, TELLMETER_SINKS=f"jsonl:///{tmp_path}/calls.jsonl")
    assert done.returncode == -signal.SIGTERM, done.stderr
    assert (tmp_path / "calls.jsonl").read_text().count('"model":"m"') == 1
