"""One logical call of the LLMClient: its models in turn, each with its attempts, until one answers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TypeVar

from ..collector import MetricsCollector
from ..context import reset
from ..errors import (
    BudgetExceededError,
    ConfigError,
    LLMError,
    MetricError,
    MissingExtra,
    TellmeterError,
)
from ..guard import note
from ..prices import PriceBook
from ..process import get_metrics_collector
from .ask import Ask
from .calls import ClientCall
from .explain import explain
from .providers.base import Delta, Provider, metering
from .reliability.breaker import CircuitBreaker, CircuitBreakerConfig
from .reliability.breaker_metrics import watch
from .reliability.budgets import Budget
from .reliability.limiter import Limiter
from .reliability.retries import RetryPolicy, retried
from .reliability.timeouts import Deadline, Timeouts
from .routing import Route
from .sdks import SDKs
from .turns import Turn

T = TypeVar("T")

PRICES_SECONDS = 5.0
"""How long the first answer may wait for the price list."""


@contextmanager
def metered(call: ClientCall) -> Iterator[None]:
    """A block in which an SDK's requests are attempts of the call."""
    token = metering.set(call.begin)
    try:
        yield
    finally:
        reset(metering, token)


def _cause(told: BaseException, error: BaseException) -> BaseException | None:
    return error.__cause__ if told is error else error


async def _close(source: AsyncGenerator[Delta, None]) -> None:
    try:
        await source.aclose()
    except Exception as error:  # the answer is there, or its error is
        note("client", error)


