import asyncio
import gc
import logging
import os
import threading
import time

import pytest

from tellmeter import counts
from tellmeter.client.reliability import budget_accounts, budgets
from tellmeter.client.reliability.budgets import Budget, BudgetStatus
from tellmeter.errors import BudgetExceededError, ConfigError, StoreError
from tellmeter.sinks.in_memory import InMemoryMetricsSink
from tests.unit.sinks.made import python, record

T0 = 1_700_000_000.0


class Clock:
    now = T0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def admits(budget, **tags):
    """Whether a call with these tags would pass."""
    try:
        asyncio.run(budget.check(tags))
    except BudgetExceededError:
        return False
    return True


def refused(budget, **tags):
    with pytest.raises(BudgetExceededError) as raised:
        asyncio.run(budget.check(tags))
    return raised.value


# ---------------------------------------------------------------------- limits


def test_a_budget_admits_until_it_is_spent(clock):
    budget = Budget(limit_usd=3.0, clock=clock)
    for _ in range(10):
        assert admits(budget)
        budget.spend({}, 0.3, 100)  # whose sum ends a hair below 3.0
    assert not admits(budget)


def test_tokens_have_a_limit_too(clock):
    budget = Budget(limit_usd=100.0, limit_tokens=1000, clock=clock)
    budget.spend({}, 0.01, 999)
    assert admits(budget)
    budget.spend({}, 0.01, 1)
    assert not admits(budget)


def test_each_value_of_the_tag_has_its_own_and_calls_without_it_share_one(clock):
    budget = Budget(limit_usd=1.0, per="tenant", clock=clock)
    budget.spend({"tenant": "a"}, 1.0, 0)
    assert not admits(budget, tenant="a")
    assert admits(budget, tenant="b")
    budget.spend({"feature": "x"}, 0.5, 0)
    budget.spend(None, 0.5, 0)
    assert not admits(budget, other="y")
    assert not admits(budget, tenant="")
    assert admits(budget, tenant="b")


def test_keys_are_the_texts_that_records_have(clock):
    budget = Budget(limit_usd=1.0, per="tenant", clock=clock)
    budget.spend({"tenant": 7}, 1.0, 0)
    assert not admits(budget, tenant="7")
    budget.spend({"tenant": "x" * 300}, 1.0, 0)
    assert not admits(budget, tenant="x" * 256 + "other")


def test_one_budget_for_all_without_a_tag(clock):
    budget = Budget(limit_usd=1.0, clock=clock)
    budget.spend({"tenant": "a"}, 1.0, 0)
    assert not admits(budget, tenant="b")


def test_room_comes_back(clock):
    budget = Budget(limit_usd=1.0, window="1h", clock=clock)
    budget.spend({}, 0.6, 0)
    clock.now += 600
    budget.spend({}, 0.6, 0)
    error = refused(budget)
    clock.now += error.retry_after - 1
    assert not admits(budget)
    clock.now += 1
    assert admits(budget)
    assert budget.status().spent_usd == pytest.approx(0.6)


def test_for_ever_there_is_no_room_again(clock):
    budget = Budget(limit_usd=1.0, window=None, clock=clock)
    budget.spend({}, 1.0, 0)
    clock.now += 1e9
    error = refused(budget)
    assert error.retry_after is None
    assert not error.is_retryable
    assert str(error) == "budget '$1.00 in all' is spent: $1.00 of $1.00 in all; it does not renew itself"


def test_the_error_tells_all(clock):
    budget = Budget(limit_usd=10.0, limit_tokens=5000, per="tenant", clock=clock)
    budget.spend({"tenant": "acme"}, 10.0312, 1234)
    error = refused(budget, tenant="acme")
    assert str(error) == (
        "budget 'tenant $10.00 or 5,000 tokens per 1d' is spent: tenant 'acme': "
        "$10.03 of $10.00 and 1,234 of 5,000 tokens in the last 1d; room is expected in 87,040 s"
    )
    assert (error.budget, error.key, error.category) == ("tenant $10.00 or 5,000 tokens per 1d", "acme", "budget")
    assert error.retry_after == 87_040.0  # the slot of T0 began 800 s before
    assert error.is_retryable
    budget.spend({}, 11, 0)
    assert "is spent: calls without tenant: $11.00 of $10.00" in str(refused(budget))


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"limit_usd": 10, "per": "tenant"}, "tenant $10.00 per 1d"),
        ({"limit_usd": 1234.5, "window": "30s"}, "$1,234.50 per 30s"),
        ({"limit_usd": 0.005, "window": None}, "$0.005 in all"),
        ({"limit_tokens": 1e6, "window": 3600}, "1,000,000 tokens per 1h"),
        ({"limit_tokens": 1, "name": "mine"}, "mine"),
    ],
)
def test_names(arguments, name):
    assert Budget(**arguments).name == name
    assert repr(Budget(**arguments)) == f"Budget({name!r})"


