from tellmeter import CollectorStats, MetricsRegistry, SinkStats
from tellmeter.pipeline.account import Account


def value(registry, name, **labels):
    return registry.get_metric_stats(name, labels)["sum"]


def stats(delivered, lost, queued, spooled=0, failures=None):
    sink = SinkStats(
        accepted=delivered + lost + queued + spooled,
        delivered=delivered,
        dropped={"lane_full": lost},
        queued=queued,
        spooled=spooled,
        failures=failures or {},
    )
    return CollectorStats(dropped={"queue_full": 1}, sinks={"S": sink})


def test_the_metrics_say_what_the_ledger_says():
    registry = MetricsRegistry()
    account = Account(registry)
    account.show(stats(5, 2, 3))
    account.show(stats(9, 2, 0))
    assert value(registry, "tellmeter_records_total", sink="S", outcome="delivered") == 9
    assert value(registry, "tellmeter_records_total", sink="S", outcome="dropped") == 2
    assert value(registry, "tellmeter_dropped_total", sink="S", reason="lane_full") == 2
    assert value(registry, "tellmeter_dropped_total", sink="hand-off", reason="queue_full") == 1
    assert value(registry, "tellmeter_queue_records", sink="S") == 0


def test_what_is_on_disk_and_what_failed_is_shown_too():
    registry = MetricsRegistry()
    account = Account(registry)
    account.show(stats(0, 0, 1, spooled=7, failures={"timeout": 2}))
    account.show(stats(0, 0, 1, spooled=4, failures={"timeout": 3, "dns": 1}))
    assert value(registry, "tellmeter_queue_records", sink="S") == 1
    assert value(registry, "tellmeter_spool_records", sink="S") == 4
    assert value(registry, "tellmeter_send_failures_total", sink="S", reason="timeout") == 3
    assert value(registry, "tellmeter_send_failures_total", sink="S") == 4


def test_several_collectors_add_up():
    registry = MetricsRegistry()
    one, two = Account(registry), Account(registry)
    one.show(stats(5, 0, 3))
    two.show(stats(7, 0, 1))
    assert value(registry, "tellmeter_records_total", outcome="delivered") == 12
    assert value(registry, "tellmeter_queue_records", sink="S") == 4


def test_a_forked_child_counts_its_own_from_zero():
    registry = MetricsRegistry()
    account = Account(registry)
    account.show(stats(5, 0, 0))
    account.begin_again()
    account.show(stats(6, 0, 0))
    assert value(registry, "tellmeter_records_total", outcome="delivered") == 11
