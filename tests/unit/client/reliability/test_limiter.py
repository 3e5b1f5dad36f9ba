import asyncio
import gc
import os
import random
import threading
from collections import OrderedDict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tellmeter.client.reliability.limiter import Limiter
from tellmeter.errors import ConfigError
from tests.support.metrics import in_child


def all_places_are_free(limiter, limit):
    """None is lost, and none is there twice."""

    async def take():
        inside = asyncio.Event()
        leave = asyncio.Event()

        async def hold():
            async with limiter:
                if limiter.in_use == limit:
                    inside.set()
                await leave.wait()

        held = [asyncio.create_task(hold()) for _ in range(limit + 1)]
        await asyncio.wait_for(inside.wait(), 30)
        await settled()
        assert (limiter.in_use, limiter.waiting) == (limit, 1)
        leave.set()
        await asyncio.gather(*held)

    assert (limiter.in_use, limiter.waiting) == (0, 0)
    asyncio.run(take())
    assert (limiter.in_use, limiter.waiting) == (0, 0)


async def settled():
    """Whatever can go on without anybody's help has gone on: a wake-up takes a few turns of the loop."""
    for _ in range(6):
        await asyncio.sleep(0)


class Guest:
    """A task that goes into the block, and leaves it when it is told to."""

    def __init__(self, limiter, entered):
        self.leave = asyncio.Event()
        self.task = asyncio.create_task(self.run(limiter, entered))

    async def run(self, limiter, entered):
        async with limiter:
            entered.append(self)
            await self.leave.wait()


steps = st.lists(
    st.tuples(st.sampled_from(["come", "come", "leave", "cancel", "leave and cancel", "turn"]), st.integers(0, 99)),
    max_size=60,
)


@given(st.integers(1, 4), steps)
@settings(max_examples=200, deadline=None)
def test_first_come_first_served_whoever_gives_up(limit, steps):
    limiter = Limiter(limit)

    async def live():
        entered, here = [], []  # those who came, in order, until they leave or give up

        async def is_as_it_should_be():
            await settled()
            inside, outside = here[:limit], here[limit:]
            assert set(map(id, inside)) <= set(map(id, entered))
            assert not set(map(id, outside)) & set(map(id, entered))
            assert (limiter.in_use, limiter.waiting) == (len(inside), len(outside))

        for step, which in steps:
            if step == "come":
                here.append(Guest(limiter, entered))
                await settled()
            elif step == "turn":
                await is_as_it_should_be()
            elif here:
                await is_as_it_should_be()
                gone = [here.pop(which % min(len(here), limit) if "leave" in step else which % len(here))]
                if step == "leave and cancel" and len(here) >= limit:
                    gone.append(here.pop(limit - 1))  # who has the place at once, before it could know
                gone[0].leave.set() if "leave" in step else gone[0].task.cancel()
                if len(gone) > 1:
                    await asyncio.sleep(0)
                    gone[1].task.cancel()
                await asyncio.gather(*(guest.task for guest in gone), return_exceptions=True)
        await is_as_it_should_be()
        for guest in here:
            guest.leave.set()
        await asyncio.gather(*(guest.task for guest in here))

    asyncio.run(live())
    all_places_are_free(limiter, limit)


def test_who_waits_is_let_in_in_the_order_in_which_they_came():
    limiter, order = Limiter(1), []

    async def guest(number):
        async with limiter:
            order.append(number)
            await asyncio.sleep(0)

    async def live():
        await asyncio.gather(*map(guest, range(6)))

    asyncio.run(live())
    assert order == list(range(6))


