import asyncio
import contextlib
import functools
import gc
import inspect
import sys
import threading
import traceback
import types
import weakref

import pytest

from tellmeter import counts
from tellmeter.instruments.wrapping import Block, Observation, kind_of, wrapped
from tests.support.decorated import Boom, Seen, Watcher, step


@pytest.fixture
def watcher():
    return Watcher()


def plain(number: int, *, text: str = "x") -> str:
    """Documented."""
    return text * number


async def coroutine(number: int) -> int:
    await asyncio.sleep(0)
    return number


def generator(number):
    yield from range(number)
    return "end"


async def async_generator(number):
    for each in range(number):
        await asyncio.sleep(0)
        yield each


KINDS = [
    (plain, "plain", lambda function: False),
    (coroutine, "coroutine", inspect.iscoroutinefunction),
    (generator, "generator", inspect.isgeneratorfunction),
    (async_generator, "async_generator", inspect.isasyncgenfunction),
]


@pytest.mark.parametrize(("function", "kind", "test"), KINDS)
def test_a_wrapped_function_is_what_it_was(function, kind, test, watcher):
    made = wrapped(wrapped(function, watcher.open), watcher.open)
    assert kind_of(made) == kind_of(function) == kind
    assert [
        check(made) for check in (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction)
    ] == [
        check(function)
        for check in (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction)
    ]
    assert test(made) == test(function)
    assert inspect.signature(made) == inspect.signature(function)
    assert (made.__name__, made.__doc__, made.__module__) == (function.__name__, function.__doc__, function.__module__)
    assert made.__wrapped__.__wrapped__ is function
    assert watcher.seen == []


def test_a_call_is_opened_with_its_arguments_and_ended_with_its_result(watcher):
    assert wrapped(plain, watcher.open)(2, text="ab") == "abab"
    assert watcher.seen == [("open", (2,), {"text": "ab"}), ("end", "success", "abab", None)]


def test_a_coroutine_is_opened_when_it_is_awaited(watcher):
    pending = wrapped(coroutine, watcher.open)(3)
    assert watcher.seen == []
    assert step(pending) == 3
    assert watcher.seen == [("open", (3,), {}), ("end", "success", 3, None)]


def test_a_generator_is_seen_to_its_end(watcher):
    made = wrapped(generator, watcher.open)(2)
    assert watcher.seen == []
    assert list(made) == [0, 1]
    assert watcher.seen == [("open", (2,), {}), ("item", 0), ("item", 1), ("end", "success", "end", None)]


def test_an_async_generator_is_seen_to_its_end(watcher):
    async def main():
        return [each async for each in wrapped(async_generator, watcher.open)(2)]

    assert asyncio.run(main(), debug=True) == [0, 1]
    assert watcher.seen == [("open", (2,), {}), ("item", 0), ("item", 1), ("end", "success", None, None)]


@pytest.mark.parametrize("error", [ValueError("x"), Boom(), TimeoutError()])
def test_what_is_raised_is_the_same_object_from_the_same_place(error, watcher):
    def fail():
        raise error

    with pytest.raises(type(error)) as caught:
        wrapped(fail, watcher.open)()
    assert caught.value is error
    assert traceback.extract_tb(error.__traceback__)[-1].name == "fail"
    assert error.__context__ is None
    assert watcher.seen[1] == ("end", "error", None, error)


@pytest.mark.parametrize("error", [asyncio.CancelledError, GeneratorExit, KeyboardInterrupt, SystemExit])
def test_what_ends_a_task_or_the_program_is_cancelled(error, watcher):
    def fail():
        raise error

    with pytest.raises(error):
        wrapped(fail, watcher.open)()
    assert watcher.outcomes() == ["cancelled"]


def test_a_cancelled_task_is_cancelled(watcher):
    async def wait():
        await asyncio.sleep(60)

    async def main():
        task = asyncio.create_task(wrapped(wait, watcher.open)())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await wrapped(wait, watcher.open)()

    asyncio.run(main())
    assert watcher.outcomes() == ["cancelled", "cancelled"]


def test_a_coroutine_dropped_half_way_is_cancelled(watcher):
    made = wrapped(coroutine, watcher.open)(1)
    made.send(None)
    del made
    gc.collect()
    assert watcher.outcomes() == ["cancelled"]


def closing(made):
    next(made)
    made.close()


def dropping(made):
    next(made)
    del made
    gc.collect()


def breaking(made):
    for _ in made:
        break


