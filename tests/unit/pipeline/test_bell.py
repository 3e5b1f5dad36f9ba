from __future__ import annotations

import threading

from tellmeter.pipeline.bell import Bell


def test_a_wait_ends_when_it_rings() -> None:
    bell = Bell()
    done = threading.Event()
    threading.Thread(target=lambda: (bell.wait(30), done.set()), daemon=True).start()
    bell.ring()
    assert done.wait(30)


def test_ringing_before_the_wait_counts_once() -> None:
    bell = Bell()
    bell.ring()
    bell.ring()
    bell.wait(30)  # at once
    bell.wait(0.0)  # and silent again: it comes back by its time
    assert bell._silent.locked()