def test_status(clock):
    budget = Budget(limit_usd=10, limit_tokens=100, per="tenant", name="n", clock=clock)
    budget.spend({"tenant": "a"}, 2.5, 50)
    told = BudgetStatus(
        name="n",
        key="a",
        spent_usd=2.5,
        limit_usd=10,
        spent_tokens=50,
        limit_tokens=100,
        share=0.5,
        window_seconds=86_400.0,
    )
    assert budget.status("a") == budget.status({"tenant": "a"}) == told
    assert str(told) == "$2.50 of $10.00 and 50 of 100 tokens in the last 1d"
    assert budget.status().share == budget.status("nobody").share == 0.0


def test_a_call_without_a_price_counts_its_tokens_and_is_counted(clock):
    budget = Budget(limit_usd=1.0, limit_tokens=10, name="unpriced", clock=clock)
    budget.spend({}, None, 9)
    assert budget.status().spent_tokens == 9
    assert counts.snapshot()["budget_unpriced"]["unpriced"] == 1


@pytest.mark.parametrize("cost", [-1.0, float("nan"), float("inf"), "much", object()])
@pytest.mark.parametrize("tokens", [-1, float("nan"), None, "many"])
def test_what_is_no_number_is_no_spend_and_raises_nothing(clock, cost, tokens):
    budget = Budget(limit_usd=1.0, limit_tokens=1, clock=clock)
    budget.spend({"tenant": object()}, cost, tokens)
    budget.spend([], cost, tokens)
    assert admits(budget)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "there is no limit"),
        ({"limit_usd": 0}, r"Budget\.limit_usd = 0: it must be a number above 0"),
        ({"limit_usd": -1.0}, r"limit_usd = -1\.0"),
        ({"limit_usd": float("inf")}, "limit_usd = inf"),
        ({"limit_usd": float("nan")}, "limit_usd = nan"),
        ({"limit_usd": "10"}, "limit_usd = '10'"),
        ({"limit_usd": 10**400}, "limit_usd = 1000"),
        ({"limit_tokens": True}, "limit_tokens = True"),
        ({"limit_usd": 1, "limit_tokens": 0}, "limit_tokens = 0"),
        ({"limit_usd": 1, "window": "1y"}, "Budget.window = '1y'"),
        ({"limit_usd": 1, "per": ""}, "Budget.per = ''"),
        ({"limit_usd": 1, "per": 3}, "Budget.per = 3"),
        ({"limit_usd": 1, "per": "x" * 65}, "Budget.per"),
        ({"limit_usd": 1, "name": "a\nb"}, "Budget.name"),
        ({"limit_usd": 1, "warn_at": 1.5}, "Budget.warn_at = 1.5"),
        ({"limit_usd": 1, "warn_at": 0}, "Budget.warn_at = 0"),
        ({"limit_usd": 1, "on_warn": 3}, "Budget.on_warn"),
        ({"limit_usd": 1, "refresh_seconds": 0}, "Budget.refresh_seconds = 0"),
        ({"limit_usd": 1, "on_store_error": "no"}, "on_store_error = 'no': it must be 'admit' or 'refuse'"),
        ({"limit_usd": 1, "store": "x"}, "is no URL"),
    ],
)
def test_what_cannot_work_is_refused(arguments, said):
    with pytest.raises(ConfigError, match=said):
        Budget(**arguments)


# ---------------------------------------------------------------------- warnings


def test_a_warning_once_until_the_share_fell_below(clock, caplog):
    told = []
    budget = Budget(limit_usd=3.0, window="1h", per="tenant", on_warn=told.append, clock=clock)
    acme = {"tenant": "acme"}
    with caplog.at_level(logging.WARNING, "tellmeter.client"):
        for _ in range(7):
            budget.spend(acme, 0.3, 0)
        assert told == []
        for _ in range(3):
            budget.spend(acme, 0.3, 0)  # the first of them reaches 2.4, 80 %
    assert [round(status.share, 9) for status in told] == [0.8]
    assert caplog.messages == ["budget 'tenant $3.00 per 1h': tenant 'acme': $2.40 of $3.00 in the last 1h"]
    budget.spend({"tenant": "b"}, 3.0, 0)
    assert [status.key for status in told] == ["acme", "b"]
    clock.now += 3700
    budget.spend(acme, 2.9, 0)
    assert [status.key for status in told] == ["acme", "b", "acme"]


def test_a_callback_that_raises_harms_nobody(clock):
    def broken(status):
        raise ValueError("user's")

    budget, before = Budget(limit_usd=1.0, on_warn=broken, clock=clock), counts.total("guarded_errors")
    budget.spend({}, 1.0, 0)
    assert not admits(budget)
    assert counts.total("guarded_errors") == before + 1