@pytest.mark.parametrize("leave", [closing, dropping, breaking])
def test_a_generator_left_early_is_cancelled(leave, watcher):
    wrap = wrapped(generator, watcher.open)
    leave(wrap(3))
    gc.collect()
    assert watcher.outcomes() == ["cancelled"]


def test_a_generator_that_accepts_its_end_is_cancelled(watcher):
    def accept():
        with contextlib.suppress(GeneratorExit):
            yield 1

    made = wrapped(accept, watcher.open)()
    next(made)
    made.close()
    assert watcher.seen[-1] == ("end", "cancelled", None, None)


def test_a_generator_never_begun_is_never_opened(watcher):
    wrapped(generator, watcher.open)(1).close()
    assert watcher.seen == []


def test_an_async_generator_left_early_is_cancelled_and_cleans_up(watcher):
    ended = []

    async def generate():
        try:
            yield 1
            yield 2
        finally:
            await asyncio.sleep(0)
            ended.append(True)

    make = wrapped(generate, watcher.open)

    async def main():
        async for _ in make():
            break
        gc.collect()
        await asyncio.sleep(0.01)
        assert ended == [True] and watcher.outcomes() == ["cancelled"]
        closed = make()
        await anext(closed)
        await closed.aclose()
        kept.append(make())
        await anext(kept[0])

    kept = []
    told = []
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda _, context: told.append(context))
    with contextlib.closing(loop):
        loop.run_until_complete(main())
        loop.run_until_complete(loop.shutdown_asyncgens())  # as asyncio.run() does: all at once
    assert ended == [True] * 3 and watcher.outcomes() == ["cancelled"] * 3
    assert told == []


def test_the_loop_knows_the_outer_async_generator_alone(watcher):
    async def main():
        made = wrapped(async_generator, watcher.open)(2)
        await anext(made)
        hooks = sys.get_asyncgen_hooks()
        assert hooks.firstiter is not None
        known = list(asyncio.get_running_loop()._asyncgens)
        assert known == [made]
        await made.aclose()

    asyncio.run(main())


def test_send_throw_and_the_value_returned_pass(watcher):
    def echo():
        got = None
        while got != "stop":
            try:
                got = yield got
            except KeyError as error:
                got = error
        return "returned"

    made = wrapped(echo, watcher.open)()
    assert next(made) is None
    thing = object()
    assert made.send(thing) is thing
    error = KeyError()
    assert made.throw(error) is error
    with pytest.raises(StopIteration) as stop:
        made.send("stop")
    assert stop.value.value == "returned"
    assert watcher.outcomes() == ["success"]


def test_nothing_keeps_an_item_alive(watcher):
    class Item:
        pass

    def generate():
        yield Item()

    made = wrapped(generate, lambda function, args, kwargs: None)()
    item = weakref.ref(next(made))
    assert item() is None
    made.close()


def test_a_generator_that_can_be_awaited_still_can(watcher):
    @types.coroutine
    def awaited():
        yield
        return 7

    made = wrapped(awaited, watcher.open)

    async def main():
        return await made()

    assert asyncio.run(main()) == 7
    assert watcher.outcomes() == ["success"]


class Things:
    pass


def things(wrap):
    class Made(Things):
        @wrap
        def method(self, number):
            return self, number

        @wrap
        @classmethod
        def over(cls, number):
            return cls, number

        @classmethod
        @wrap
        def under(cls, number):
            return cls, number

        @wrap
        @staticmethod
        def pure(number):
            return number

        @staticmethod
        @wrap
        def pure_too(number):
            return number

        @property
        @wrap
        def value(self):
            return self

    return Made


def test_methods_of_every_kind(watcher):
    made = things(lambda function: wrapped(function, watcher.open))
    one = made()
    assert one.method(1) == made.method(one, 1) == (one, 1)
    assert one.over(1) == made.over(1) == one.under(1) == made.under(1) == (made, 1)
    assert one.pure(1) == made.pure(1) == one.pure_too(1) == made.pure_too(1) == 1
    assert one.value is one
    assert isinstance(made.__dict__["over"], classmethod) and isinstance(made.__dict__["pure"], staticmethod)
    assert inspect.signature(made.over) == inspect.signature(made.under)
    assert watcher.outcomes() == ["success"] * 11


@pytest.mark.parametrize("given", [int, Things, 3, None, "text", property(plain)])
def test_what_is_no_function_is_refused_where_it_is_decorated(given, watcher):
    with pytest.raises(TypeError, match="only functions and methods"):
        wrapped(given, watcher.open)


