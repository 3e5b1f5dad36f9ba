"""A budget beside a plain list of all that was spent: exact fractions, nothing forgotten."""

import asyncio
import time
from fractions import Fraction

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tellmeter.client.reliability import budget_accounts
from tellmeter.client.reliability.budgets import Budget
from tellmeter.client.reliability.windows import SLOTS
from tellmeter.errors import BudgetExceededError
from tellmeter.registry.registry import MetricsRegistry
from tellmeter.sinks.in_memory import InMemoryMetricsSink
from tests.unit.sinks.made import record

T0 = 1_700_000_000.0
HAIR = 1e-9
KEYS = ("", "a", "b")
keys = st.sampled_from(KEYS)
dollars = st.one_of(st.sampled_from([0.0, 0.1, 0.3, 1e-7]), st.floats(0, 2))
tokens = st.integers(0, 60)
pauses = st.one_of(st.sampled_from([0.0, 1.0, 60.0, 61.0]), st.floats(0, 100))


class Log:
    """What was spent: (time, key, dollars, tokens)."""

    def __init__(self, seconds):
        self.seconds = seconds
        self.rows = []

    def add(self, at, key, usd, number):
        self.rows.append((at, key, Fraction(usd), number))

    def since(self, start, key):
        rows = [row for row in self.rows if row[0] >= start and row[1] == key]
        return sum((row[2] for row in rows), Fraction(0)), sum(row[3] for row in rows)

    def bounds(self, now, key):
        """What was surely spent in the window, and that with the slot beside it; a hair is for floats at T0."""
        return (
            self.since(now - self.seconds + 1e-5, key),
            self.since(now - self.seconds * (1 + 1 / SLOTS) - 1e-5, key),
        )


class Machine(RuleBasedStateMachine):
    limit_usd = 3.0
    limit_tokens = 100
    seconds = 60.0

    def begin(self, **options):
        self.now = T0
        self.log = Log(self.seconds)
        self.told = []
        self.budget = Budget(
            self.limit_usd,
            self.limit_tokens,
            self.seconds,
            "tenant",
            on_warn=self.told.append,
            clock=lambda: self.now,
            **options,
        )

    def share(self, spent):
        return max(spent[0] / Fraction(self.limit_usd), Fraction(spent[1], self.limit_tokens))

    def refusal(self, key):
        try:
            asyncio.run(self.budget.check({"tenant": key} if key else {}))
        except BudgetExceededError as error:
            return error
        return None


class Alone(Machine):
    @initialize()
    def start(self):
        self.begin()
        self.warned = dict.fromkeys(KEYS, 0)

    @rule(key=keys, usd=dollars, number=tokens)
    def spend(self, key, usd, number):
        before = self.budget.status(key).share
        self.log.add(self.now, key, usd, number)
        self.budget.spend({"tenant": key}, usd, number)
        self.warned[key] += before < 0.8 * (1 - HAIR) and self.budget.status(key).share >= 0.8

    @rule(seconds=pauses)
    def advance(self, seconds):
        self.now += seconds

    @rule(key=keys)
    def check(self, key):
        inside, beside = self.log.bounds(self.now, key)
        refusal = self.refusal(key)
        if refusal is None:
            assert self.share(inside) < 1 + HAIR
        else:
            assert self.share(beside) >= 1 - HAIR
            assert 0 < refusal.retry_after <= self.seconds * (1 + 1 / SLOTS) + 1e-5

    @precondition(lambda self: any(self.share(self.log.bounds(self.now, key)[0]) > 1 for key in KEYS))
    @rule()
    def wait_as_told(self):
        for key in KEYS:
            refusal = self.refusal(key)
            if refusal is not None:
                start = self.now
                self.now = start + refusal.retry_after - 0.01
                assert self.refusal(key) is not None
                self.now = start + refusal.retry_after + 1e-5
                assert self.refusal(key) is None

    @invariant()
    def status_is_right(self):
        for key in KEYS:
            inside, beside = self.log.bounds(self.now, key)
            status = self.budget.status(key)
            assert inside[1] <= status.spent_tokens <= beside[1]
            assert inside[0] * (1 - Fraction(HAIR)) <= status.spent_usd + 1e-15
            assert status.spent_usd <= beside[0] * (1 + Fraction(HAIR)) + Fraction(1e-15)

    @invariant()
    def each_crossing_was_told_once(self):
        told = [status.key for status in self.told]
        assert {key: told.count(key) for key in KEYS} == self.warned

    @invariant()
    def memory_is_bounded(self):
        for account in self.budget._accounts.each():
            assert len(account.own._slots) <= SLOTS + 1


