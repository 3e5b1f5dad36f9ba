import asyncio

import pytest

from tellmeter.client.reliability.timeouts import Deadline, Timeouts
from tellmeter.errors import ConfigError, LLMTimeoutError

pytestmark = pytest.mark.asyncio


async def waited(deadline, name="first_token", seconds=None):
    """The error of a block that waits for ever."""
    with pytest.raises(LLMTimeoutError) as caught:
        async with deadline.limit(name, seconds):
            await asyncio.Event().wait()
    assert asyncio.current_task().cancelling() == 0
    return caught.value


async def test_a_limit_says_which_it_was():
    error = await waited(Deadline.after(None), "between_chunks", 0.01)
    assert (error.limit, error.category, error.is_retryable) == ("between_chunks", "timeout", True)
    assert "between_chunks" in str(error) and isinstance(error, TimeoutError) and error.__cause__ is None
    error = await waited(Deadline.after(0.01), "first_token", 60.0)
    assert (error.limit, error.is_retryable) == ("total", False)
    assert (await waited(Deadline.after(0.01))).limit == "total"
    assert (await waited(Deadline.after(60.0), "first_token", 0.01)).limit == "first_token"


async def test_a_deadline_that_is_over():
    deadline = Deadline.after(0.001)
    await asyncio.sleep(0.01)
    assert deadline.left() < 0
    assert (await waited(deadline, "first_token", 60.0)).limit == "total"


async def test_without_limits_nothing_is_cancelled():
    deadline = Deadline.after(None)
    assert deadline.left() is None
    async with deadline.limit("first_token"):
        await asyncio.sleep(0.01)


async def test_a_block_in_time():
    async with Deadline.after(60.0).limit("first_token", 60.0):
        await asyncio.sleep(0)
    assert 0 < Deadline.after(60.0).left() <= 60


@pytest.mark.parametrize("error", [TimeoutError("mine"), LLMTimeoutError("mine"), ValueError("mine")])
async def test_what_the_block_raises_is_its_own(error):
    with pytest.raises(type(error), match="mine") as caught:
        async with Deadline.after(60.0).limit("first_token", 60.0):
            raise error
    assert caught.value is error


async def test_the_inner_limit_is_told():
    deadline = Deadline.after(60.0)
    with pytest.raises(LLMTimeoutError) as caught:
        async with deadline.limit("total"), deadline.limit("first_token", 0.01):
            await asyncio.Event().wait()
    assert caught.value.limit == "first_token"


async def test_who_cancels_the_task_is_heard():
    entered = asyncio.Event()

    async def work():
        async with Deadline.after(60.0).limit("first_token", 60.0):
            entered.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("name", ["connect", "first_token", "between_chunks", "total"])
@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), 1e9, "5", True])
async def test_a_limit_that_cannot_be(name, value):
    with pytest.raises(ConfigError, match=f"Timeouts.{name}"):
        Timeouts(**{name: value})


async def test_none_is_no_limit():
    assert Timeouts(connect=None, first_token=None, between_chunks=None, total=None).total is None
