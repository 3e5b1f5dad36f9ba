"""BudgetStore: what a store knows to be spent, asked on a thread of its own, so that no call waits longer than it must.

Not on the caller's event loop: that may end, or stand still between two runs, while a question is under way.
"""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from ...context import suppressed
from ...errors import ConfigError
from ...guard import note
from ...sinks.base import MetricsStore
from ...sinks.urls import store_from_url
from .budget_accounts import Answer, units_of

if TYPE_CHECKING:
    from ...collector import MetricsCollector

P = ParamSpec("P")
T = TypeVar("T")

ANSWER_SECONDS = 5.0
_AT_ONCE = 4
_EVERY_VALUE = 1_000_000


class BudgetStore:
    """A `MetricsStore` (an object or a URL), asked for the spend of one key in the last `seconds`.

    Raises:
        ConfigError: what is no store, or a URL that names none.
        MissingExtra: the package of that store is not installed.
    """

    def __init__(self, store: Any, per: str | None, seconds: float | None) -> None:
        if isinstance(store, str):
            store = store_from_url(store)
        for question in ("get_summary", *(("get_breakdown",) if per else ())):
            if not callable(getattr(store, question, None)):
                raise ConfigError(f"Budget.store = {type(store).__name__}: it is no store, for it has no {question}()")
        self._store: MetricsStore = store
        self._per = per
        self._seconds = seconds
        self._collectors: list[weakref.ref[MetricsCollector]] = []
        self.failing = False
        """Whether the last question failed, whatever it was about."""

    def bind_to(self, collector: MetricsCollector) -> None:
        """Calls of this process are recorded by `collector`."""
        self._collectors = [one for one in self._collectors if one() not in (None, collector)]
        self._collectors.append(weakref.ref(collector))

    def ask(self, key: str, at: float, then: Callable[[Answer | None], None]) -> None:
        """Find out what was spent in the window before `at`, and call `then` with it, on another thread.

        `then` gets None where the store cannot be read, or does not answer in time. It may be called before this
        returns.
        """

        async def question() -> None:
            answer = None
            try:
                with suppressed():
                    async with asyncio.timeout(ANSWER_SECONDS), _background.few:
                        answer = await self._answer(key, None if self._seconds is None else at - self._seconds)
            except Exception as error:
                note("budget_store", error)
            self.failing = answer is None
            then(answer)

        asking = question()
        try:
            _background.run(asking)
        except RuntimeError as error:  # no thread is to be had: the interpreter is ending
            asking.close()
            note("budget_store", error)
            then(None)

    async def _answer(self, key: str, start: float | None) -> Answer:
        store, own_arrives = self._source()
        if self._per is None or key:
            tags = None if self._per is None else {self._per: key}
            spent = await store.get_summary(None, start_time=start, tags=tags)
            return Answer(units_of(spent.total_cost), spent.total_tokens, own_arrives)
        # No filter finds calls without a tag: they are what is left of all calls. All of them are asked for last, for
        # what arrives between the two answers must not be taken away from what it is no part of.
        tagged = await store.get_breakdown(f"tag:{self._per}", limit=_EVERY_VALUE, start_time=start)
        whole = await store.get_summary(None, start_time=start)
        dollars, tokens = units_of(whole.total_cost), whole.total_tokens
        for value, spent in tagged.items():
            if value:
                dollars -= units_of(spent.total_cost)
                tokens -= spent.total_tokens
        return Answer(max(0, dollars), max(0, tokens), own_arrives)

    def _source(self) -> tuple[MetricsStore, bool]:
        """The object to ask, and whether it has this process's calls once it has settled.

        That is one sink of all the collectors. It may be another object than the one that was given, as where a sink
        and a budget are both given the same URL: only the sink can settle. Asked for each time, for sinks come and go.
        """
        known = [collector for one in self._collectors if (collector := one()) is not None]
        found = [next(filter(self._is_it, collector.sinks), None) for collector in known]
        if found and found[0] is not None and all(sink is found[0] for sink in found):
            return found[0], True
        return self._store, False

    def _is_it(self, sink: Any) -> bool:
        place = getattr(self._store, "destination", "")
        return sink is self._store or bool(
            place and type(sink) is type(self._store) and getattr(sink, "destination", "") == place
        )


class _DaemonThreads(ThreadPoolExecutor):
    """A thread for each job, for which the end of the program does not wait: a database may hang."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """As the base's."""
        future: Future[T] = Future()

        def work() -> None:
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(fn(*args, **kwargs))
                except BaseException as error:
                    future.set_exception(error)

        threading.Thread(target=work, name="tellmeter-budget-question", daemon=True).start()
        return future


class _Background:
    """The event loop on which all questions of this process are asked, a few at once."""

    def __init__(self) -> None:
        self.few = asyncio.Semaphore(_AT_ONCE)
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def run(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run it there; RuntimeError where no thread can be started any more."""
        with self._lock:
            loop = self._loop
            if loop is None:
                loop = asyncio.new_event_loop()
                loop.set_default_executor(_DaemonThreads())
                try:
                    threading.Thread(target=loop.run_forever, name="tellmeter-budgets", daemon=True).start()
                except RuntimeError:
                    loop.close()
                    raise
                self._loop = loop
        asyncio.run_coroutine_threadsafe(coroutine, loop)


_background = _Background()


def _after_fork() -> None:
    """The parent's thread is not here. Its loop is kept: what the child closes of it, the parent waits for in vain."""
    global _background
    _left.append(_background)
    _background = _Background()


_left: list[_Background] = []
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
