"""An LLMClient against a simulator with scripted faults: what it gave, recorded and counted, and what was served."""

from __future__ import annotations

import asyncio
import functools
import logging
import threading
from collections import Counter
from collections.abc import Awaitable, Mapping
from types import TracebackType
from typing import Any

import msgspec
import pytest

from tellmeter import (
    AgentMetrics,
    InMemoryMetricsSink,
    LLMClient,
    LLMError,
    MetricsConfig,
    MetricsRegistry,
    RetryPolicy,
)
from tellmeter.client import calling
from tellmeter.client.reliability.retries import retried
from tellmeter.simulator.playing import Served
from tellmeter.simulator.server import SimulatorServer
from tellmeter.simulator.traffic import Traffic
from tellmeter.testing.contract_kit import poll

CANARY = "canary-5e1f"
KEY = f"sk-{CANARY}"
ASK = f"Tell me all about {CANARY}."
MODEL = "gpt-4o"
CLAUDE = "claude-haiku-4-5"
SOON = RetryPolicy(initial_delay=0.0)
ONCE = RetryPolicy(max_attempts=1)
_ZERO = ("llm_active_requests", "llm_active_streams")


class Lab:
    """`async with Lab("500", "429") as lab:` (or `with`): a client whose next requests meet these faults.

    At its end the account must add up: what the registry counted is what the records say and what the server saw,
    nothing is in progress, and nobody quoted a prompt, an answer, a key or a provider.

    unsent: attempts that never reached the server, which the records know of.
    """

    def __init__(
        self, *faults: str, speed: float = 0.0, config: Mapping[str, Any] | None = None, unsent: int = 0, **options: Any
    ) -> None:
        self.server = SimulatorServer(Traffic(speed=speed, most_tokens=20), faults=faults)
        self.sink = InMemoryMetricsSink(ttl_seconds=None, max_size=100_000)
        self.registry: MetricsRegistry = options.pop("registry", None) or MetricsRegistry()
        self.unsent = unsent
        self.errors: list[LLMError] = []
        self.said: list[str] = []
        self._config = MetricsConfig(**(config or {}))
        self._options = options
        self._log = _Log()

    def start(self) -> Lab:
        self.server.start()
        self.client = self.another(sinks=[self.sink], **self._options)
        logging.getLogger("tellmeter").addHandler(self._log)
        return self

    def another(self, *, sinks: Any = (), **options: Any) -> LLMClient:
        """A client like this one, of the same server and registry."""
        made = {
            "metrics_config": self._config,
            "metrics_sinks": sinks,
            "registry": self.registry,
            "api_keys": {"openai": KEY, "anthropic": KEY},
            "base_urls": {"openai": self.server.openai_url, "anthropic": self.server.url},
            "retry_policy": SOON,
        }
        return LLMClient(**{**made, **options})

    # ------------------------------------------------------------------ asking

    async def generate(self, model: str = MODEL, **options: Any) -> Any:
        """The answer, or the LLMError."""
        return await self.outcome(self.client.generate(ASK, model=model, **options))

    async def stream(self, model: str = MODEL, **options: Any) -> tuple[str, Any]:
        """The text that came, and the LLMError or None."""
        response = self.client.stream_with_usage(ASK, model=model, **options)

        async def read() -> None:
            async for _ in response:
                pass

        error = await self.outcome(read())
        if response.get_text():
            self.said.append(response.get_text())
        return response.get_text(), error

    async def outcome(self, asked: Awaitable[Any]) -> Any:
        try:
            found = await asked
        except LLMError as error:
            self.errors.append(error)
            return error
        if text := getattr(found, "text", ""):
            self.said.append(text)
        return found

    # ------------------------------------------------------------------ what is known of it

    @property
    def served(self) -> list[Served]:
        return list(self.server.served)

    def records(self) -> list[AgentMetrics]:
        """All records, the first call first."""
        assert self.client.metrics_collector.flush_sync(60).complete
        return list(self.sink._rows())

    def record(self) -> AgentMetrics:
        (record,) = self.records()
        return record

    def counts(self, name: str, *labels: str) -> dict[str, float]:
        """The samples of a metric that are not 0, added up by the values of these labels."""
        return counts_of(self.registry, name, *labels)

    async def wait_served(self, number: int) -> None:
        """Until so many requests have arrived."""
        await asyncio.to_thread(
            poll, lambda: len(self.served) >= number, lambda: f"{len(self.served)} of {number} requests"
        )

    # ------------------------------------------------------------------ its end

    def check(self) -> None:
        """The account adds up."""
        collector = self.client.metrics_collector
        records = self.records()
        assert not collector.open_calls
        for name in _ZERO:
            assert not self.counts(name, "model"), name
        assert collector.stats().balanced
        if len(records) == collector.stats().recorded and collector.config.enabled:
            self._check_counts(records)
        self._check_secrets(records)

    def _check_counts(self, records: list[AgentMetrics]) -> None:
        failed = [record for record in records if record.status in ("error", "timeout", "rejected")]
        assert self.counts("llm_requests_total", "status") == Counter(record.status for record in records)
        assert self.counts("llm_errors_total", "error_class") == Counter(record.error_class for record in failed)
        assert sum(self.counts("llm_retries_total").values()) == sum(record.retries for record in records)
        attempts = self.counts("llm_attempts_total", "status")
        assert sum(attempts.values()) == len(self.served) + self.unsent, (attempts, self.served)
        costs = sum(record.cost_usd or 0.0 for record in records)
        assert sum(self.counts("llm_cost_dollars_total").values()) == pytest.approx(costs)
        for record in records:
            assert (record.status == "success") == (record.error_category is None), record
            assert record.request_id

    def _check_secrets(self, records: list[AgentMetrics]) -> None:
        told = [*map(str, self.errors), *map(repr, self.errors), msgspec.json.encode(records).decode(), repr(records)]
        told += [*self._log.lines, repr(self.client), repr(self.client.metrics_collector.stats())]
        told.append(self.registry.text().decode())
        secrets = {CANARY, "The server had an error", "Rate limit reached", "Incorrect API key", "invalid x-api-key"}
        secrets |= {text for text in self.said if len(text) > 10}
        for text in told:
            assert not [secret for secret in secrets if secret in text], text

    def __enter__(self) -> Lab:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.check()
        finally:
            self.client.close()
            self._stop()

    async def __aenter__(self) -> Lab:
        return self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                await asyncio.to_thread(self.check)
        finally:
            await self.client.aclose()
            self._stop()

    def _stop(self) -> None:
        logging.getLogger("tellmeter").removeHandler(self._log)
        threading.Thread(target=self.server.stop).start()  # a fifth of a second, which nobody waits for


def counts_of(registry: MetricsRegistry, name: str, *labels: str) -> dict[str, float]:
    """The samples of a counter or gauge that are not 0, added up by the values of these labels."""
    found: Counter[str] = Counter()
    for family in registry.collect():
        for sample in family.samples:
            if sample.name == name:
                found[",".join(sample.labels[label] for label in labels)] += sample.value
    return {key: value for key, value in found.items() if value}


def no_sleep(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Pauses between attempts take no time; how long each would have been."""
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        await asyncio.sleep(0)

    monkeypatch.setattr(calling, "retried", functools.partial(retried, sleep=sleep))
    return pauses


def has(record: AgentMetrics, **expected: Any) -> bool:
    """Whether a record says this; the assertion shows what else it says."""
    said = {name: getattr(record, name) for name in expected}
    assert said == expected
    return True


class _Log(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))
