"""Whatever is done to it, a metered stream does what the bare one does, and is recorded once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tellmeter import meter_stream
from tests.support.decorated import step
from tests.support.hostile import VALUES
from tests.support.metered import own_collector, records
from tests.unit.instruments.test_usage import HOSTILE
from tests.unit.instruments.test_usage import VALUES as ITEMS
from tests.unit.instruments.test_wrapping_property import ASYNC, SYNC, Body, acts, endings, plans, played

STATUSES = {"success", "error", "timeout", "cancelled", "closed_early", "abandoned"}
EVIL = [*HOSTILE, *(getattr(one, "values", one)[0] for one in VALUES)]
hostile = st.integers(0, len(EVIL) - 1).map(lambda number: EVIL[number])  # sampled_from() would look at them


@pytest.fixture(autouse=True, scope="module")
def quiet() -> Iterator[None]:
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


def recorded_once(play: Any) -> Any:
    """What it gives, which leaves one record."""
    with pytest.MonkeyPatch.context() as patch, own_collector(patch) as collector:
        found = play()
        (record,) = records(collector)
        assert record.status in STATUSES and record.method == "stream"
        return found


@given(plans, endings, acts)
def test_generators(plan: Any, ending: Any, acts: Any) -> None:
    bare, other = Body(plan, ending), Body(plan, ending)
    expected = played(bare.generator(), acts, SYNC, lambda value: value)
    made = recorded_once(lambda: played(meter_stream(other.generator(), model="m"), acts, SYNC, lambda value: value))
    assert made == expected and other.seen == bare.seen


# One that refused to be closed says so again when it is collected, bare or not.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@given(plans, endings, acts)
def test_async_generators(plan: Any, ending: Any, acts: Any) -> None:
    bare, other = Body(plan, ending), Body(plan, ending)
    expected = played(bare.async_generator(), acts, ASYNC, step)
    made = recorded_once(lambda: played(meter_stream(other.async_generator(), model="m"), acts, ASYNC, step))
    assert made == expected and other.seen == bare.seen


@given(st.lists(ITEMS | hostile, max_size=5), st.none() | st.just("choices.0.text") | st.just(lambda item: item))
def test_whatever_the_items_are_they_come_back(items: list[Any], text: Any) -> None:
    async def one_by_one() -> Any:
        for item in items:
            yield item

    async def read() -> list[Any]:
        return [item async for item in meter_stream(one_by_one(), text=text)]

    def called() -> list[Any]:
        found: list[Any] = []
        with meter_stream(found.append, text=text) as on_item:
            for item in items:
                on_item(item)
        return found

    for play in (lambda: list(meter_stream(items, text=text)), lambda: asyncio.run(read()), called):
        found = recorded_once(play)
        assert len(found) == len(items)
        assert all(one is other for one, other in zip(found, items, strict=True))
