from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.trace import SpanKind, StatusCode

from tellmeter import MetricsRegistry, get_logger
from tellmeter.context import tags_in_force
from tellmeter.instruments import metric
from tellmeter.telemetry.agents import agent_run, tool_call
from tests.support.decorated import Boom
from tests.support.traced import NAME, Traced, ask, attributes_of, client, parent_of, traced
from tests.support.tracing import without_opentelemetry


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> MetricsRegistry:
    made = MetricsRegistry(strict=True)
    monkeypatch.setattr(metric, "get_metrics_registry", lambda: made)
    return made


@pytest.fixture
def seen(registry: MetricsRegistry) -> Iterator[Traced]:
    with traced() as found:
        yield found
    assert tags_in_force.get() == {}
    assert not trace.get_current_span().get_span_context().is_valid


def runs(registry: MetricsRegistry, **labels: str) -> float:
    return float(registry.get_metric_stats("agent_runs_total", labels)["sum"])


def test_calls_and_tools_are_inside_the_run_and_have_its_name(seen: Traced, registry: MetricsRegistry) -> None:
    with agent_run("planner", agent_id="a1") as run:
        ask(client())
        with tool_call("search", call_id="call_1") as call:
            call.set_attribute("found", 3)
        run.set_attribute("steps", 2)
    planner, search = seen.span("invoke_agent planner"), seen.span("execute_tool search")
    assert (planner.kind, search.kind) == (SpanKind.INTERNAL, SpanKind.INTERNAL)
    assert parent_of(search) == parent_of(seen.span(NAME)) == planner.context.span_id
    assert attributes_of(planner) == {
        "gen_ai.operation.name": "invoke_agent",
        "gen_ai.agent.name": "planner",
        "gen_ai.agent.id": "a1",
        "steps": 2,
    }
    assert attributes_of(search) == {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "search",
        "gen_ai.tool.call.id": "call_1",
        "found": 3,
    }
    assert seen.record().tags == {"agent": "planner"}
    assert runs(registry, agent="planner", status="success") == 1
    assert registry.get_metric_stats("agent_run_duration_seconds", {"agent": "planner"})["count"] == 1
    assert registry.get_metric_stats("tool_calls_total", {"tool": "search", "status": "success"})["sum"] == 1
    assert registry.get_metric_stats("tool_call_duration_seconds", {"tool": "search"})["count"] == 1


def test_runs_nest_and_the_inner_name_wins(seen: Traced, registry: MetricsRegistry) -> None:
    with agent_run("outer"):
        with agent_run("inner"), tool_call("ask"):
            assert tags_in_force.get() == {"agent": "inner", "tool": "ask"}
        assert tags_in_force.get() == {"agent": "outer"}
    assert parent_of(seen.span("invoke_agent inner")) == seen.span("invoke_agent outer").context.span_id
    assert runs(registry) == 2


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (Boom("canary"), "error", StatusCode.ERROR),
        (TimeoutError("canary"), "timeout", StatusCode.ERROR),
        (asyncio.CancelledError("canary"), "cancelled", StatusCode.UNSET),
    ],
)
def test_what_ends_a_run_goes_on_and_is_told_by_its_class(
    seen: Traced, registry: MetricsRegistry, error: BaseException, status: str, code: StatusCode
) -> None:
    with pytest.raises(type(error)) as caught, agent_run("planner"):
        raise error
    assert caught.value is error
    span = seen.span("invoke_agent planner")
    assert span.status.status_code is code and "canary" not in span.to_json()
    assert ("error.type" in attributes_of(span)) is (code is StatusCode.ERROR)
    assert runs(registry, agent="planner", status=status) == runs(registry) == 1


def test_tasks_have_runs_of_their_own(seen: Traced) -> None:
    async def one(name: str) -> None:
        async with agent_run(name) as run:
            await asyncio.sleep(0)
            assert tags_in_force.get() == {"agent": name}
            assert trace.get_current_span() is run

    async def both() -> None:
        await asyncio.gather(one("a"), one("b"))

    asyncio.run(both())
    assert {span.name for span in seen.spans()} == {"invoke_agent a", "invoke_agent b"}


