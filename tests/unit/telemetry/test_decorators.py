import asyncio
import contextlib
import functools
import inspect

import pytest
from opentelemetry.trace import SpanKind, StatusCode

from tellmeter.counts import snapshot
from tellmeter.telemetry import decorators
from tellmeter.telemetry.decorators import trace_method, trace_operation
from tellmeter.telemetry.tracing import get_current_span, set_span_attribute, start_span
from tests.support.decorated import step
from tests.support.hostile import Raising
from tests.support.tracing import recorded, without_opentelemetry


@pytest.fixture
def spans():
    with recorded() as found:
        yield found


def nowhere():
    return not get_current_span().get_span_context().is_valid


def test_a_function_is_in_a_span_of_its_name(spans):
    @trace_operation
    def work(number, *, text="a"):
        assert not nowhere()
        return number, text

    result = work(1, text="b")
    assert result == (1, "b")
    assert nowhere()
    (span,) = spans.all
    assert span.name == f"{__name__}.work"
    assert span.kind is SpanKind.INTERNAL
    assert dict(span.attributes) == {"code.function.name": f"{__name__}.{work.__qualname__}"}
    assert inspect.signature(work) == inspect.signature(work.__wrapped__)
    assert work.__name__ == "work"


def test_a_coroutine_function_stays_one(spans):
    @trace_operation(name="database_query", kind="client", attributes={"db": "users", "odd": object()})
    async def query(sql):
        set_span_attribute("rows", 3)
        await asyncio.sleep(0)
        return sql

    assert inspect.iscoroutinefunction(query)
    assert asyncio.run(query("select")) == "select"
    span = spans["database_query"]
    assert span.kind is SpanKind.CLIENT
    assert span.attributes["rows"] == 3 and span.attributes["db"] == "users" and span.attributes["odd"] == "object"


def test_what_it_raises_is_recorded_once_and_is_the_same(spans):
    error = ValueError("the prompt")

    @trace_operation("failing")
    async def failing():
        raise error

    with pytest.raises(ValueError, match="the prompt") as raised:
        asyncio.run(failing())
    assert raised.value is error
    span = spans["failing"]
    assert span.status.status_code is StatusCode.ERROR
    assert [event.name for event in span.events] == ["exception"]
    assert "the prompt" not in span.to_json()


def test_a_cancelled_task_is_no_error(spans):
    @trace_operation("cancelled")
    async def wait():
        await asyncio.Event().wait()

    async def main():
        task = asyncio.create_task(wait())
        await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert spans["cancelled"].status.status_code is StatusCode.UNSET


def test_a_generator_is_in_its_span_and_its_consumer_is_not(spans):
    @trace_operation("outer")
    def outer():
        with start_span("inner"):
            got = yield 1
            assert got == "sent"
            assert get_current_span().name == "inner"
        assert get_current_span().name == "outer"
        yield 2
        return "returned"

    generator = outer()
    assert not spans.all and nowhere()
    assert next(generator) == 1
    assert nowhere()
    assert generator.send("sent") == 2
    assert nowhere()
    with pytest.raises(StopIteration) as stop:
        next(generator)
    assert stop.value.value == "returned"
    assert nowhere()
    assert spans["inner"].parent.span_id == spans["outer"].context.span_id


def test_generators_that_take_turns_do_not_mix(spans):
    @trace_operation
    async def numbers(name):
        for number in range(3):
            with start_span(f"{name}{number}"):
                await asyncio.sleep(0)
            yield number

    async def main():
        one, two = numbers("a"), numbers("b")
        with start_span("main"):
            for _ in range(2):
                await anext(one)
                await anext(two)
            assert get_current_span().name == "main"
        await two.aclose()  # never told
        async for _ in one:
            assert nowhere()

    asyncio.run(main())
    parents = {span.name: span.parent.span_id for span in spans.all if span.name[0] in "ab" and len(span.name) == 2}
    assert parents["a0"] == parents["a1"] == parents["a2"] != parents["b0"] == parents["b1"]
    ended = [span for span in spans.all if span.name.endswith(".numbers")]
    assert {span.parent.span_id for span in ended} == {spans["main"].context.span_id}
    assert {span.status.status_code for span in ended} == {StatusCode.UNSET}


def test_a_generator_whose_steps_run_in_different_contexts(spans, caplog):
    @trace_operation("steps")
    def steps():
        yield 1
        yield 2

    async def main():
        generator = steps()
        for _ in range(2):
            await asyncio.to_thread(next, generator)
            assert nowhere()
        generator.close()

    asyncio.run(main())
    assert spans["steps"].status.status_code is StatusCode.UNSET
    assert not caplog.records