@pytest.mark.parametrize("limit", [1, 3])
def test_cancelled_at_any_moment_in_several_loops_at_once(limit):
    limiter = Limiter(limit)
    inside, most, done = [], [], []

    async def work(luck):
        try:
            async with asyncio.timeout(luck.choice([None, 0, 0.0005, 0.002])):
                async with limiter:
                    inside.append(None)
                    most.append(len(inside))
                    try:
                        await asyncio.sleep(luck.choice([0, 0, 0.0003]))
                    finally:
                        inside.pop()
                    done.append(None)
        except TimeoutError:
            pass

    async def crowd(seed):
        luck = random.Random(seed)
        for _ in range(8):
            tasks = [asyncio.create_task(work(luck)) for _ in range(25)]
            for task in luck.sample(tasks, 8):
                await asyncio.sleep(0)
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    threads = [threading.Thread(target=asyncio.run, args=(crowd(seed),)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive()
    assert max(most) <= limit and done
    all_places_are_free(limiter, limit)


def test_where_there_is_room_nothing_is_asked_of_an_event_loop():
    limiter = Limiter(2)
    assert next_step(limiter.__aenter__()) == next_step(limiter.__aenter__()) == "done"
    assert limiter.in_use == 2
    with pytest.raises(RuntimeError, match="no running event loop"):
        next_step(limiter.__aenter__())
    assert next_step(limiter.__aexit__(None, None, None)) == "done"
    assert (limiter.in_use, limiter.waiting) == (1, 0)


def next_step(coroutine):
    try:
        return coroutine.send(None)
    except StopIteration:
        return "done"


class Loop:
    """An event loop run by hand, which may be closed whatever waits in it."""

    def __init__(self):
        self.loop = asyncio.new_event_loop()
        self.loop.set_exception_handler(lambda loop, context: None)  # "Task was destroyed but it is pending!"

    def start(self, limiter, then=None):
        async def hold():
            async with limiter:
                if then is not None:
                    await then.wait()
                return "was in"

        task = self.loop.create_task(hold())
        self.turn()
        return task

    def turn(self):
        self.loop.run_until_complete(settled())


@pytest.fixture
def dead():
    return Loop()


@pytest.fixture
def alive():
    one = Loop()
    yield one
    one.loop.close()


def test_a_loop_that_is_closed_while_one_waits_in_it_takes_no_place(dead, alive):
    limiter = Limiter(1)
    leave = asyncio.Event()
    holder = alive.start(limiter, leave)
    waiting = dead.start(limiter)
    leave_too = asyncio.Event()
    behind = alive.start(limiter, leave_too)
    assert limiter.waiting == 2
    dead.loop.close()
    leave.set()
    alive.turn()
    assert holder.result() == "was in" and not waiting.done() and limiter.in_use == 1
    del waiting
    gc.collect()  # the coroutine is closed, and leaves nothing that it never had
    assert (limiter.in_use, limiter.waiting) == (1, 0)
    leave_too.set()
    alive.turn()
    assert behind.result() == "was in"
    all_places_are_free(limiter, 1)


def test_a_loop_that_is_closed_after_a_place_was_given_to_one_in_it_gives_it_back(dead, alive):
    limiter = Limiter(1)
    leave = asyncio.Event()
    holder = alive.start(limiter, leave)
    waiting = dead.start(limiter)
    leave.set()
    alive.turn()  # the other loop does not run: it never hears of its place
    assert holder.done() and limiter.in_use == 1
    behind = alive.start(limiter)
    dead.loop.close()
    del waiting, dead
    gc.collect()
    alive.turn()
    assert behind.result() == "was in"
    all_places_are_free(limiter, 1)


def test_a_loop_that_is_closed_while_one_is_inside_gives_its_place_back(dead):
    limiter = Limiter(1)
    inside = dead.start(limiter, asyncio.Event())
    assert limiter.in_use == 1
    dead.loop.close()
    del inside
    gc.collect()
    all_places_are_free(limiter, 1)


def test_a_block_that_ends_in_the_midst_of_another_step_loses_no_place(monkeypatch):
    """The garbage collector may close a coroutine that is inside anywhere; here while a waiter is put in the queue."""
    limiter = Limiter(1)
    assert next_step(limiter.__aenter__()) == "done"

    class Queue(OrderedDict):
        def __setitem__(self, waiter, value):
            if inside:
                next_step(inside.pop().__aexit__(None, None, None))
            super().__setitem__(waiter, value)

    inside = [limiter]
    limiter._waiters = Queue()

    async def enter():
        async with limiter:
            assert limiter.in_use == 1

    asyncio.run(enter())
    all_places_are_free(limiter, 1)


def test_an_error_inside_leaves_the_place_and_goes_on():
    limiter = Limiter(1)

    async def fails():
        async with limiter:
            raise ValueError("theirs")

    with pytest.raises(ValueError, match="theirs"):
        asyncio.run(fails())
    all_places_are_free(limiter, 1)


@pytest.mark.parametrize("limit", [0, -1, 1.5, True, "4", 100_001])
def test_what_is_no_limit_is_refused(limit):
    with pytest.raises(ConfigError, match="from 1 to"):
        Limiter(limit)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_has_all_places_and_never_more():
    assert in_child(
        """
        import asyncio, json, os
        from tellmeter.client.reliability.limiter import Limiter

        limiter = Limiter(2)
        reading, writing = os.pipe()
        seen = []

        def step(coroutine):
            try:
                coroutine.send(None)
            except StopIteration:
                pass

        async def waits():
            async with limiter:
                pass

        async def program():
            step(limiter.__aenter__())
            step(limiter.__aenter__())
            waiting = asyncio.create_task(waits())
            await asyncio.sleep(0)
            child = os.fork()
            if not child:
                seen.append([limiter.in_use, limiter.waiting])
                step(limiter.__aexit__(None, None, None))  # the parent's block, on the child's way out of it
                seen.append([limiter.in_use, limiter.waiting])
                step(limiter.__aenter__())
                step(limiter.__aenter__())
                seen.append([limiter.in_use, limiter.waiting])
                os.write(writing, json.dumps(seen).encode())
                os._exit(0)
            os.waitpid(child, 0)
            seen.append([limiter.in_use, limiter.waiting])
            step(limiter.__aexit__(None, None, None))
            await waiting
            seen.append([limiter.in_use, limiter.waiting])

        asyncio.run(program())
        print(json.dumps([json.loads(os.read(reading, 1000)), seen]))
        """
    ) == [[[0, 0], [0, 0], [2, 0]], [[2, 1], [1, 0]]]
