"""What `tellmeter run` does inside each Python process that it starts; called by `_site/sitecustomize.py`."""

from __future__ import annotations

import os
from pathlib import Path

from ..config import RUN_VARIABLE
from ..signal_flush import install_signal_flush
from ..wire import instrument


def attach() -> None:
    """Meter this process, leave a mark that says so, and deliver what waits when SIGTERM ends it."""
    instrument()
    _leave_mark()
    install_signal_flush()


def _leave_mark() -> None:
    folder = os.environ.get(RUN_VARIABLE)
    if not folder:
        return
    try:
        (Path(folder) / str(os.getpid())).touch()
    except OSError:  # the run that this process belongs to is over
        pass
