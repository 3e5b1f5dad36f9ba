import asyncio
import os
import threading

import pytest

from tellmeter import counts
from tellmeter.client.reliability import budget_store
from tellmeter.client.reliability.budget_accounts import usd_of
from tellmeter.client.reliability.budget_store import BudgetStore
from tellmeter.collector import MetricsCollector
from tellmeter.context import suppression
from tellmeter.errors import ConfigError, StoreError
from tellmeter.registry.registry import MetricsRegistry
from tellmeter.sinks.in_memory import InMemoryMetricsSink
from tellmeter.sinks.sqlite import SQLiteMetricsSink
from tests.unit.sinks.made import python, record

NOW = 1_700_000_100.0  # the records of `made` begin 100 seconds before


def ask(store, key="", at=NOW):
    """What a store says: dollars, tokens, and whether own spend arrives; None where it says nothing."""
    answers, told = [], threading.Event()
    store.ask(key, at, lambda answer: (answers.append(answer), told.set()))
    assert told.wait(30)
    (answer,) = answers
    return answer and (usd_of(answer.dollars), answer.tokens, answer.own_arrives)


def filled(*rows):
    sink = InMemoryMetricsSink()
    for row in rows:
        sink.write(row)
    return sink


def call(second, usd, tokens, **tags):
    return record(second, cost_usd=usd, input_tokens=tokens, tags=tags)


def test_one_key_within_the_window():
    sink = filled(
        call(10, 1.0, 10, tenant="a"), call(50, 0.5, 5, tenant="a"), call(60, 8.0, 80, tenant="b"), call(70, None, 7)
    )
    assert ask(BudgetStore(sink, "tenant", 60), "a") == (0.5, 5, False)
    assert ask(BudgetStore(sink, "tenant", None), "a") == (1.5, 15, False)
    assert ask(BudgetStore(sink, "tenant", 60), "nobody") == (0.0, 0, False)
    assert ask(BudgetStore(sink, None, 60)) == (8.5, 92, False)


def test_calls_without_the_tag_are_what_is_left_of_all():
    sink = filled(
        call(50, 0.1, 1, tenant="a"), call(50, 0.2, 2, tenant="b"), call(50, 4.0, 40), call(50, 0.5, 5, tenant="")
    )
    sink.write(call(50, 1.0, 10, feature="a"))
    assert ask(BudgetStore(sink, "tenant", 60), "") == (5.5, 55, False)


def test_a_call_that_arrives_between_the_two_answers_is_not_taken_away():
    class Busy(InMemoryMetricsSink):
        async def get_breakdown(self, *arguments, **filters):
            found = await super().get_breakdown(*arguments, **filters)
            self.write(call(60, 2.0, 20, tenant="a"))
            return found

    sink = Busy()
    sink.write(call(50, 4.0, 40))
    assert ask(BudgetStore(sink, "tenant", 60), "") == (6.0, 60, False)


def collector(*sinks):
    return MetricsCollector(sinks=sinks, registry=MetricsRegistry())


def test_own_spend_arrives_where_the_store_is_a_sink():
    sink = InMemoryMetricsSink()
    mine, store = collector(sink), BudgetStore(sink, None, None)
    store.bind_to(mine)
    mine.record(call(0, 1.0, 10))
    assert ask(store) == (1.0, 10, True)
    mine.remove_sink(sink)
    assert ask(store) == (1.0, 10, False)


def test_a_sink_to_the_same_place_is_the_store_and_settles(tmp_path):
    sink = SQLiteMetricsSink(tmp_path / "calls.db", batch_timeout_seconds=3600)
    mine = collector(sink)
    store = BudgetStore(f"sqlite:///{tmp_path}/calls.db", None, None)
    store.bind_to(mine)
    mine.record(call(0, 1.0, 10))
    assert ask(store) == (1.0, 10, True)
    other = BudgetStore(f"sqlite:///{tmp_path}/other.db", None, None)
    other.bind_to(mine)
    assert ask(other) == (0.0, 0, False)
    mine.shutdown_sync()


def test_of_two_collectors_both_must_have_it():
    sink = InMemoryMetricsSink()
    one, other, store = collector(sink), collector(), BudgetStore(sink, None, None)
    store.bind_to(one)
    store.bind_to(one)
    assert ask(store)[2] is True
    store.bind_to(other)
    assert ask(store)[2] is False
    other.add_sink(sink)
    assert ask(store)[2] is True


