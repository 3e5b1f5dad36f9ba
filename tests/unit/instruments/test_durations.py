import asyncio

import pytest

from tellmeter.instruments import durations
from tellmeter.instruments.durations import measure_latency, time_operation, track_duration


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """A clock that is a second further each time."""
    ticks = iter(range(1000))
    monkeypatch.setattr(durations, "clock", lambda: float(next(ticks)))
    return lambda: next(ticks)


def seconds(registry, name, labels=None):
    stats = registry.get_metric_stats(name, labels)
    return stats["count"], stats["sum"]


def test_each_call_is_timed_whatever_ends_it(registry):
    @track_duration("bedrock_duration", labels={"model_id": "claude-3"}, registry=registry)
    def invoke(fail):
        return 1 / fail

    assert invoke(1) == 1
    with pytest.raises(ZeroDivisionError):
        invoke(0)
    assert seconds(registry, "bedrock_duration", {"model_id": "claude-3"}) == (2, 2)


def test_an_unknown_name_gets_its_unit(registry):
    track_duration("api_call_duration", labels={"service": "external"}, registry=registry)(int.__call__)(1)
    assert b"api_call_duration_seconds_count" in registry.text()


def test_a_generator_lasts_until_it_is_exhausted(registry, clock):
    @measure_latency("g_seconds", registry=registry)
    def generate():
        yield 1
        yield 2

    @measure_latency("a_seconds", registry=registry)
    async def generate_slowly():
        yield 1

    made = generate()
    clock()
    next(made)
    clock()
    list(made)
    assert seconds(registry, "g_seconds") == (1, 2)

    async def main():
        async for _ in generate_slowly():
            clock()

    asyncio.run(main())
    assert seconds(registry, "a_seconds") == (1, 2)


def test_latency_has_a_name_and_the_buckets_that_were_given(registry):
    @measure_latency(buckets=[1, 2], registry=registry)
    def work():
        return 1

    assert work() == 1
    [family] = registry.families()
    assert family.name.endswith("test_durations_work_latency_seconds")
    assert family.bounds == (1.0, 2.0)


def test_latency_without_parentheses(own_process):
    @measure_latency
    def work():
        return 1

    assert work() == 1
    [family] = own_process._process_registry.families()
    assert family.name.endswith("work_latency_seconds")


def test_a_block_is_timed_with_and_async_with(registry):
    with time_operation("t_seconds", labels={"query_type": "select"}, registry=registry):
        pass

    async def main():
        with pytest.raises(ValueError):
            async with time_operation("t_seconds", labels={"query_type": "select"}, registry=registry):
                raise ValueError

    asyncio.run(main())
    assert seconds(registry, "t_seconds", {"query_type": "select"}) == (2, 2)
    assert time_operation("t_seconds", {"query_type": "insert"}, registry=registry)(len)("abc") == 3


def test_labels_of_the_call(registry):
    @track_duration("t_seconds", label_extractor=lambda table: {"table": table}, registry=registry)
    def query(table):
        return table

    assert [query("users"), query("users"), query("orders")] == ["users", "users", "orders"]
    assert seconds(registry, "t_seconds", {"table": "users"}) == (2, 2)
