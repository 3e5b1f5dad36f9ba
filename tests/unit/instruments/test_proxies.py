import asyncio
import copy
import functools
import inspect
import operator
import pickle
from unittest.mock import AsyncMock

import pytest

from tellmeter.instruments.wrapping import wrapped
from tests.support.decorated import Watcher


@pytest.fixture
def watcher():
    return Watcher()


class Callable:
    state = 0

    def __call__(self, number: int) -> int:
        self.state += 1
        return number


class Async:
    async def __call__(self, number):
        return number


class Generating:
    def __call__(self, number):
        yield number


def function(number, *more):
    return (number, *more)


async def coroutine(number):
    return number


def test_a_partial_stays_one(watcher):
    bare = functools.partial(function, 1)
    made = wrapped(bare, watcher.open)
    assert made(2) == (1, 2)
    assert isinstance(made, functools.partial) and made.func is function
    assert inspect.signature(made) == inspect.signature(bare)
    assert watcher.seen == [("open", (2,), {}), ("end", "success", (1, 2), None)]


@pytest.mark.parametrize(
    "bare",
    [functools.partial(coroutine, 3), functools.partial(Async(), 3), functools.partial(AsyncMock(return_value=3), 1)],
)
def test_a_partial_of_a_coroutine_function_is_one(bare, watcher):
    made = wrapped(wrapped(bare, watcher.open), watcher.open)
    assert inspect.iscoroutinefunction(made) == inspect.iscoroutinefunction(bare)
    assert asyncio.run(made()) == 3
    assert watcher.outcomes() == ["success"] * 2


def test_an_object_keeps_its_state_and_its_class(watcher):
    bare = Callable()
    made = wrapped(bare, watcher.open)
    assert made(5) == 5
    assert made.state == bare.state == 1
    assert isinstance(made, Callable)
    assert inspect.signature(made) == inspect.signature(bare)


def test_an_object_whose_call_is_a_coroutine_function(watcher):
    made = wrapped(wrapped(Async(), watcher.open), watcher.open)
    assert inspect.iscoroutinefunction(made.__call__)
    assert asyncio.run(made(4)) == 4
    assert watcher.outcomes() == ["success"] * 2
    assert list(wrapped(Generating(), watcher.open)(1)) == [1]


@pytest.mark.filterwarnings("ignore:functools.partial will be a method:FutureWarning")  # 3.13, of a bare one too
def test_what_is_no_method_in_a_class_does_not_become_one(watcher):
    class Holder:
        partial = wrapped(functools.partial(function, 1), watcher.open)
        thing = wrapped(Callable(), watcher.open)
        builtin = wrapped(len, watcher.open)
        bound = wrapped("text".upper, watcher.open)

    held = Holder()
    assert (held.partial(2), held.thing(3), held.builtin("four"), held.bound()) == ((1, 2), 3, 4, "TEXT")


def test_a_cached_method_keeps_its_cache(watcher):
    class Holder:
        @functools.partial(wrapped, open_observation=watcher.open)
        @functools.lru_cache  # noqa: B019 - it is what is tested
        def method(self, number):
            return number

    held = Holder()
    assert held.method(1) == held.method(1) == 1
    assert Holder.method(held, 1) == 1
    assert Holder.method.cache_info().hits == held.method.cache_info().hits == 2
    assert [args for what, args, _ in watcher.seen[::2]] == [(held, 1)] * 3


def test_bound_methods_and_c_functions(watcher):
    class Thing:
        def method(self, number):
            return self, number

    thing = Thing()
    assert wrapped(thing.method, watcher.open)(1) == (thing, 1)
    assert wrapped(operator.add, watcher.open)(1, 2) == 3
    assert wrapped(str.upper, watcher.open)("a") == "A"


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda made: pickle.loads(pickle.dumps(made))])
def test_a_copy_is_one_of_what_was_given(again, watcher):
    made = again(wrapped(functools.partial(operator.add, 1), watcher.open))
    assert type(made) is functools.partial and made(2) == 3
    assert watcher.seen == []