class Shared(Machine):
    """With others, who write to the same store; every call of this process is recorded there before it is spent."""

    def __init__(self):
        super().__init__()
        self.store = InMemoryMetricsSink(ttl_seconds=None)
        self.own = Log(self.seconds)

    @initialize()
    def start(self):
        self.begin(store=self.store, refresh_seconds=1.0)

        class Collector:
            sinks = (self.store,)
            registry = MetricsRegistry()

        self.collector = Collector()
        self.budget.bind_to(self.collector)

    def write(self, key, usd, number):
        tags = {"tenant": key} if key else {}
        self.store.write(record(self.now - T0, cost_usd=usd, input_tokens=number, tags=tags))
        self.log.add(self.now, key, usd, number)

    @rule(key=keys, usd=dollars, number=tokens)
    def others_spend(self, key, usd, number):
        self.write(key, usd, number)

    @rule(key=keys, usd=dollars, number=tokens)
    def spend(self, key, usd, number):
        self.write(key, usd, number)
        self.own.add(self.now, key, usd, number)
        self.budget.spend({"tenant": key}, usd, number)

    @rule(seconds=pauses)
    def advance(self, seconds):
        self.now += seconds

    @rule(key=keys)
    def a_fresh_answer_and_own_spend_are_all_there_is(self, key):
        self.now += 1.0
        self.refusal(key)
        end = time.monotonic() + 30
        while any(account.question for account in self.budget._accounts.each()):
            assert time.monotonic() < end
            time.sleep(0.0005)
        inside, beside = self.log.bounds(self.now, key)
        status = self.budget.status(key)
        assert inside[1] <= status.spent_tokens <= beside[1]
        assert float(inside[0]) * (1 - HAIR) <= status.spent_usd + 1e-12
        assert status.spent_usd <= float(beside[0]) * (1 + HAIR) + 1e-12
        refusal = self.refusal(key)
        assert self.share(inside) < 1 + HAIR if refusal is None else self.share(beside) >= 1 - HAIR

    @invariant()
    def never_less_than_this_process_itself_spent(self):
        for key in KEYS:
            assert self.budget.status(key).spent_tokens >= self.own.bounds(self.now, key)[0][1]


class Crowded(Machine):
    """More keys than there is room for: what is spent is in some account, and none is forgotten."""

    @initialize()
    def start(self):
        self.begin()
        self.largest, budget_accounts.MAX_KEYS = budget_accounts.MAX_KEYS, 2

    @rule(key=st.sampled_from("abcdef"), number=tokens)
    def spend(self, key, number):
        self.log.add(self.now, "", 0, number)
        self.budget.spend({"tenant": key}, 0.0, number)

    @rule(key=st.sampled_from("abcdef"))
    def check(self, key):
        self.refusal(key)

    @rule(seconds=pauses)
    def advance(self, seconds):
        self.now += seconds

    @invariant()
    def nothing_is_forgotten(self):
        inside, beside = self.log.bounds(self.now, "")
        self.budget.status()
        accounts = self.budget._accounts
        assert len(accounts) <= 2
        assert inside[1] <= sum(account.spent(self.now)[1] for account in accounts.each()) <= beside[1]

    def teardown(self):
        budget_accounts.MAX_KEYS = self.largest


for machine in (Alone, Shared, Crowded):
    machine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestAlone = Alone.TestCase
TestShared = Shared.TestCase
TestCrowded = Crowded.TestCase