class Tool:
    @trace_method
    def run(self):
        return self

    @trace_method()
    async def arun(self, number):
        return number

    @trace_method(kind="client")
    def items(self):
        yield 1

    @classmethod
    @trace_method
    def make(cls):
        return cls()

    @trace_method
    @classmethod
    def build(cls):
        return cls()

    @staticmethod
    @trace_method
    def helper(text):
        return text

    @trace_method
    @staticmethod
    def assist(text):
        return text


class Search(Tool):
    pass


def test_methods_of_all_kinds_have_the_name_of_their_class(spans):
    tool, search = Tool(), Search()
    assert tool.run() is tool and search.run() is search
    assert asyncio.run(search.arun(3)) == 3
    assert list(tool.items()) == [1]
    assert type(Search.make()) is type(Search.build()) is Search
    assert Tool.helper("a") == tool.assist("a") == "a"
    names = [span.name for span in spans.all]
    assert names == [
        "Tool.run",
        "Search.run",
        "Search.arun",
        "Tool.items",
        "Search.make",
        "Search.build",
        "Tool.helper",
        "Tool.assist",
    ]
    assert spans.all[3].kind is SpanKind.CLIENT
    assert spans.all[1].attributes["code.function.name"] == f"{__name__}.Tool.run"


def test_callables_of_other_kinds(spans):
    class Callable_:
        def __call__(self):
            return 1

    assert trace_operation(functools.partial(int, "7"))() == 7
    assert trace_operation(Callable_())() == 1
    assert trace_method(Callable_())() == 1
    assert trace_operation(len)("abc") == 3
    assert [span.name for span in spans.all] == ["builtins.int", f"{__name__}.Callable_", "Callable_", "builtins.len"]
    with pytest.raises(TypeError):
        trace_operation(Tool)


def test_arguments_and_results_only_where_they_are_asked_for(spans):
    class Service:
        @trace_method(record_args=True, record_result=True)
        def ask(self, question, *, limit):
            return {"answer": question * 2}

        @trace_method
        def quiet(self, question):
            return question

    Service().ask("why", limit=3)
    Service().quiet("the prompt")
    Service().ask("x" * 10**6, limit=list(range(10**5)))
    first, quiet, long = spans.all
    assert first.attributes["args"] == "('why',)"
    assert first.attributes["kwargs"] == "{'limit': 3}"
    assert first.attributes["result"] == "{'answer': 'whywhy'}"
    assert "the prompt" not in quiet.to_json()
    assert all(len(long.attributes[name]) <= 1000 for name in ("args", "kwargs", "result"))


class NoRepr:
    def __repr__(self):
        raise RuntimeError("the prompt")


@pytest.mark.parametrize("given", [NoRepr(), [NoRepr()], Raising(), {"a": NoRepr()}], ids=range(4))
def test_what_cannot_be_shown_is_no_fault_of_the_call(spans, given):
    @trace_operation("it", record_args=True, record_result=True)
    async def echo(value):
        return value

    assert asyncio.run(echo(given)) is given
    assert "the prompt" not in spans["it"].to_json()


def test_a_reader_of_what_a_generator_returned(spans):
    @trace_operation("it", record_result=True)
    def work():
        yield 1
        return "done"

    assert list(work()) == [1]
    assert spans["it"].attributes["result"] == "'done'"


def test_no_tracing_that_fails_is_felt(monkeypatch):
    class Worse:
        def begin(self, *arguments):
            raise RuntimeError("the prompt")

    monkeypatch.setattr(decorators, "get_tracing_manager", Worse)
    before = snapshot().get("guarded_errors", {}).get("instrument", 0)

    @trace_operation
    def work():
        return 1

    @trace_operation
    def items():
        yield 1

    @trace_operation
    async def aitems():
        yield 1

    assert work() == 1
    assert list(items()) == [1]
    assert step(anext(aitems())) == 1
    assert snapshot()["guarded_errors"]["instrument"] == before + 3


def test_without_opentelemetry_everything_is_called_as_it_was():
    @trace_operation(record_args=True, record_result=True)
    def work(number):
        return number

    @trace_operation
    async def items():
        yield 1

    async def main():
        return [item async for item in items()]

    with without_opentelemetry():
        assert work(3) == 3
        assert asyncio.run(main()) == [1]
        assert Tool().run()