# What another model cannot do either.
_NO_FALLBACK = frozenset({"validation", "content_filter", "budget", "cancelled"})


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is to be done: whom to ask, in which order, and how long to try."""

    routes: Sequence[Route]
    request_id: str
    operation: str
    method: str
    tags: Mapping[str, str]
    policy: RetryPolicy
    timeouts: Timeouts


def _load(prices: PriceBook, loaded: threading.Event) -> None:
    prices.load()
    loaded.set()


class Calling:
    """What the calls of one LLMClient share: the SDKs, the collector, the breakers, the limit, the budgets."""

    def __init__(
        self,
        collector: MetricsCollector | None,
        sdks: SDKs,
        breaker: CircuitBreakerConfig | None,
        max_concurrency: int | None,
        budgets: Sequence[Budget],
    ) -> None:
        self._own = collector
        self.sdks = sdks
        self.budgets = budgets
        self._breaker_config = breaker
        self._breakers: dict[str, CircuitBreaker] = {}
        self._limiter = None if max_concurrency is None else Limiter(max_concurrency)
        self._ready: MetricsCollector | None = None
        self._loaded = threading.Event()

    @property
    def collector(self) -> MetricsCollector:
        """The client's, or else the process's as it is now: `configure()` may come after the client."""
        return get_metrics_collector() if self._own is None else self._own

    def breaker(self, provider: str) -> CircuitBreaker | None:
        """The provider's circuit breaker, of this client alone."""
        if self._breaker_config is None:
            return None
        found = self._breakers.get(provider)
        if found is None:
            found = self._breakers.setdefault(provider, CircuitBreaker(provider, self._breaker_config))
            if self.collector.config.enabled:
                try:
                    watch(self.collector.registry, found)
                except MetricError as error:  # the program has a metric of its own under such a name
                    note("client", error)
        return found

    def prepare(self) -> None:
        """At a collector's first call, bind the budgets to it, and load its prices on nobody's event loop."""
        collector = self.collector
        if collector is not self._ready:
            self._ready, self._loaded = collector, threading.Event()
            for budget in self.budgets:
                budget.bind_to(collector)
            given = collector.prices, self._loaded
            threading.Thread(target=_load, args=given, name="tellmeter-prices", daemon=True).start()

    async def _priced(self) -> None:
        if not self._loaded.is_set():
            await asyncio.to_thread(self._loaded.wait, PRICES_SECONDS)
            self._loaded.set()  # in a forked child nobody else may be there to do it

    # ------------------------------------------------------------------ whole answers

    async def answer(self, job: Job, work: Callable[[Provider, str], Awaitable[T]]) -> tuple[ClientCall, T]:
        """What `work(provider, model)` gives for the first model that answers, and the call, which has ended.

        Raises:
            LLMError: none did; what the last one that was asked came to.
        """
        deadline = Deadline.after(job.timeouts.total)

        async def once(call: ClientCall, route: Route) -> tuple[T, Turn]:
            turn = await self._turn(call, route, deadline)
            try:
                with metered(call):
                    async with deadline.limit("total"):
                        return await work(await self.sdks.get(route.provider), route.model), turn
            except BaseException as error:
                told = self._told(error, turn, route)
                raise told from _cause(told, error)

        call, (found, turn) = await self._first(job, deadline, once)
        turn.over()
        try:
            await self._priced()
        finally:  # who cancels now has the answer recorded all the same
            self._end(call)
        return call, found

    # ------------------------------------------------------------------ streams

    async def deltas(
        self, job: Job, ask: Ask, opened: Callable[[ClientCall], None]
    ) -> AsyncGenerator[Delta | None, None]:
        """What comes of the first model that answers, as it comes; the first is None, once the answer begins.

        Another attempt, or another model, is tried only before that: nothing is ever said twice. The call ends with the
        generator, whatever ends that.

        Raises:
            LLMError: none answered, or the answer broke off.
        """
        deadline = Deadline.after(job.timeouts.total)

        async def once(call: ClientCall, route: Route) -> tuple[AsyncGenerator[Delta, None], Delta | None, Turn]:
            turn = await self._turn(call, route, deadline)
            try:
                with metered(call):
                    async with deadline.limit("first_token", job.timeouts.first_token):
                        provider = await self.sdks.get(route.provider)
                        source = provider.stream(replace(ask, model=route.model))
                        try:
                            return source, await anext(source, None), turn
                        except BaseException:
                            await _close(source)
                            raise
            except BaseException as error:
                told = self._told(error, turn, route)
                raise told from _cause(told, error)

        call, (source, delta, turn) = await self._first(job, deadline, once)
        try:
            opened(call)
            yield None
            while delta is not None:
                yield delta
                async with deadline.limit("between_chunks", job.timeouts.between_chunks):
                    delta = await anext(source, None)
        except GeneratorExit:
            try:
                await _close(source)
            finally:  # closing may be cancelled, too
                turn.over()
                self._end(call, status="closed_early")
            raise
        except BaseException as error:
            route = Route(call.known_provider, call.model)
            try:
                await _close(source)
            finally:
                told = self._told(error, turn, route)
                self._about(told, route, job.request_id)
                self._end(call, told)
            raise told from _cause(told, error)
        try:
            await _close(source)
            turn.over()
            await self._priced()
        finally:
            turn.over()
            self._end(call)

    # ------------------------------------------------------------------ what both do

    def refuse(self, job: Job, error: LLMError) -> None:
        """Record a call for which nothing is sent."""
        self._about(error, None, job.request_id)
        if isinstance(error, BudgetExceededError) and self.collector.config.enabled:
            self.collector.increment_counter("llm_budget_rejections_total", labels={"budget": error.budget})
        route = job.routes[0] if job.routes else Route("unknown", error.model)
        status = "error" if not job.routes else "rejected"
        self._end(self._call(job, route), error, status)

    async def _first(
        self, job: Job, deadline: Deadline, once: Callable[[ClientCall, Route], Awaitable[T]]
    ) -> tuple[ClientCall, T]:
        try:
            for budget in self.budgets:
                await budget.check(job.tags)
        except LLMError as error:
            self.refuse(job, error)
            raise
        last = len(job.routes) - 1
        failed: LLMError | None = None
        for place, route in enumerate(job.routes):
            call = self._call(job, route, place)
            try:
                return call, await self._attempts(job, deadline, once, call, route)
            except LLMError as error:
                self._about(error, route, job.request_id)
                self._end(call, error)
                if place == last or error.category in _NO_FALLBACK or getattr(error, "limit", "") == "total":
                    raise
                failed = error
                self._count_fallback(route, job.routes[place + 1])
            except (ConfigError, MissingExtra) as error:
                self._end(call, error)
                if failed is None:
                    raise
                note("client", error)  # a fallback that cannot be asked must not hide why it would have been
            except BaseException as error:
                self._end(call, error)
                raise
        assert failed is not None
        raise failed

    async def _attempts(
        self,
        job: Job,
        deadline: Deadline,
        once: Callable[[ClientCall, Route], Awaitable[T]],
        call: ClientCall,
        route: Route,
    ) -> T:
        breaker = self.breaker(route.provider)

        def may_retry(error: LLMError) -> bool:
            # Another attempt would only be refused, and what the provider said would be lost.
            return breaker is None or breaker.state != "open"

        async def attempt() -> T:
            return await once(call, route)

        return await retried(attempt, job.policy, left=deadline.left, may_retry=may_retry)

    async def _turn(self, call: ClientCall, route: Route, deadline: Deadline) -> Turn:
        breaker, limiter = self.breaker(route.provider), self._limiter
        if limiter is not None:
            async with deadline.limit("total"):
                await limiter.acquire()
        try:
            return Turn(call, limiter, None if breaker is None else breaker.acquire())
        except BaseException:
            if limiter is not None:
                limiter.release()
            raise

    @staticmethod
    def _told(error: BaseException, turn: Turn, route: Route) -> BaseException:
        """What is raised for what an SDK, or its time, came to. The turn is over with it."""
        told = error
        if isinstance(error, Exception) and not isinstance(error, TellmeterError):
            told = explain(error, route.provider, route.model)
        turn.over(told)
        return told

    def _call(self, job: Job, route: Route, place: int = 0) -> ClientCall:
        tags = job.tags
        if place:
            tags = {**tags, "fallback_for": job.routes[0].model}
        return ClientCall(
            self.collector,
            provider=route.provider,
            model=route.model,
            operation=job.operation,
            method=job.method,
            request_id=job.request_id,
            tags=tags,
        )

    def _end(self, call: ClientCall, error: BaseException | None = None, status: str = "") -> None:
        """End a call by what was raised: by the SDK's own exception where there is one."""
        if isinstance(error, LLMError):
            # What an SDK raised is best read on the wire; what we raise ourselves is not what the last attempt came to.
            call.category = None if call.exchanges and error.original_error is not None else error.category
            call.refused = not call.exchanges
            if not status and error.category in ("circuit_open", "budget"):
                status = "rejected"
            call.end(status, error.original_error or error)
        else:
            if isinstance(error, asyncio.CancelledError):
                call.category = "cancelled"
            call.end(status, error)
        record = call.record
        if record is not None and not call.refused:
            for budget in self.budgets:
                budget.spend(record.tags, record.cost_usd, record.total_tokens)

    @staticmethod
    def _about(error: BaseException, route: Route | None, request_id: str) -> None:
        if not isinstance(error, LLMError):
            return
        if route is not None:
            error.provider = error.provider or route.provider
            error.model = error.model or route.model
        error.request_id = request_id

    def _count_fallback(self, route: Route, following: Route) -> None:
        if self.collector.config.enabled:
            labels = {"provider": route.provider, "model": route.model, "fallback_model": following.model}
            self.collector.increment_counter("llm_fallbacks_total", labels=labels)