def test_a_callback_may_ask_and_spend(clock):
    seen = []

    def curious(status):
        budget.spend({}, 0.05, 0)
        seen.append(budget.status().spent_usd)

    budget = Budget(limit_usd=1.0, on_warn=curious, clock=clock)
    budget.spend({}, 0.9, 0)
    assert seen == [pytest.approx(0.95)]


# ---------------------------------------------------------------------- many keys, threads, finalizers


def test_memory_is_bounded_and_further_keys_share_one(clock, monkeypatch):
    monkeypatch.setattr(budget_accounts, "MAX_KEYS", 50)
    budget = Budget(limit_usd=1.0, per="tenant", name="crowded", clock=clock)
    for number in range(500):
        budget.spend({"tenant": f"t{number}"}, 0.01, 1)
    assert len(budget._accounts) == 50
    assert counts.snapshot()["budget_overflow"]["crowded"] == 450
    assert budget.status("t499").key == "__overflow__"
    assert not admits(budget, tenant="never seen")
    assert admits(budget, tenant="t49")
    clock.now += 2 * 86_400
    assert admits(budget, tenant="never seen")
    budget.spend({"tenant": "never seen"}, 0.01, 1)
    assert budget.status("never seen").key == "never seen"


def test_threads_lose_nothing():
    budget = Budget(limit_tokens=10**9, per="tenant")
    begin = threading.Barrier(6)

    def work(name):
        begin.wait()
        for number in range(500):
            budget.spend({"tenant": name}, 0.001, 1)
            if number % 50 == 0:
                asyncio.run(budget.check({"tenant": name}))

    threads = [threading.Thread(target=work, args=("ab"[number % 2],)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [budget.status(key).spent_tokens for key in "ab"] == [1500, 1500]


def test_a_call_that_a_finalizer_ends_while_the_budget_is_busy_is_counted_later(clock):
    budget = Budget(limit_tokens=10, clock=clock)

    class Dying:
        def __del__(self):
            budget.spend({}, None, 3)

    with budget._lock:
        dying = Dying()
        del dying
        gc.collect()
    assert budget.status().spent_tokens == 3


def test_a_warning_of_a_call_that_ended_while_the_budget_was_busy_comes_at_once(clock):
    told = []
    budget = Budget(limit_tokens=10, on_warn=told.append, clock=clock)
    budget._settled(lambda now: budget.spend({}, None, 9))
    assert [status.spent_tokens for status in told] == [9]


FORKING = """
import asyncio, os, threading
from tellmeter.client.reliability.budgets import Budget
from tellmeter.errors import BudgetExceededError
from tellmeter.records import AgentMetrics
from tellmeter.sinks.in_memory import InMemoryMetricsSink

class Store(InMemoryMetricsSink):
    held = True

    async def get_summary(self, *arguments, **filters):
        if self.held:
            asked.set()
            await asyncio.Event().wait()
        return await super().get_summary(*arguments, **filters)

def refuses(budget):
    try:
        asyncio.run(budget.check())
    except BudgetExceededError:
        return True
    return False

asked, store = threading.Event(), Store()
store.write(AgentMetrics(model="m", input_tokens=10))
alone, shared = Budget(limit_tokens=10), Budget(limit_tokens=10, store=store)
alone.spend({}, None, 10)
waiting = shared.check()
waiter = threading.Thread(target=lambda: asyncio.run(waiting), daemon=True)
waiter.start()
assert asked.wait(30)
with alone._lock, shared._lock:
    pid = os.fork()
    if pid == 0:
        store.held = False
        os._exit(0 if refuses(alone) and refuses(shared) else 1)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_goes_on_though_the_parent_held_the_lock_and_asked_the_store():
    python(FORKING, timeout=120)


# ---------------------------------------------------------------------- with a store


class Store(InMemoryMetricsSink):
    """Counts what it is asked; answers once `open` is set, with an error where it has one."""

    def __init__(self):
        super().__init__()
        self.asked = 0
        self.error = None
        self.open = threading.Event()
        self.open.set()

    async def get_summary(self, *arguments, **filters):
        self.asked += 1
        if not self.open.is_set():
            await asyncio.to_thread(self.open.wait, 30)
        if self.error:
            raise self.error
        return await super().get_summary(*arguments, **filters)

    def others_spend(self, usd, now=T0, **tags):
        self.write(record(now - T0, cost_usd=usd, tags=tags))


@pytest.fixture
def store():
    return Store()


def until(right):
    end = time.monotonic() + 30
    while not right():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_the_first_check_knows_what_others_spent(clock, store):
    budget = Budget(limit_usd=1.0, per="tenant", store=store, clock=clock)
    store.others_spend(1.5, tenant="a")
    store.others_spend(0.5, tenant="b")
    error = refused(budget, tenant="a")
    assert "tenant 'a': $1.50 of $1.00 in the last 1d; room is expected within 1d" in str(error)
    assert error.retry_after is None
    assert error.is_retryable
    assert admits(budget, tenant="b")
    assert budget.status("b").spent_usd == 0.5
    budget.spend({"tenant": "b"}, 0.5, 0)
    assert not admits(budget, tenant="b")
    assert store.asked == 2


def test_a_warning_comes_of_what_others_spent_too(clock, store):
    told = []
    budget = Budget(limit_usd=1.0, store=store, on_warn=told.append, clock=clock)
    store.others_spend(0.9)
    assert admits(budget)
    assert [status.spent_usd for status in told] == [0.9]


def test_an_old_answer_is_renewed_in_the_background(clock, store):
    budget = Budget(limit_usd=1.0, store=store, refresh_seconds=5, clock=clock)
    assert admits(budget)
    store.others_spend(1.5)
    clock.now += 4
    assert admits(budget)
    assert store.asked == 1
    store.open.clear()
    clock.now += 1
    assert admits(budget)  # it waits for no answer
    until(lambda: store.asked == 2)
    clock.now += 60
    assert admits(budget)  # and asks no second time meanwhile
    store.open.set()
    until(lambda: budget.status().spent_usd == 1.5)
    assert store.asked == 2
    assert not admits(budget)


def test_many_first_checks_on_several_loops_ask_once_and_all_wait(clock, store):
    budget = Budget(limit_usd=1.0, store=store, clock=clock)
    store.others_spend(1.5)
    store.open.clear()
    found = []

    async def several():
        found.extend(await asyncio.gather(*(budget.check() for _ in range(5)), return_exceptions=True))

    threads = [threading.Thread(target=asyncio.run, args=(several(),)) for _ in range(3)]
    for thread in threads:
        thread.start()
    until(lambda: store.asked == 1)
    assert not found
    store.open.set()
    for thread in threads:
        thread.join(30)
    assert [type(one) for one in found] == [BudgetExceededError] * 15
    assert store.asked == 1


def test_a_caller_that_gives_up_takes_the_answer_from_nobody(clock, store):
    budget = Budget(limit_usd=1.0, store=store, clock=clock)
    store.others_spend(1.5)
    store.open.clear()

    async def gives_up():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await budget.check()

    asyncio.run(gives_up())
    store.open.set()
    assert not admits(budget)
    assert store.asked == 1


def test_a_first_check_does_not_wait_for_ever(clock, store, monkeypatch):
    monkeypatch.setattr(budgets, "ANSWER_SECONDS", 0.05)
    budget = Budget(limit_usd=1.0, store=store, clock=clock)
    store.open.clear()
    assert admits(budget)
    assert budget.status().spent_usd == 0.0
    store.open.set()


def test_a_store_that_cannot_be_read_lets_the_budget_go_on_with_what_it_knows(clock, store):
    budget = Budget(limit_usd=1.0, store=store, clock=clock)
    store.others_spend(0.6)
    assert admits(budget)
    store.error = StoreError("gone")
    clock.now += 5
    assert admits(budget)
    until(lambda: budget._store.failing)
    assert budget.status().spent_usd == 0.6
    budget.spend({}, 0.4, 0)
    assert not admits(budget)


def test_while_the_store_fails_a_new_key_does_not_wait_for_it(clock, store):
    budget = Budget(limit_usd=1.0, per="tenant", store=store, clock=clock)
    store.error = StoreError("gone")
    assert admits(budget, tenant="a")
    with pytest.raises(StopIteration):
        budget.check({"tenant": "b"}).send(None)  # it ends without having waited for anything


def test_a_strict_budget_refuses_while_its_store_cannot_be_read(clock, store):
    budget = Budget(limit_usd=1.0, store=store, on_store_error="refuse", clock=clock)
    store.error = StoreError("gone")
    error = refused(budget)
    assert str(error) == "budget '$1.00 per 1d': its store cannot be read, and on_store_error is 'refuse'"
    assert (error.category, error.retry_after, error.is_retryable) == ("budget", 5.0, True)
    store.error = None
    clock.now += 5
    until(lambda: admits(budget))


def test_keys_that_share_one_go_by_what_this_process_knows(clock, store, monkeypatch):
    monkeypatch.setattr(budget_accounts, "MAX_KEYS", 1)
    budget = Budget(limit_usd=1.0, per="tenant", store=store, on_store_error="refuse", clock=clock)
    budget.spend({"tenant": "a"}, 0.1, 0)
    store.others_spend(5.0, tenant="b")
    assert admits(budget, tenant="b")
    budget.spend({"tenant": "b"}, 1.0, 0)
    assert not admits(budget, tenant="c")
    assert store.asked == 0
