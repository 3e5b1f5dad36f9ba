"""agent_run and tool_call: what runs around LLM calls, as spans, counts, and tags of the calls inside."""

from __future__ import annotations

import contextvars
import time
from collections.abc import Callable, Mapping
from types import FunctionType
from typing import Any, NamedTuple, cast

from ..call import status_of
from ..cleaning import clean_tags
from ..context import reset, tags_in_force
from ..instruments.metric import CounterMetric, HistogramMetric
from ..instruments.steps import stepwise
from ..instruments.wrapping import SUCCESS, Block, F, Observation, kind_of, wrapped
from ..process import is_switched_off
from .noop import Span
from .scopes import OpenSpan
from .tracing import get_tracing_manager

clock = time.perf_counter


class _Kind(NamedTuple):
    """What both have, in the names of the GenAI conventions v1.41.1 and of the catalogue."""

    operation: str
    tag: str
    name: str
    id: str
    counter: str
    seconds: str


_AGENT = _Kind(
    operation="invoke_agent",
    tag="agent",
    name="gen_ai.agent.name",
    id="gen_ai.agent.id",
    counter="agent_runs_total",
    seconds="agent_run_duration_seconds",
)
_TOOL = _Kind(
    operation="execute_tool",
    tag="tool",
    name="gen_ai.tool.name",
    id="gen_ai.tool.call.id",
    counter="tool_calls_total",
    seconds="tool_call_duration_seconds",
)

# The run of the generator that is about to take its first step.
_begun: contextvars.ContextVar[_Run | None] = contextvars.ContextVar("tellmeter_begun_run", default=None)


class _Run(Observation):
    """One run, which code enters and leaves: a generator at every step."""

    __slots__ = ("_opened", "_scope", "_started", "_token")

    def __init__(self, scope: AgentScope, opened: OpenSpan) -> None:
        self._scope = scope
        self._opened = opened
        self._token: contextvars.Token[Mapping[str, str]] | None = None
        self._started = clock()

    def enter(self) -> None:
        """What begins from here on is inside."""
        self._opened.enter()
        self._token = tags_in_force.set({**tags_in_force.get(), **self._scope.tags})

    def leave(self) -> None:
        """What begins from here on is not."""
        token, self._token = self._token, None
        if token is not None:
            reset(tags_in_force, token)
        self._opened.leave()

    def end(self, outcome: str, result: object, error: BaseException | None) -> None:
        """Count the run and end its span."""
        seconds = clock() - self._started
        self.leave()
        self._opened.close(error)
        self._scope.count(outcome if outcome == SUCCESS or error is None else status_of(error), seconds)


class AgentScope(Block):
    """What `agent_run` and `tool_call` give: a block that yields its span, and a decorator."""

    def __init__(self, kind: _Kind, name: object, identity: object, attributes: Mapping[str, Any]) -> None:
        self.tags = clean_tags({kind.tag: name})
        self._known = self.tags.get(kind.tag, "")
        self._title = f"{kind.operation} {self._known}".strip()
        self._attributes = {
            "gen_ai.operation.name": kind.operation,
            kind.name: self._known or None,
            kind.id: identity,
            **attributes,
        }
        self._counter = CounterMetric(kind.counter, self.tags, "status")
        self._seconds = HistogramMetric(kind.seconds, self.tags)

    def count(self, status: str, seconds: float) -> None:
        """Count a run that ended."""
        if not is_switched_off():
            self._counter.series(status).inc()
            self._seconds.series().observe(seconds)

    def __call__(self, function: F) -> F:
        """The function, with each of its calls a run. Raises TypeError for a class, or what cannot be called."""
        given: Any = function
        if isinstance(given, (classmethod, staticmethod)):
            return cast("F", type(given)(self(given.__func__)))
        if type(given) is FunctionType and (kind := kind_of(given)) in ("generator", "async_generator"):
            return cast("F", wrapped(stepwise(given, kind, _begun_run), self._open_steps))
        return cast("F", wrapped(given, self._open))

    def __enter__(self) -> Span:  # type: ignore[override]
        super().__enter__()
        return get_tracing_manager().get_current_span()

    async def __aenter__(self) -> Span:  # type: ignore[override]
        return self.__enter__()

    def _open(self, function: Callable[..., Any] | None, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Run:
        run = _Run(self, get_tracing_manager().begin(self._title, attributes=self._attributes))
        run.enter()
        return run

    def _open_steps(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Run:
        run = self._open(function, args, kwargs)
        _begun.set(run)
        return run


def agent_run(name: str, agent_id: str | None = None, **attributes: Any) -> AgentScope:
    """A run of an agent: a span `invoke_agent <name>`, with `with`, `async with`, or as a decorator.

    LLM calls and tools inside are children of the span, and have the tag `agent`; runs may nest, and the inner name
    then wins. Counted in `agent_runs_total` and `agent_run_duration_seconds`, by its status: success, error, timeout,
    cancelled. Without OpenTelemetry there are counts and tags only.

    Args:
        name: of the agent; few different ones, as each is a series.
        agent_id: the provider's, where it has one.
        attributes: more of the span's; see `TracingManager.set_attributes`. A name with dots is given as
            `**{"gen_ai.conversation.id": "c1"}`.
    """
    return AgentScope(_AGENT, name, agent_id, attributes)


def tool_call(name: str, call_id: str | None = None, **attributes: Any) -> AgentScope:
    """A call of a tool: a span `execute_tool <name>`, otherwise as `agent_run`; the tag is `tool`.

    Counted in `tool_calls_total` and `tool_call_duration_seconds`.

    Args:
        name: of the tool.
        call_id: by which the model asked for it.
        attributes: as of `agent_run`.
    """
    return AgentScope(_TOOL, name, call_id, attributes)


def _begun_run() -> _Run | None:
    run = _begun.get()
    _begun.set(None)
    return run
