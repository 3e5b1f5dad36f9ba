"""What `tellmeter run` does inside each Python process that it starts; called by `_site/sitecustomize.py`."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from types import FrameType

from ..config import RUN_VARIABLE
from ..wire import instrument

# A little over what the pipeline gives itself at exit (`exit_timeout_seconds`, 2 s).
_FLUSH_SECONDS = 3.0


def attach() -> None:
    """Meter this process, leave a mark that says so, and deliver what waits when SIGTERM ends it."""
    instrument()
    _leave_mark()
    _flush_at_sigterm()


def _leave_mark() -> None:
    folder = os.environ.get(RUN_VARIABLE)
    if not folder:
        return
    try:
        (Path(folder) / str(os.getpid())).touch()
    except OSError:  # the run that this process belongs to is over
        pass


def _flush_at_sigterm() -> None:
    """Python runs no exit handlers when SIGTERM kills it, and that is how servers stop their workers."""
    try:
        if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, _on_sigterm)
    except ValueError:  # not the main thread, which a Python embedded elsewhere may do
        pass


def _on_sigterm(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_DFL)
    try:
        _deliver()
    finally:
        os.kill(os.getpid(), number)


def _deliver() -> None:
    # Nothing to do where nothing was metered: do not import the pipeline to find that out.
    lifecycle = sys.modules.get("tellmeter.pipeline.lifecycle")
    if lifecycle is None:
        return
    import threading

    # On a thread, because the code that the signal interrupted may hold a lock that delivery needs.
    worker = threading.Thread(target=lifecycle.at_exit, name="tellmeter-sigterm", daemon=True)
    worker.start()
    worker.join(_FLUSH_SECONDS)
