from __future__ import annotations

import asyncio
import contextvars
import threading

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from tellmeter import tags
from tellmeter.context import current_trace, suppressed, suppression, tags_in_force


def test_tags_nest_and_inner_values_win() -> None:
    with tags(feature="search", tenant="acme"):
        with tags(feature="rerank", step=2):
            assert tags_in_force.get() == {"feature": "rerank", "tenant": "acme", "step": "2"}
        assert tags_in_force.get() == {"feature": "search", "tenant": "acme"}
    assert tags_in_force.get() == {}


def test_tags_of_concurrent_tasks_do_not_mix() -> None:
    seen: dict[str, object] = {}

    async def work(name: str, gate: asyncio.Barrier) -> None:
        async with tags(feature=name):
            await gate.wait()
            seen[name] = dict(tags_in_force.get())

    async def main() -> None:
        gate = asyncio.Barrier(3)
        await asyncio.gather(*(work(name, gate) for name in "abc"))

    asyncio.run(main())
    assert seen == {name: {"feature": name} for name in "abc"}


def test_tags_follow_threads_that_run_in_the_callers_context() -> None:
    seen = []
    with tags(feature="search"):
        copied = contextvars.copy_context()
        thread = threading.Thread(target=lambda: copied.run(lambda: seen.append(dict(tags_in_force.get()))))
        thread.start()
        thread.join()

        async def main() -> None:
            seen.append(await asyncio.to_thread(lambda: dict(tags_in_force.get())))

        asyncio.run(main())
    assert seen == [{"feature": "search"}] * 2


def test_one_tags_object_can_be_entered_again() -> None:
    again = tags(a=1)
    with again, again:
        assert tags_in_force.get() == {"a": "1"}
    assert tags_in_force.get() == {}


def test_suppression_ends_with_its_block() -> None:
    with suppressed():
        assert suppression.get()
    assert not suppression.get()


def test_the_current_spans_ids_are_known_and_its_parents() -> None:
    assert current_trace() == (None, None, None)
    tracer = TracerProvider().get_tracer("test")
    with tracer.start_as_current_span("outer") as outer, tracer.start_as_current_span("inner") as inner:
        found = current_trace()
    assert found.trace_id == trace.format_trace_id(inner.get_span_context().trace_id)
    assert found.span_id == trace.format_span_id(inner.get_span_context().span_id)
    assert found.parent_id == trace.format_span_id(outer.get_span_context().span_id)
