from __future__ import annotations

import signal
import threading
import time
from typing import Any

import pytest

from tellmeter.pipeline.router import SLICE, Router


def make(handled: list[Any], **bounds: int) -> Router:
    return Router(handled.extend, lambda item: 1, **{"max_items": 1000, "max_bytes": 10**9, **bounds})


def wait_until(condition: Any, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.001)  # polling with a deadline


def test_items_arrive_in_order_without_anybody_asking() -> None:
    handled: list[int] = []
    router = make(handled)
    for number in range(500):
        assert router.put(number, 1)
    wait_until(lambda: len(handled) == 500)
    assert handled == list(range(500))


def test_it_wakes_again_after_it_fell_asleep() -> None:
    handled: list[int] = []
    router = make(handled)
    router.put(1, 1)
    wait_until(lambda: handled and router._bell.asleep)
    router.put(2, 1)
    wait_until(lambda: handled == [1, 2])


def test_drain_passes_on_everything_that_was_put_before() -> None:
    handled: list[int] = []
    router = make(handled, max_items=10_000)
    for number in range(SLICE * 3 + 5):
        router.put(number, 1)
    assert router.drain()
    assert len(handled) == SLICE * 3 + 5


def test_a_full_queue_refuses_and_counts_exactly() -> None:
    handled: list[int] = []
    router = make(handled, max_items=10)
    with router._lock:  # nobody takes anything meanwhile
        results = [router.put(number, 1) for number in range(25)]
    assert results.count(False) == router.refused == 15
    router.drain()
    assert len(handled) == 10


def test_the_byte_bound_refuses_too_and_is_free_again_when_empty() -> None:
    handled: list[int] = []
    router = Router(handled.extend, lambda item: 600, max_items=1000, max_bytes=1000)
    with router._lock:
        results = [router.put(number, 600) for number in range(4)]
    assert results == [True, True, False, False]
    router.drain()
    assert router.put(9, 600)


def test_drain_gives_up_at_its_timeout() -> None:
    entered, release = threading.Event(), threading.Event()

    def handle(items: list[Any]) -> None:
        entered.set()
        release.wait(30)

    router = Router(handle, lambda item: 1, max_items=10, max_bytes=1000)
    router.put(1, 1)
    assert entered.wait(10)
    assert router.drain(0.01) is False
    assert router.drain(0) is False
    release.set()
    assert router.drain(10)


def test_a_handler_that_raises_is_counted_and_the_next_items_are_handled() -> None:
    handled: list[int] = []

    def handle(items: list[int]) -> None:
        handled.extend(items)
        raise RuntimeError

    router = Router(handle, lambda item: 1, max_items=10, max_bytes=1000)
    router.put(1, 1)
    assert router.drain()
    router.put(2, 1)
    assert router.drain()
    assert handled == [1, 2]


def test_many_threads_lose_nothing() -> None:
    handled: list[int] = []
    router = make(handled, max_items=5000)

    def work() -> None:
        for number in range(20_000):
            router.put(number, 1)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    router.drain()
    assert len(handled) + router.refused == 160_000


def test_reading_inside_a_handler_does_not_deadlock() -> None:
    handled: list[Any] = []
    router: Router

    def handle(items: list[Any]) -> None:
        handled.extend(items)
        assert router.drain(5)

    router = Router(handle, lambda item: 1, max_items=10, max_bytes=1000)
    router.put(1, 1)
    assert router.drain(5)
    assert handled == [1]


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no interval timers here")
def test_put_from_a_signal_handler_that_interrupts_put() -> None:
    handled: list[int] = []
    router = make(handled, max_items=10_000_000)
    interrupts = 0

    def tick(*_: Any) -> None:
        nonlocal interrupts
        interrupts += 1
        router.put(-1, 1)

    former = signal.signal(signal.SIGALRM, tick)
    signal.setitimer(signal.ITIMER_REAL, 0.0001, 0.0001)
    try:
        for number in range(100_000):
            router.put(number, 1)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)
    router.drain()
    assert len(handled) == 100_000 + interrupts


def test_a_router_at_rest_has_no_thread_and_starts_another_when_it_is_needed() -> None:
    handled: list[int] = []
    before = set(threading.enumerate())
    router = make(handled)
    for number in range(20):
        assert router.put(number, 1)
        wait_until(lambda: len(handled) == number + 1)  # noqa: B023 - called at once
        router.rest()
        wait_until(lambda: not set(threading.enumerate()) - before)
    assert handled == list(range(20))


def test_resting_while_others_put_leaves_nothing_waiting() -> None:
    handled: list[int] = []
    router = make(handled, max_items=10**6)
    threads = [threading.Thread(target=lambda: [router.put(number, 1) for number in range(3000)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        router.rest()
    wait_until(lambda: len(handled) == 12_000)  # by the router's own thread: nobody drains
    router.rest()


def test_resting_does_not_wait_for_a_handler_that_hangs() -> None:
    gate = threading.Event()
    router = Router(lambda items: gate.wait(30), lambda item: 1, max_items=10, max_bytes=10**6)
    router.put(1, 1)
    wait_until(lambda: router.waiting == 1 and not router._queue)
    router.rest()
    assert not gate.is_set()
    gate.set()
