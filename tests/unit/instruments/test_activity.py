import asyncio

import pytest

from tellmeter.instruments.activity import monitor_resource, track_active
from tests.support.metrics import values_of


def test_a_gauge_is_higher_during_a_call(registry):
    @track_active("active_requests", labels={"endpoint": "/query"}, registry=registry)
    def work(depth):
        if depth:
            work(depth - 1)
        seen.append(values_of(registry, "active_requests")["endpoint=/query"])
        return 1 / depth

    seen = []
    with pytest.raises(ZeroDivisionError):
        work(2)
    assert seen == [3]
    assert values_of(registry, "active_requests") == {"endpoint=/query": 0}


def test_a_generator_is_active_while_it_runs(registry):
    @track_active("active_streams", registry=registry)
    async def stream():
        yield values_of(registry, "active_streams")

    async def main():
        made = stream()
        assert registry.families() == []
        assert await anext(made) == {"": 1}
        await made.aclose()

    asyncio.run(main())
    assert values_of(registry, "active_streams") == {"": 0}


def test_the_function_gives_the_name(own_process):
    @track_active
    def work():
        return 1

    assert work() == 1
    [family] = own_process._process_registry.families()
    assert family.name.endswith("test_activity_work_active")


def test_a_resource_is_counted_and_timed(registry, own_counts):
    @monitor_resource("database_connection", track_usage=True, registry=registry)
    async def query():
        return values_of(registry, "resource_active")

    async def main():
        async with monitor_resource("database_connection", registry=registry):
            return await query()

    assert asyncio.run(main()) == {"resource=database_connection": 2}
    assert values_of(registry, "resource_active") == {"resource=database_connection": 0}
    assert registry.get_metric_stats("resource_usage_seconds")["count"] == 1
    assert own_counts() == {}


@pytest.mark.parametrize(
    ("count", "usage", "names"),
    [(True, False, {"pool_active"}), (False, True, {"pool_usage_seconds"}), (False, False, set())],
)
def test_a_resource_may_have_other_metrics(count, usage, names, registry):
    call = monitor_resource("db", "pool", count, usage, label_extractor=lambda: {"host": "a"}, registry=registry)(
        lambda: 3
    )
    assert call() == 3
    assert {family.name for family in registry.families()} == names
    assert {family.definition.labels for family in registry.families()} <= {("resource", "host")}
