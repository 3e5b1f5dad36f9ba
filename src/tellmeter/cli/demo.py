"""`tellmeter demo`: a small application against a local simulator of the providers, metered like any other program."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TextIO

from ..errors import MissingExtra, TellmeterError
from ..records import uuid7
from ..sinks import urls
from ..sinks.base import MetricsStore
from .run import metered, where
from .signals import stopped_by_signals
from .stores import Answers, ask, chosen_url, opened, run_filter
from .tables import console_for, line, print_table, table

_NEEDED = ("openai", "anthropic", "uvicorn")
_ERROR_RATE = 0.04  # there is something to see in the columns for errors and retries
_REFRESH_SECONDS = 0.5
_LINE_SECONDS = 3.0
_START_SECONDS = 20.0
_STOP_SECONDS = 8.0
# Nobody is there to press Ctrl-C for an application whose demo was killed.
_LONGEST_SECONDS = 24 * 3600.0

Show = Callable[[Answers, float], None]


class DemoFailed(TellmeterError):
    """A part of the demo did not start, or ended by itself."""


def demo(seconds: float | None = None, store: str | None = None) -> int:
    """Run the demo for `seconds` (until Ctrl-C without), with a live table; print the summary."""
    for package in _NEEDED:
        if find_spec(package) is None:
            raise MissingExtra(package, "demo")
    with tempfile.TemporaryDirectory(prefix="tellmeter-demo-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        url = chosen_url(store or f"sqlite:///{folder / 'calls.db'}")
        opened(url)  # one that cannot work is told before anything starts
        asked = urls.store_from_url(url)
        filters = run_filter(run_id := uuid7(), None, 0.0)
        environment = metered(os.environ, url, [f"run={run_id}"], name)
        with (
            stopped_by_signals(),
            _simulator(folder) as base_url,
            _application(base_url, seconds, folder, environment) as application,
        ):
            try:
                with _display(sys.stdout) as show:
                    _watch(application, asked, filters, show)
            except KeyboardInterrupt:
                # It ends already; a second Ctrl-C must not leave anything behind.
                signal.signal(signal.SIGINT, signal.SIG_IGN)
        answers = ask(asked, "model", **filters)
        if not answers.total.count:
            raise DemoFailed(f"no call was metered{_tail(folder / 'application.log')}")
        print_table(answers, "model", title="tellmeter demo")
        if store:
            sys.stdout.write(f"{where(url, run_id)}\n")
    return 0


def _watch(application: subprocess.Popen[bytes], store: MetricsStore, filters: Mapping[str, Any], show: Show) -> None:
    started = time.monotonic()
    while application.poll() is None:
        show(ask(store, "model", **filters), time.monotonic() - started)
        time.sleep(_REFRESH_SECONDS)


@contextmanager
def _display(to: TextIO) -> Iterator[Show]:
    """A live table on a terminal, else a line now and then."""
    if not to.isatty():
        told = 0.0

        def tell(answers: Answers, elapsed: float) -> None:
            nonlocal told
            if elapsed - told >= _LINE_SECONDS:
                told = elapsed
                to.write(f"{elapsed:.0f} s: {line(answers.total)}\n")
                to.flush()

        yield tell
        return
    from rich.live import Live

    console = console_for(to)
    with Live(console=console, auto_refresh=False, transient=True) as live:

        def draw(answers: Answers, elapsed: float) -> None:
            title = f"tellmeter demo, {elapsed:.0f} s (Ctrl-C ends it)"
            live.update(table(answers, "model", console, title=title), refresh=True)

        yield draw


@contextmanager
def _simulator(folder: Path) -> Iterator[str]:
    """The simulator's URL. A process of its own, so that it does not slow what is measured."""
    command = [sys.executable, "-m", "tellmeter.simulator", "--error-rate", str(_ERROR_RATE)]
    with _process(command, folder / "simulator.log", os.environ) as process:
        log = folder / "simulator.log"
        deadline = time.monotonic() + _START_SECONDS
        while not (url := _url_in(log)):
            if process.poll() is not None or time.monotonic() > deadline:
                raise DemoFailed(f"the simulator did not start{_tail(log)}")
            time.sleep(0.05)
        yield url


def _url_in(log: Path) -> str | None:
    for word in log.read_text("utf-8", "replace").split():
        if word.startswith("http://"):
            return word.rstrip(".,")
    return None


@contextmanager
def _application(
    base_url: str, seconds: float | None, folder: Path, environment: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """The demo application, under what `tellmeter run` gives its programs."""
    length = str(_LONGEST_SECONDS if seconds is None else seconds)
    command = [sys.executable, "-m", "tellmeter.simulator.demo_app", "--base-url", base_url, "--seconds", length]
    with _process(command, folder / "application.log", environment) as process:
        yield process
        if process.poll():
            raise DemoFailed(
                f"the application ended with exit code {process.returncode}{_tail(folder / 'application.log')}"
            )


@contextmanager
def _process(command: list[str], log: Path, environment: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A process that ends with the block. In a session of its own: Ctrl-C reaches only us, and all ends in order."""
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 - this interpreter and our own modules
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)  # what it started too
                process.wait()


def _tail(log: Path) -> str:
    lines = log.read_text("utf-8", "replace").strip().splitlines() if log.exists() else []
    return f": {lines[-1]}" if lines else ""