class Sinks:
    sinks = ()


def test_a_collector_that_is_gone_says_nothing():
    sink = InMemoryMetricsSink()
    one, store = collector(sink), BudgetStore(sink, None, None)
    other = Sinks()
    store.bind_to(one)
    store.bind_to(other)
    assert ask(store)[2] is False
    del other
    assert ask(store)[2] is True


class Broken:
    def __init__(self, error):
        self.error = error

    async def get_summary(self, *arguments, **filters):
        raise self.error


def test_a_store_that_cannot_be_read_gives_none_and_is_counted():
    store, before = BudgetStore(Broken(StoreError("no disk")), None, None), counts.total("guarded_errors")
    assert ask(store) is None
    assert store.failing
    assert counts.total("guarded_errors") == before + 1


def test_a_store_that_answers_again_fails_no_more():
    broken = Broken(StoreError("no disk"))
    store = BudgetStore(broken, None, None)
    ask(store)
    broken.get_summary = InMemoryMetricsSink().get_summary
    assert ask(store) == (0.0, 0, False)
    assert not store.failing


def test_a_store_that_does_not_answer_is_given_up(monkeypatch):
    class Silent:
        async def get_summary(self, *arguments, **filters):
            await asyncio.Event().wait()

    monkeypatch.setattr(budget_store, "ANSWER_SECONDS", 0.05)
    assert ask(BudgetStore(Silent(), None, None)) is None


def test_a_database_that_hangs_holds_up_no_other_question(monkeypatch):
    release = threading.Event()

    class Hanging:
        async def get_summary(self, *arguments, **filters):
            await asyncio.to_thread(release.wait, 60)

    monkeypatch.setattr(budget_store, "ANSWER_SECONDS", 0.05)
    hanging = BudgetStore(Hanging(), None, None)
    try:
        assert [ask(hanging) for _ in range(8)] == [None] * 8
        monkeypatch.undo()
        assert ask(BudgetStore(InMemoryMetricsSink(), None, None)) == (0.0, 0, False)
    finally:
        release.set()


ENDING = """
import asyncio, threading
from tellmeter.client.reliability import budget_store

class Hanging:
    async def get_summary(self, *arguments, **filters):
        await asyncio.to_thread(threading.Event().wait)

budget_store.ANSWER_SECONDS = 0.05
told = threading.Event()
budget_store.BudgetStore(Hanging(), None, None).ask("", 0.0, lambda answer: told.set())
assert told.wait(30)
"""


def test_a_database_that_hangs_does_not_hold_the_end_of_the_program():
    python(ENDING, timeout=60)


def test_the_traffic_of_the_store_is_not_metered():
    seen = []

    class Looking(InMemoryMetricsSink):
        async def get_summary(self, *arguments, **filters):
            seen.append((suppression.get(), await asyncio.to_thread(suppression.get)))
            return await super().get_summary(*arguments, **filters)

    ask(BudgetStore(Looking(), None, None))
    assert seen == [(True, True)]


@pytest.mark.parametrize(
    ("store", "per", "said"),
    [
        (object(), None, "it is no store, for it has no get_summary"),
        (Broken(None), "tenant", "it has no get_breakdown"),
        ("https://example.com/x", None, "cannot be asked"),
        ("memory:", None, "cannot be asked"),
        ("nonsense", None, "is no URL"),
    ],
)
def test_what_is_no_store_is_refused(store, per, said):
    with pytest.raises(ConfigError, match=said):
        BudgetStore(store, per, None)


FORKING = """
import os, threading
from tellmeter.client.reliability.budget_store import BudgetStore
from tellmeter.sinks.in_memory import InMemoryMetricsSink

def answers():
    told, found = threading.Event(), []
    BudgetStore(InMemoryMetricsSink(), None, None).ask("", 0.0, lambda answer: (found.append(answer), told.set()))
    return told.wait(60) and found[0] == (0, 0, False)

assert answers()
pid = os.fork()
if pid == 0:
    os._exit(0 if answers() else 1)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
assert answers()  # and the parent's thread goes on
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_asks_on_a_thread_of_its_own():
    python(FORKING, timeout=180)
