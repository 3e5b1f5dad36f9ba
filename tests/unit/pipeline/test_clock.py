from __future__ import annotations

import math
import threading
import time

import pytest

from tellmeter.pipeline.clock import SYSTEM_CLOCK


def test_it_is_the_monotonic_clock() -> None:
    before = time.monotonic()
    assert before <= SYSTEM_CLOCK.monotonic() <= time.monotonic()


@pytest.mark.parametrize("seconds", [0.0, -1.0, -math.inf])
def test_a_time_that_has_passed_is_not_waited_for(seconds: float) -> None:
    condition = threading.Condition()
    with condition:
        SYSTEM_CLOCK.wait(condition, seconds)


@pytest.mark.parametrize("seconds", [None, 1e12, math.inf, 30.0])
def test_whoever_waits_is_woken(seconds: float | None) -> None:
    condition = threading.Condition()
    woken = []

    def wait() -> None:
        with condition:
            woken.append("waits")
            condition.notify_all()
            SYSTEM_CLOCK.wait(condition, seconds)
            woken.append("woken")

    thread = threading.Thread(target=wait)
    with condition:
        thread.start()
        while not woken:
            condition.wait(10)
        condition.notify_all()
    thread.join(10)
    assert woken == ["waits", "woken"]
