from __future__ import annotations

import asyncio
import gc
import inspect
import weakref
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from tellmeter.instruments.steps import stepwise


class Inside:
    def __init__(self) -> None:
        self.log: list[str] = ["enter"]  # whoever opened the call entered the first step

    def enter(self) -> None:
        self.log.append("enter")

    def leave(self) -> None:
        self.log.append("leave")


def echo(log: list[str]) -> Iterator[Any]:
    got: Any = None
    while got != "end":
        log.append("step")
        try:
            got = yield got
        except LookupError as error:
            got = error
    return "returned"


async def async_echo(log: list[str]) -> AsyncIterator[Any]:
    got: Any = None
    while got != "end":
        log.append("step")
        await asyncio.sleep(0)
        try:
            got = yield got
        except LookupError as error:
            got = error


def test_each_step_is_inside_and_what_is_between_is_not() -> None:
    inside = Inside()
    made = stepwise(echo, "generator", lambda: inside)(inside.log)
    next(made)
    inside.log.append("between")
    error = LookupError()
    assert made.send("sent") == "sent" and made.throw(error) is error
    with pytest.raises(StopIteration) as stop:
        made.send("end")
    assert stop.value.value == "returned"
    step = ["enter", "step", "leave"]
    assert inside.log == [*step, "between", *step, *step, "enter", "leave"]


def test_each_step_of_an_async_generator_too() -> None:
    inside = Inside()

    async def main() -> None:
        made = stepwise(async_echo, "async_generator", lambda: inside)(inside.log)
        await made.asend(None)
        inside.log.append("between")
        error = LookupError()
        assert await made.asend("sent") == "sent" and await made.athrow(error) is error
        with pytest.raises(StopAsyncIteration):
            await made.asend("end")

    asyncio.run(main())
    step = ["enter", "step", "leave"]
    assert inside.log == [*step, "between", *step, *step, "enter", "leave"]


@pytest.mark.parametrize("inside", [None, Inside()])
def test_what_is_closed_closes_the_generator_inside(inside: Any) -> None:
    closed = []

    def own() -> Iterator[int]:
        try:
            yield 1
        finally:
            closed.append("sync")

    async def own_async() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await asyncio.sleep(0)
            closed.append("async")

    made = stepwise(own, "generator", lambda: inside)()
    next(made)
    made.close()

    async def main() -> None:
        made = stepwise(own_async, "async_generator", lambda: inside)()
        await anext(made)
        await made.aclose()

    asyncio.run(main())
    assert closed == ["sync", "async"]
    assert inside is None or inside.log[-1] == "leave"


def test_an_exception_inside_goes_on() -> None:
    error = ValueError()

    def own() -> Iterator[int]:
        yield 1
        raise error

    made = stepwise(own, "generator", lambda: None)()
    next(made)
    with pytest.raises(ValueError) as caught:
        next(made)
    assert caught.value is error and error.__context__ is None


def test_no_item_is_kept_alive() -> None:
    class Item:
        pass

    def own() -> Iterator[Item]:
        yield Item()
        yield Item()

    made = stepwise(own, "generator", lambda: None)()
    gc.disable()
    try:
        reference = weakref.ref(next(made))
        assert reference() is None
    finally:
        gc.enable()


def test_it_stays_what_it_was() -> None:
    for function, kind in ((echo, "generator"), (async_echo, "async_generator")):
        made = stepwise(function, kind, lambda: None)
        assert inspect.signature(made) == inspect.signature(function) and made.__name__ == function.__name__
        assert inspect.isgeneratorfunction(made) is (kind == "generator")
        assert inspect.isasyncgenfunction(made) is (kind == "async_generator")
