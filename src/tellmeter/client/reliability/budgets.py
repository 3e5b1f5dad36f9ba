"""Budget: dollars or tokens that calls may cost within a window; what is beyond is refused before anything is sent."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from ...cleaning import MAX_INT, TAG_NAME_LENGTH, clean_int, clean_optional_float, clean_tags
from ...counts import count
from ...errors import BudgetExceededError, ConfigError
from ...guard import note
from ...sinks.checks import check_positive
from ..checks import check_number
from .budget_accounts import OVERFLOW, Account, Accounts, Answer, Question, units_of, usd_of
from .budget_store import ANSWER_SECONDS, BudgetStore
from .windows import window_seconds, window_text

if TYPE_CHECKING:
    from ...collector import MetricsCollector

logger = logging.getLogger(__name__)

T = TypeVar("T")

# Sums of prices end a hair below what they are meant to be (10 x 0.3 < 3), and so would let one call more through.
_NEARLY = 1.0 - 1e-12
_budgets: weakref.WeakSet[Budget] = weakref.WeakSet()


@dataclass(frozen=True, kw_only=True)
class BudgetStatus:
    """What is spent of a budget by one key.

    name: the budget's. key: the value of its tag, "" for calls without it, `__overflow__` for those that share one.
    spent_usd, spent_tokens: within the window, as far as this process knows.
    limit_usd, limit_tokens: None where there is none.
    share: of the limit that is nearer, 1.0 when it is spent; more after calls that were under way then.
    window_seconds: None for ever.
    """

    name: str
    key: str
    spent_usd: float
    limit_usd: float | None
    spent_tokens: int
    limit_tokens: float | None
    share: float
    window_seconds: float | None

    def __str__(self) -> str:
        parts = []
        if self.limit_usd is not None:
            parts.append(f"{_dollars(self.spent_usd)} of {_dollars(self.limit_usd)}")
        if self.limit_tokens is not None:
            parts.append(f"{self.spent_tokens:,} of {self.limit_tokens:,.0f} tokens")
        period = "in all" if self.window_seconds is None else f"in the last {window_text(self.window_seconds)}"
        return f"{' and '.join(parts)} {period}"


class Budget:
    """A limit on what calls cost. Safe to use from any thread and event loop, and for several clients at once.

    A call is refused once as much as the limit is spent. Calls that are under way then run on, so that what is spent
    in the end may exceed the limit by what they cost. What was spent leaves the window gradually, up to a sixtieth of
    it late. A call whose price is unknown counts with its tokens alone, and in `counts` as `budget_unpriced`.

    Without a store a budget knows what this process spends, since it began. With one, all processes that write their
    records there share the budget: each asks it every `refresh_seconds`, and so may spend as long beyond the limit
    before it knows of the others. A store counts a call when it began; one that samples or filters knows less.

    Args:
        limit_usd: US dollars.
        limit_tokens: input and output tokens. One limit at least; with both, the one that is reached first counts.
        window: "30s", "5m", "1h", "7d", a number of seconds, or None for ever: since the process began, or all that
            the store has.
        per: the name of a tag ("tenant"): each of its values has the whole budget for itself. Calls without the tag
            share that of the value "". Beyond 10,000 values with spend, further ones share one, and are counted as
            `budget_overflow`; what the store knows of those is not asked.
        name: for messages; made of the limits without one.
        warn_at: share of the limit, up to 1, from which on `on_warn` and the log tell, once until it falls below.
        on_warn: called with a `BudgetStatus`, on whatever thread found out; must not block.
        store: a `MetricsStore`, or a URL as "sqlite:///calls.db". Give the client the same as a sink.
        refresh_seconds: how old the store's answer may get before it is asked again.
        on_store_error: "admit" goes on with what is known when the store cannot be read, "refuse" refuses all calls.
        clock: Unix seconds, for tests.

    Raises:
        ConfigError: an argument that cannot work.
        MissingExtra: the package of the store is not installed.
    """

    def __init__(
        self,
        limit_usd: float | None = None,
        limit_tokens: float | None = None,
        window: str | float | None = "1d",
        per: str | None = None,
        *,
        name: str | None = None,
        warn_at: float = 0.8,
        on_warn: Callable[[BudgetStatus], object] | None = None,
        store: Any = None,
        refresh_seconds: float = 5.0,
        on_store_error: str = "admit",
        clock: Callable[[], float] = time.time,
    ) -> None:
        if limit_usd is None and limit_tokens is None:
            raise ConfigError("Budget: there is no limit; give limit_usd, limit_tokens or both")
        for limit, value in (("limit_usd", limit_usd), ("limit_tokens", limit_tokens)):
            if value is not None:
                check_positive(f"Budget.{limit}", value)
        self.limit_usd = limit_usd
        self.limit_tokens = limit_tokens
        self.window_seconds = window_seconds(window)
        if per is not None and (
            not isinstance(per, str) or not per.isprintable() or not 0 < len(per) <= TAG_NAME_LENGTH
        ):
            raise ConfigError(f"Budget.per = {per!r}: it must be the name of a tag, as 'tenant', or None")
        self.per = per
        if name is not None and (not isinstance(name, str) or not name.isprintable() or not name):
            raise ConfigError(f"Budget.name = {name!r}: it must be a text of one line, or None")
        self.name = name or self._described()
        check_number("Budget.warn_at", warn_at, 0.001, 1.0)
        self.warn_at = warn_at
        if on_warn is not None and not callable(on_warn):
            raise ConfigError(
                f"Budget.on_warn = {type(on_warn).__name__}: it must be a function of one status, or None"
            )
        self._on_warn = on_warn
        check_number("Budget.refresh_seconds", refresh_seconds, 0.001, 86_400.0)
        self._refresh_seconds = refresh_seconds
        if on_store_error not in ("admit", "refuse"):
            raise ConfigError(f"Budget.on_store_error = {on_store_error!r}: it must be 'admit' or 'refuse'")
        self._strict = on_store_error == "refuse"
        self._store = None if store is None else BudgetStore(store, per, self.window_seconds)
        self._clock = clock
        self._accounts = Accounts(self.window_seconds)
        self._fresh: deque[tuple[str, int, int]] = deque()
        self._lock = threading.Lock()
        _budgets.add(self)

    def __repr__(self) -> str:
        return f"Budget({self.name!r})"

    def bind_to(self, collector: MetricsCollector) -> None:
        """Told by a client: `collector` records the calls that are counted here."""
        if self._store is not None:
            self._store.bind_to(collector)

    # ------------------------------------------------------------------ around a call

    async def check(self, tags: Mapping[str, Any] | None = None) -> None:
        """Let a call with these tags pass. A key's first check waits for the store, up to 5 seconds.

        Raises:
            BudgetExceededError: the budget is spent; or the store cannot be read and `on_store_error` is "refuse".
        """
        key = self._key_of(tags)
        if self._store is not None:
            await self._ask_store(self._store, key)
        refusal = self._settled(lambda now: self._refusal(key, now))
        if refusal is not None:
            raise refusal

    def spend(self, tags: Mapping[str, Any] | None, cost_usd: float | None, tokens: int = 0) -> None:
        """Count a call that is over and whose record the collector has; US dollars, None where no price is known.

        Never raises, never waits; fit for `__del__` and signal handlers.
        """
        cost = clean_optional_float(cost_usd, "cost_usd")
        if cost is None:
            count("budget_unpriced", self.name)
        self._fresh.append((self._key_of(tags), units_of(cost or 0.0), clean_int(tokens, "tokens")))
        self._count_fresh()

    def status(self, tags_or_key: Mapping[str, Any] | str | None = None) -> BudgetStatus:
        """What is spent by calls with these tags, or with this value of the budget's tag. Asks no store."""
        key = self._key_of({self.per or "": tags_or_key} if isinstance(tags_or_key, str) else tags_or_key)
        return self._settled(lambda now: self._status(*self._accounts.find(key, now), now))

    def _key_of(self, tags: Mapping[str, Any] | None) -> str:
        """The value of the tag as a record would have it."""
        if self.per is None or not isinstance(tags, Mapping):
            return ""
        return clean_tags({self.per: tags.get(self.per)}).get(self.per, "")

    # ------------------------------------------------------------------ what is spent

    def _settled(self, look: Callable[[float], T]) -> T:
        """What `look` finds, with all counted that was spent before."""
        with self._lock:
            now = self._clock()
            crossed = self._count(now)
            found = look(now)
        self._warn(crossed)
        self._count_fresh()
        return found

    def _count_fresh(self) -> None:
        """Nobody waits for the lock here: who has it comes by again."""
        while self._fresh and self._lock.acquire(blocking=False):
            try:
                crossed = self._count(self._clock())
            finally:
                self._lock.release()
            self._warn(crossed)

    def _count(self, now: float) -> list[BudgetStatus]:
        """Take in what is fresh; whose share passed `warn_at` by it. The lock is held, here and in what follows."""
        crossed: list[BudgetStatus] = []
        for _ in range(len(self._fresh)):
            key, dollars, tokens = self._fresh.popleft()
            place, account = self._accounts.open(key, now)
            if place != key:
                count("budget_overflow", self.name)
            crossed += self._changed(place, account, now, partial(account.add, now, dollars, tokens))
        return crossed

    def _changed(self, key: str, account: Account, now: float, change: Callable[[], None]) -> list[BudgetStatus]:
        self._crosses(key, account, now)  # it may have fallen below since the last change
        change()
        self._accounts.moved(key, now)
        return self._crosses(key, account, now)

    def _crosses(self, key: str, account: Account, now: float) -> list[BudgetStatus]:
        before, account.warned = account.warned, self._share(*account.spent(now)) >= self.warn_at * _NEARLY
        return [self._status(key, account, now)] if account.warned and not before else []

    def _status(self, key: str, account: Account | None, now: float) -> BudgetStatus:
        dollars, tokens = (0, 0) if account is None else account.spent(now)
        return BudgetStatus(
            name=self.name,
            key=key,
            spent_usd=usd_of(dollars),
            limit_usd=self.limit_usd,
            spent_tokens=tokens,
            limit_tokens=self.limit_tokens,
            share=self._share(dollars, tokens),
            window_seconds=self.window_seconds,
        )

    def _share(self, dollars: int, tokens: int) -> float:
        return max(
            0.0 if self.limit_usd is None else usd_of(dollars) / self.limit_usd,
            0.0 if self.limit_tokens is None else min(tokens, MAX_INT) / self.limit_tokens,
        )

    def _warn(self, crossed: list[BudgetStatus]) -> None:
        for status in crossed:
            logger.warning("budget %r: %s%s", self.name, self._whose(status.key), status)
            if self._on_warn is not None:
                try:
                    self._on_warn(status)
                except Exception as error:
                    note("budget_on_warn", error)

    # ------------------------------------------------------------------ refusing

    def _refusal(self, key: str, now: float) -> BudgetExceededError | None:
        place, account = self._accounts.find(key, now)
        if account is None:
            return None
        if self._strict and self._store is not None and place != OVERFLOW and (account.trouble or not account.answered):
            why = "its store cannot be read, and on_store_error is 'refuse'"
            return self._error(f"budget {self.name!r}: {self._whose(place)}{why}", place, self._refresh_seconds)
        if self._fits(*account.spent(now)):
            return None
        seconds = account.own.seconds_until(self._fits, now) if account.own_only(now) else None
        if seconds is not None:
            room = f"room is expected in {math.ceil(seconds):,} s"
        elif self.window_seconds is not None:
            room = f"room is expected within {window_text(self.window_seconds)}"
        else:
            room = "it does not renew itself"
        told = f"budget {self.name!r} is spent: {self._whose(place)}{self._status(place, account, now)}; {room}"
        return self._error(told, place, seconds)

    def _fits(self, dollars: int, tokens: int) -> bool:
        return self._share(dollars, tokens) < _NEARLY

    def _error(self, told: str, key: str, seconds: float | None) -> BudgetExceededError:
        renews = self.window_seconds is not None
        error = BudgetExceededError(told, category="budget", retry_after=seconds, is_retryable=renews)
        error.budget, error.key = self.name, key
        return error

    def _whose(self, key: str) -> str:
        if self.per is None:
            return ""
        return f"{self.per} {key!r}: " if key else f"calls without {self.per}: "

    def _described(self) -> str:
        parts = [] if self.limit_usd is None else [_dollars(self.limit_usd)]
        if self.limit_tokens is not None:
            parts.append(f"{self.limit_tokens:,.0f} tokens")
        period = "in all" if self.window_seconds is None else f"per {window_text(self.window_seconds)}"
        return f"{self.per or ''} {' or '.join(parts)} {period}".lstrip()

    # ------------------------------------------------------------------ the store

    async def _ask_store(self, store: BudgetStore, key: str) -> None:
        """Ask when it is time; wait for the answer where nothing is known yet."""
        began, waits_for = self._settled(lambda now: self._begin(key, now))
        if began is not None:
            question, place = began
            store.ask(place, question.asked_at, lambda answer: self._concluded(place, question, answer))
        # While the store fails, the first call of every key would wait for nothing.
        if waits_for is None or store.failing:
            return
        told = asyncio.wrap_future(waits_for.done)
        try:
            await asyncio.wait([told], timeout=waits_for.began + ANSWER_SECONDS - time.monotonic())
        finally:
            told.cancel()

    def _begin(self, key: str, now: float) -> tuple[tuple[Question, str] | None, Question | None]:
        """The question that begins now, if any, with the key that it is about; and the one to wait for, if any."""
        place, account = self._accounts.open(key, now)
        if place == OVERFLOW:
            return None, None
        began = None
        due = account.asked_at is None or not 0 <= now - account.asked_at < self._refresh_seconds
        if due and account.question is None:
            began = account.ask(now), place
        return began, None if account.answered or account.trouble else account.question

    def _concluded(self, key: str, question: Question, answer: Answer | None) -> None:
        """On the store's thread."""

        def conclude(now: float) -> list[BudgetStatus]:
            place, account = self._accounts.find(key, now)
            if account is None or account.question is not question:
                return []  # a fork came between
            return self._changed(place, account, now, partial(account.conclude, question, answer))

        try:
            self._warn(self._settled(conclude))
        finally:
            question.done.set_result(None)

    # ------------------------------------------------------------------ fork

    def after_fork(self) -> None:
        """What the parent spent stays counted; its questions are answered to the parent, its lock opens there."""
        self._lock = threading.Lock()
        for account in self._accounts.each():
            if account.question is not None:
                account.question = account.asked_at = None


def _dollars(usd: float) -> str:
    shown = f"{usd:,.2f}"
    return f"${shown if usd >= 1 or float(shown) == usd else f'{usd:.4g}'}"


def _after_fork() -> None:
    for budget in list(_budgets):
        budget.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
