from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from typing import Any

import pytest

from tellmeter.client.providers.threads import Worker

NAME = "tellmeter-test-worker"


def gone() -> bool:
    """Whether the threads end, within a while."""
    deadline = time.monotonic() + 10
    while any(thread.name == NAME for thread in threading.enumerate()):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def test_one_thing_after_the_other_in_one_thread_and_its_makers_context() -> None:
    where = contextvars.ContextVar("where", default="nowhere")
    seen: list[Any] = []

    def look() -> int:
        seen.append((where.get(), threading.current_thread().name, threading.current_thread().daemon))
        return len(seen)

    async def main() -> list[int]:
        where.set("here")
        worker = Worker(NAME)
        where.set("there")
        both = [worker.do(look), worker.do(look)]
        worker.end(lambda: seen.append("last"))
        return [await one for one in both]

    assert asyncio.run(main()) == [1, 2]
    assert gone() and seen == [("here", NAME, True)] * 2 + ["last"]


@pytest.mark.parametrize("error", [ValueError("x"), SystemExit(3)])
def test_what_it_raises_is_the_callers(error: BaseException) -> None:
    def fail() -> None:
        raise error

    async def main() -> BaseException:
        worker = Worker(NAME)
        try:
            await worker.do(fail)
        except BaseException as caught:
            return caught
        finally:
            worker.end(fail)
        raise AssertionError

    assert asyncio.run(main()) is error
    assert gone()


def test_who_waits_may_go_away() -> None:
    go, done = threading.Event(), threading.Event()

    def work() -> None:
        go.wait(30)
        done.set()

    async def main() -> None:
        worker = Worker(NAME)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(worker.do(work), 0.01)
        worker.end()

    asyncio.run(main())  # the loop is closed, and the work goes on
    assert not done.is_set()
    go.set()
    assert done.wait(10) and gone()
