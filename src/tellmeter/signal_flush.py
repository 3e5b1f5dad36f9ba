"""Delivery when a signal ends the program, which for Python is no exit: it runs no exit handlers then."""

from __future__ import annotations

import os
import signal
import sys
import time
from types import FrameType

# A little over what the pipeline gives itself at exit (`exit_timeout_seconds`, 2 s).
FLUSH_SECONDS = 3.0
STARVED_TURNS = 5


def install_signal_flush(*numbers: int) -> None:
    """Deliver what waits when SIGTERM (or each of `numbers`) ends this process, which then dies of it as it would have.

    For programs that install no handler of their own; a handler that is there stays. Servers such as uvicorn put theirs
    in its place while they run, and end by the one that they found. Call it once, at the start. Off the main thread,
    where Python allows no handlers, it does nothing.
    """
    for number in numbers or (signal.SIGTERM,):
        try:
            if signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, _deliver_and_die)
        except ValueError:  # not the main thread, which a Python embedded elsewhere may do
            return


def _deliver_and_die(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_DFL)
    ended = True
    try:
        ended = _deliver()
    finally:
        if ended:
            os.kill(os.getpid(), number)
    sys.modules["tellmeter.registry.forks"].write_last(lambda: os.kill(os.getpid(), number))


def _deliver() -> bool:
    """False: the exit is under way. It makes the same deliveries, and has the locks that ours would wait for."""
    # Nothing to do where nothing was metered: do not import the pipeline to find that out.
    lifecycle = sys.modules.get("tellmeter.pipeline.lifecycle")
    forks = sys.modules.get("tellmeter.registry.forks")
    acts = [module.at_exit for module in (lifecycle, forks) if module is not None]
    if not acts:
        return True
    if lifecycle is not None and lifecycle.exiting:
        return False
    import threading

    # On a thread, because the code that the signal interrupted may hold a lock that delivery needs.
    worker = threading.Thread(target=lambda: [act() for act in acts], name="tellmeter-signal", daemon=True)
    try:
        worker.start()
    except RuntimeError:  # from 3.12 on none starts any more once the exit has begun
        return False
    # Where others have the processor it takes longer; what waits for a lock without working is not waited for again.
    for _ in range(STARVED_TURNS):
        worked = time.process_time()
        worker.join(FLUSH_SECONDS)
        if not worker.is_alive() or time.process_time() - worked < FLUSH_SECONDS / 20:
            break
    return True