@pytest.mark.parametrize("where", ["open", "item", "end"])
@pytest.mark.parametrize(
    "error", [ValueError("prompt"), SystemExit(), GeneratorExit(), asyncio.CancelledError(), Boom()]
)
def test_what_the_watching_raises_is_counted_and_goes_nowhere(where, error, monkeypatch):
    monkeypatch.setattr(counts, "_counters", {})
    watcher = Watcher(fails={where: error})
    assert wrapped(plain, watcher.open)(2) == "xx"
    assert step(wrapped(coroutine, watcher.open)(2)) == 2
    assert list(wrapped(generator, watcher.open)(2)) == [0, 1]

    async def main():
        return [each async for each in wrapped(async_generator, watcher.open)(2)]

    assert step(main()) == [0, 1]
    with pytest.raises(ZeroDivisionError) as caught:
        wrapped(lambda: 1 / 0, watcher.open)()
    assert caught.value.__context__ is None
    number = counts.snapshot()["guarded_errors"]["instrument"]
    assert number == {"open": 5, "item": 4, "end": 5}[where]


def test_a_keyboard_interrupt_is_the_users(watcher):
    watcher.fails = {"end": KeyboardInterrupt()}
    with pytest.raises(KeyboardInterrupt):
        wrapped(plain, watcher.open)(1)


def test_too_deep_a_recursion_is_the_functions(watcher):
    @functools.partial(wrapped, open_observation=watcher.open)
    def endless(number):
        return endless(number + 1)

    with pytest.raises(RecursionError):
        endless(0)
    assert set(watcher.outcomes()) <= {"error"}


def test_recursion_is_seen_call_by_call(watcher):
    @functools.partial(wrapped, open_observation=watcher.open)
    def factorial(number):
        return number * factorial(number - 1) if number else 1

    assert factorial(5) == 120
    assert [what[2] for what in watcher.seen if what[0] == "end"] == [1, 1, 2, 6, 24, 120]


def test_threads_see_their_own_calls():
    found = []

    class Keep(Observation):
        def __init__(self, number):
            self.number = number

        def end(self, outcome, result, error):
            found.append(self.number == result)

    call = wrapped(lambda number: number, lambda function, args, kwargs: Keep(*args))
    threads = [threading.Thread(target=lambda: [call(number) for number in range(500)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 4000


# ---------------------------------------------------------------------- blocks


class Numbered(Block):
    """Each entry has a number, and is known by it when it ends."""

    def __init__(self):
        self.opened = 0
        self.ended = []

    def _open(self, function, args, kwargs):
        self.opened += 1
        return self.Entry(self, self.opened)

    class Entry(Observation):
        def __init__(self, block, number):
            self.block = block
            self.number = number

        def end(self, outcome, result, error):
            self.block.ended.append((self.number, outcome))


def test_a_block_is_a_decorator_too():
    block = Numbered()
    with block as entered:
        assert entered is block
        assert block(plain)(1) == "x"
    assert block.ended == [(2, "success"), (1, "success")]


def test_a_block_ends_as_what_is_in_it():
    block = Numbered()
    for error in (ValueError, GeneratorExit, asyncio.CancelledError):
        with pytest.raises(error), block:
            raise error
    assert [outcome for _, outcome in block.ended] == ["error", "cancelled", "cancelled"]


def test_a_block_is_entered_in_itself_and_by_many_tasks_and_threads():
    block = Numbered()

    async def work(first, second):
        async with block:
            mine = block.opened
            await first.wait()
        assert (mine, "success") in block.ended
        second.set()

    async def main():
        early, late = asyncio.Event(), asyncio.Event()
        one = asyncio.create_task(work(early, late))
        await asyncio.sleep(0)
        two = asyncio.create_task(work(late, asyncio.Event()))
        await asyncio.sleep(0)
        early.set()
        await asyncio.gather(one, two)

    asyncio.run(main())
    assert block.ended == [(1, "success"), (2, "success")]  # in the order of the tasks, not as a pile
    with block, block:
        pass
    assert [number for number, _ in block.ended[2:]] == [4, 3]


def test_a_block_may_be_left_in_another_thread():
    block = Numbered()
    thread = threading.Thread(target=block.__enter__)
    thread.start()
    thread.join()
    block.__exit__(None, None, None)
    block.__exit__(None, None, None)  # once too often
    assert block.ended == [(1, "success")]


def test_a_block_that_cannot_be_opened_is_counted(monkeypatch):
    monkeypatch.setattr(counts, "_counters", {})
    with Block():
        pass
    assert counts.snapshot() == {"guarded_errors": {"instrument": 1}}


def test_an_observation_needs_no_item():
    assert Seen(Watcher()).item is not None
    assert Observation.item(None, 1) is None
