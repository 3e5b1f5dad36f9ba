"""LLMCalls: the calls that a test's code made, and short questions about them for its asserts."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any, overload

from ..errors import ConfigError
from ..process import get_metrics_collector, watched
from ..records import AgentMetrics
from ..wire import hooks

SETTLE_SECONDS = 10.0  # a question waits at most this long for the calls that ended before it
_TABLE_ROWS = 30
_COLUMNS = ("model", "provider", "method", "status", "input", "output", "cost_usd", "latency_ms")


class LLMCalls:
    """Calls in the order in which they ended. Every question first waits for the records of calls that have ended.

    Tokens and cost are as in `AgentMetrics`; calls in progress are not in it.
    """

    def __init__(self, records: Iterable[AgentMetrics] = (), settle: Callable[[], object] | None = None) -> None:
        self._records = list(records)
        self._settle = settle

    def _now(self) -> list[AgentMetrics]:
        if self._settle is not None:
            self._settle()
        return list(self._records)

    def __len__(self) -> int:
        return len(self._now())

    def __iter__(self) -> Iterator[AgentMetrics]:
        return iter(self._now())

    @overload
    def __getitem__(self, index: int) -> AgentMetrics: ...
    @overload
    def __getitem__(self, index: slice) -> LLMCalls: ...
    def __getitem__(self, index: int | slice) -> AgentMetrics | LLMCalls:
        found = self._now()
        return LLMCalls(found[index]) if isinstance(index, slice) else found[index]

    def filter(self, test: Callable[[AgentMetrics], object] | None = None, /, **fields: Any) -> LLMCalls:
        """The calls until now that pass `test` and have these values in their fields, as `model="gpt-4o"`.

        `tags` is a mapping that must be part of the call's tags.

        Raises:
            ConfigError: a field that records do not have.
        """
        for name in fields:
            if name not in _FIELDS:
                raise ConfigError(f"{name} is no field of a call; there are {', '.join(_FIELDS)}")
        tags = fields.pop("tags", {})
        return LLMCalls(
            record
            for record in self._now()
            if all(getattr(record, name) == value for name, value in fields.items())
            and tags.items() <= record.tags.items()
            and (test is None or test(record))
        )

    def count(self, test: Callable[[AgentMetrics], object] | None = None, /, **fields: Any) -> int:
        """How many calls `filter` finds."""
        return len(self.filter(test, **fields))

    def clear(self) -> None:
        """Forget the calls until now."""
        self._now()
        self._records.clear()

    @property
    def cost_usd(self) -> float:
        """US dollars of all calls whose price is known; `unpriced` tells how many others there are."""
        return sum(record.cost_usd or 0.0 for record in self)

    @property
    def unpriced(self) -> int:
        """How many calls have no known price."""
        return sum(record.cost_usd is None for record in self)

    @property
    def input_tokens(self) -> int:
        """Of all calls together."""
        return sum(record.input_tokens for record in self)

    @property
    def output_tokens(self) -> int:
        """Of all calls together."""
        return sum(record.output_tokens for record in self)

    @property
    def total_tokens(self) -> int:
        """Input and output of all calls together."""
        return sum(record.total_tokens for record in self)

    @property
    def retries(self) -> int:
        """Attempts after the first, of all calls together."""
        return sum(record.retries for record in self)

    @property
    def latency_ms(self) -> float:
        """Milliseconds of the slowest call (calls may run side by side, so that a sum would be nobody's wait)."""
        return max((record.latency_ms for record in self), default=0.0)

    @property
    def models(self) -> dict[str, int]:
        """Model -> number of calls, most first."""
        return dict(Counter(record.model for record in self).most_common())

    @property
    def errors(self) -> dict[str, int]:
        """Class of error -> number of calls that failed with it, most first; the status where there was no class."""
        return dict(Counter(record.error_class or record.status for record in self if record.failed).most_common())

    def __repr__(self) -> str:
        # One line: pytest shows it inside of others. str() is the table.
        calls = LLMCalls(self)
        models = ", ".join(f"{number} x {model}" for model, number in list(calls.models.items())[:4])
        told = [
            f"{len(calls)} {'call' if len(calls) == 1 else 'calls'}" + (f" ({models})" if models else ""),
            f"{calls.input_tokens} + {calls.output_tokens} tokens",
            f"{calls.cost_usd:.6g} USD" + (f" and {calls.unpriced} unpriced" if calls.unpriced else ""),
        ]
        failed = sum(calls.errors.values())
        return f"<LLMCalls: {', '.join(told)}{f', {failed} failed' if failed else ''}>"

    def __str__(self) -> str:
        records = self._now()
        rows = [_COLUMNS, *(_row(record) for record in records[:_TABLE_ROWS])]
        widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
        lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        if len(records) > _TABLE_ROWS:
            lines.append(f"... and {len(records) - _TABLE_ROWS} more")
        return "\n".join([*lines, repr(LLMCalls(records))])

    def over_budget(
        self, *, usd: float | None = None, calls: int | None = None, tokens: int | None = None
    ) -> list[str]:
        """What was exceeded, as `3 of 2 calls`; empty where all is within bounds."""
        now = LLMCalls(self)
        spent = (
            ("USD", now.cost_usd, usd),
            ("calls", len(now), calls),
            ("tokens", now.total_tokens, tokens),
        )
        return [
            f"{used:.6g} of {allowed:g} {unit}"
            for unit, used, allowed in spent
            if allowed is not None and used > allowed
        ]


_FIELDS = AgentMetrics.__struct_fields__


def _row(record: AgentMetrics) -> tuple[str, ...]:
    return (
        record.model[:40],
        record.provider,
        record.method,
        record.error_class or record.status,
        str(record.input_tokens),
        str(record.output_tokens),
        "unknown" if record.cost_usd is None else f"{record.cost_usd:.6f}",
        f"{record.latency_ms:.1f}",
    )


@contextlib.contextmanager
def recorded_calls() -> Iterator[LLMCalls]:
    """The LLM calls that this process makes while it runs: everything is instrumented, and put back at the end.

    Calls that the program gives to a collector of its own are not in it.
    """
    calls = LLMCalls(settle=_settle)

    def see(record: AgentMetrics) -> bool:
        calls._records.append(record)
        return True

    with watched(see), _metering_all():
        yield calls
        calls._now()  # before the collectors are gone
    calls._settle = None


def _settle() -> None:
    get_metrics_collector()._router.drain(SETTLE_SECONDS)


@contextlib.contextmanager
def _metering_all() -> Iterator[None]:
    """`instrument()` for the process's collector, whatever it was for; at the end as it was."""
    with hooks._lock:
        metered_all, target, alone = hooks._metering_all, hooks._target, bool(hooks._single)
        hooks._metering_all = False
        hooks.instrument()
    try:
        yield
    finally:
        with hooks._lock:
            if alone:  # clients that were metered alone stay so
                hooks._metering_all, hooks._target = False, None
            else:
                hooks.uninstrument()
            if metered_all:
                hooks.instrument(collector=target)
