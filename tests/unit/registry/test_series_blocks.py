import asyncio
import math

import pytest

from tellmeter import counts
from tellmeter.registry import series as series_module
from tellmeter.registry.registry import MetricsRegistry
from tellmeter.registry.series import Activity, Timer


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        monkeypatch.setattr(series_module, "clock", lambda: self.now)


def counter():
    return MetricsRegistry().counter("c", "A counter", labels=["a"]).labels("x")


def gauge():
    return MetricsRegistry().gauge("g", "A gauge", labels=["a"]).labels("x")


def histogram(buckets=(1.0, 2.0, 5.0)):
    return MetricsRegistry().histogram("h", "A histogram", labels=["a"], buckets=buckets).labels("x")


def test_exemplars_are_the_last_of_a_counter_and_of_each_bucket():
    total, spread = counter(), histogram()
    for number in range(3):
        total.inc(number, {"trace_id": str(number)})
        spread.observe(number / 2, {"trace_id": str(number)})
        spread.observe(100 + number, {"trace_id": str(number)})
    assert (total.exemplars.labels, total.exemplars.value) == ({"trace_id": "2"}, 2.0)
    found = {bucket: (one.labels["trace_id"], one.value) for bucket, one in spread.exemplars.items()}
    assert found == {0: ("2", 1.0), 3: ("2", 102.0)}


def test_an_exemplar_that_cannot_be_does_not_stop_the_recording():
    total, spread = counter(), histogram()
    total.inc(1, {"not a name": "x"})
    spread.observe(1, "trace_id")
    assert (total.read(), total.exemplars, spread.read()[1], spread.exemplars) == (1, None, 1, None)
    assert counts.snapshot()["label_errors"] == {"c:exemplar": 1, "h:exemplar": 1}


@pytest.mark.parametrize("value", [-1, math.nan, "1", None])
def test_a_value_that_is_refused_leaves_no_exemplar(value):
    total = counter()
    total.inc(value, {"trace_id": "x"})
    assert total.exemplars is None
    if value != -1:
        spread = histogram()
        spread.observe(value, {"trace_id": "x"})
        assert not spread.exemplars


def test_a_timer_records_the_seconds_of_a_block_whatever_ends_it(monkeypatch):
    clock = Clock(monkeypatch)
    series = histogram()

    def block(seconds, error=None):
        with series.time():
            clock.now += seconds
            if error:
                raise error

    block(0.5)
    for error in (ValueError("prompt"), KeyboardInterrupt(), GeneratorExit()):
        with pytest.raises(type(error)):
            block(1.5, error)
    assert series.read() == ([1, 3, 0, 0], 5.0, 0.5, 1.5)


def test_a_timer_and_an_activity_work_with_async_with(monkeypatch):
    clock = Clock(monkeypatch)
    spread, level = histogram(), gauge()

    async def block(seconds, error=None):
        async with Timer(spread), Activity(level):
            inside.append(level.read())
            clock.now += seconds
            if error:
                raise error

    inside = []
    asyncio.run(block(1.5))
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(block(3, asyncio.CancelledError()))
    assert inside == [1, 1] and level.read() == 0
    assert spread.read()[:2] == ([0, 1, 1, 0], 4.5)


def test_blocks_may_be_nested_and_overlap(monkeypatch):
    clock = Clock(monkeypatch)
    spread, level = histogram(), gauge()
    first, second = Timer(spread), Timer(spread)
    with Activity(level), first:
        clock.now += 1
        with Activity(level), second:
            assert level.read() == 2
            clock.now += 1.5
    assert level.read() == 0
    assert spread.read()[:2] == ([0, 1, 1, 0], 4.0)
