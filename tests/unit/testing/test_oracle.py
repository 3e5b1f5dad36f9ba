import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tellmeter import AgentMetrics, ConfigError, MetricsCollector, MetricsConfig, SinkStats
from tellmeter.pipeline.outcome import Delivered, Partial, Rejected, RetryLater, TooLarge
from tellmeter.testing import OracleSink


def records(number):
    return [AgentMetrics(model="m") for _ in range(number)]


def send(oracle, batch):
    return oracle.send(batch, time.monotonic() + 1)


outcomes = st.one_of(
    st.just(Delivered()),
    st.just(RetryLater()),
    st.just(Rejected()),
    st.just(TooLarge()),
    st.builds(Partial, retry=st.lists(st.integers(0, 4)).map(tuple), rejected=st.lists(st.integers(0, 4)).map(tuple)),
)


@given(script=st.lists(st.one_of(outcomes, outcomes.map(lambda one: lambda batch, deadline: one)), max_size=6))
def test_it_answers_as_told_and_knows_what_that_delivered(script):
    oracle, delivered, sent = OracleSink(script=script), [], []
    for reply in [*script, Delivered()]:
        batch = records(3)
        sent.append(tuple(record.id for record in batch))
        expected = reply(batch, 0.0) if callable(reply) else reply
        assert send(oracle, batch) == expected
        lost = {Delivered: (), Partial: None}.get(type(expected), range(3))
        if lost is None:
            lost = {*expected.retry, *expected.rejected}
        delivered += [record.id for index, record in enumerate(batch) if index not in lost]
    assert oracle.delivered == delivered
    assert oracle.batches == sent
    assert oracle.duplicates == []


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt, OSError("x")])
def test_it_raises_what_it_was_told_to_raise(error):
    oracle = OracleSink([error])
    with pytest.raises(error if isinstance(error, type) else OSError):
        send(oracle, records(1))
    assert oracle.delivered == [] and len(oracle.batches) == 1


def test_a_new_script_takes_the_place_of_the_old_one():
    oracle = OracleSink([RetryLater(), RetryLater()], default=Rejected("full"))
    oracle.script(TooLarge())
    assert [send(oracle, records(1)) for _ in range(2)] == [TooLarge(), Rejected("full")]


@pytest.mark.parametrize("reply", [None, 503, "RetryLater"])
def test_what_is_no_answer_is_refused(reply):
    with pytest.raises(ConfigError, match="an Outcome, an exception or a function"):
        OracleSink([reply])


def test_it_takes_the_options_of_a_lane():
    assert OracleSink(batch_size=7).lane_options == {"batch_size": 7}


def test_what_came_twice_is_known():
    oracle, batch = OracleSink(), records(2)
    send(oracle, batch)
    send(oracle, batch[:1])
    assert oracle.duplicates == [batch[0].id]


def test_the_wait_ends_when_enough_has_come_or_time_is_up():
    oracle, batch = OracleSink(), records(3)
    threading.Timer(0.01, send, (oracle, batch)).start()
    assert oracle.wait_for(3) == [record.id for record in batch]
    with pytest.raises(TimeoutError, match="3 of 4 records"):
        oracle.wait_for(4, timeout=0.01)
    assert oracle.wait_for_batches(1) == oracle.batches
    with pytest.raises(TimeoutError, match="1 of 2 batches"):
        oracle.wait_for_batches(2, timeout=0.01)


def test_a_true_ledger_passes():
    oracle = OracleSink([Partial(rejected=(1,), reason="bad"), Partial(rejected=(0, 2))])
    collector = MetricsCollector(MetricsConfig(batch_size=10), sinks=[oracle])
    made = records(100)
    for record in made:
        collector.record(record)
    collector.shutdown_sync()
    stats = collector.stats()
    assert stats.sinks["OracleSink"].delivered == 97
    oracle.check(stats, [record.id for record in made])
    oracle.check(stats.sinks["OracleSink"])


@pytest.mark.parametrize(
    ("ledger", "told"),
    [
        (SinkStats(accepted=3, delivered=2), "does not add up"),
        (SinkStats(accepted=3, delivered=3), "says 3 delivered, 2 arrived"),
        (SinkStats(accepted=1, delivered=1), "only 1 were accepted"),
    ],
)
def test_a_false_ledger_is_told(ledger, told):
    oracle = OracleSink()
    send(oracle, records(2))
    with pytest.raises(AssertionError, match=told):
        oracle.check(ledger)


def test_duplicates_and_foreign_records_are_told():
    oracle, batch = OracleSink(), records(2)
    send(oracle, batch)
    with pytest.raises(AssertionError, match="1 arrived that nobody recorded"):
        oracle.check(SinkStats(accepted=2, delivered=2), [batch[0].id])
    send(oracle, batch)
    with pytest.raises(AssertionError, match="2 arrived more than once"):
        oracle.check(SinkStats(accepted=4, delivered=4))


def test_of_several_oracles_each_is_checked_by_name():
    oracles = [OracleSink(), OracleSink()]
    collector = MetricsCollector(sinks=oracles)
    collector.record(AgentMetrics(model="m"))
    collector.shutdown_sync()
    with pytest.raises(ConfigError, match="2 sinks"):
        oracles[0].check(collector.stats())
    oracles[1].check(collector.stats().sinks["OracleSink-2"])


def test_a_forked_childs_oracle_starts_empty():
    oracle = OracleSink()
    send(oracle, records(1))
    oracle.after_fork()
    assert oracle.delivered == oracle.batches == []