def test_functions_of_all_kinds_are_decorated(seen: Traced, registry: MetricsRegistry) -> None:
    def inside() -> str:
        return str(trace.get_current_span().name)  # type: ignore[attr-defined]

    @tool_call("t")
    def plain() -> str:
        return inside()

    @tool_call("t")
    async def coroutine() -> str:
        return inside()

    class Tools:
        @tool_call("t")
        @staticmethod
        def static() -> str:
            return inside()

    @tool_call("t")
    def generator() -> Iterator[str]:
        yield inside()
        yield inside()

    @tool_call("t")
    async def async_generator() -> Any:
        yield inside()

    async def items() -> list[str]:
        found = []
        async for item in async_generator():
            assert tags_in_force.get() == {}
            found.append(item)
        return found

    told = [plain(), asyncio.run(coroutine()), Tools.static(), *asyncio.run(items())]
    for item in generator():
        told.append(item)
        # What consumes a generator is not inside its run.
        assert tags_in_force.get() == {} and not trace.get_current_span().get_span_context().is_valid
    assert told == ["execute_tool t"] * 6
    assert len(seen.spans()) == 5
    assert registry.get_metric_stats("tool_calls_total", {"tool": "t", "status": "success"})["sum"] == 5


def test_a_generator_that_is_closed_early_is_cancelled(seen: Traced, registry: MetricsRegistry) -> None:
    @agent_run("planner")
    def steps() -> Iterator[int]:
        yield 1
        yield 2

    running = steps()
    next(running)
    running.close()  # type: ignore[attr-defined]
    assert runs(registry, agent="planner", status="cancelled") == 1
    assert seen.span("invoke_agent planner").status.status_code is StatusCode.UNSET


@pytest.mark.parametrize("name", ["", "x" * 5000, "a\nb\ud800", None, 7])
def test_odd_names_and_attributes_neither_raise_nor_stop_the_exporter(
    seen: Traced, monkeypatch: pytest.MonkeyPatch, name: Any
) -> None:
    monkeypatch.setattr(metric, "get_metrics_registry", MetricsRegistry)
    with agent_run(name, agent_id=object(), secret=object(), many=list(range(500))):  # type: ignore[arg-type]
        pass
    (span,) = seen.spans()
    assert attributes_of(span)["secret"] == "object"
    encode_spans([span]).SerializeToString()


def test_lines_of_the_log_have_the_ids_of_the_run(seen: Traced, caplog: pytest.LogCaptureFixture) -> None:
    with agent_run("planner") as run:
        get_logger("test.agents").warning("thinking")
    ids = run.get_span_context()
    (line,) = [record for record in caplog.records if record.name == "test.agents"]
    assert (line.trace_id, line.span_id) == (f"{ids.trace_id:032x}", f"{ids.span_id:016x}")  # type: ignore[attr-defined]
    assert line.tags == {"agent": "planner"}  # type: ignore[attr-defined]


def test_without_opentelemetry_there_are_counts_and_tags(registry: MetricsRegistry) -> None:
    with without_opentelemetry(), agent_run("planner") as run:
        run.set_attribute("a", 1)
        run.add_event("step")
        assert not run.is_recording()
        assert tags_in_force.get() == {"agent": "planner"}
    assert runs(registry, agent="planner", status="success") == 1


def test_it_is_there_where_opentelemetry_is_not_installed() -> None:
    program = (
        "import sys; sys.modules['opentelemetry'] = None\n"
        "from tellmeter.telemetry.agents import agent_run\n"
        "from tellmeter import get_metrics_registry\n"
        "with agent_run('planner'): pass\n"
        "print(get_metrics_registry().get_metric_stats('agent_runs_total')['sum'])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (float(done.stdout), done.stderr) == (1.0, "")


def test_metering_that_is_off_counts_nothing(seen: Traced, registry: MetricsRegistry, monkeypatch: Any) -> None:
    monkeypatch.setattr("tellmeter.telemetry.agents.is_switched_off", lambda: True)
    with agent_run("planner"):
        pass
    assert registry.get_all_metrics() == {}
    assert seen.span("invoke_agent planner")
