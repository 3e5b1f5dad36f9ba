"""What type checkers see of decorated functions: what they see of the bare ones. mypy reads this file in a test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Generator
from typing import Any, assert_type

from tellmeter.instruments.activity import monitor_resource, track_active
from tellmeter.instruments.caches import cache_metrics
from tellmeter.instruments.counting import count_calls
from tellmeter.instruments.durations import measure_latency, time_operation, track_duration
from tellmeter.instruments.error_counts import track_errors
from tellmeter.instruments.functions import increment_counter, observe_histogram, set_gauge
from tellmeter.instruments.instrument import Instrument
from tellmeter.instruments.tracking import track_metrics
from tellmeter.instruments.wrapping import Observation, wrapped
from tellmeter.telemetry.decorators import trace_method, trace_operation
from tellmeter.telemetry.noop import Span
from tellmeter.telemetry.tracing import start_span


@track_metrics
def bare(number: int, /, *, text: str = "") -> bytes:
    return text.encode() * number


@track_metrics()
def called(number: int, text: str = "") -> bytes:
    return text.encode() * number


@track_errors
@measure_latency
@count_calls
@track_active
async def stacked(number: int) -> float:
    return number / 2


@track_metrics(
    name="custom_operation", labels={"component": "processor"}, label_extractor=lambda data: {"size": len(data)}
)
async def process_data(data: dict[str, str]) -> None: ...


@track_duration("made_seconds", labels={"model_id": "claude-3"})
def generated(number: int) -> Generator[int, str, bool]:
    yield number
    return True


@measure_latency(metric_name="api_latency_seconds", buckets=[0.1, 1])
async def streamed() -> AsyncIterator[str]:
    yield ""


@cache_metrics(cache_name="embedding_cache")
async def cached(text: str) -> tuple[list[float], bool]:
    return [], bool(text)


@monitor_resource("database_connection")
def query(sql: str) -> list[str]:
    return [sql]


@trace_operation
async def traced(number: int) -> float:
    return number / 2


@trace_operation(name="database_query", kind="client", record_args=True)
def traced_query(sql: str) -> list[str]:
    return [sql]


class Service:
    @trace_method
    def traced(self, number: int) -> str:
        return str(number)

    @track_metrics
    def method(self, number: int) -> str:
        return str(number)

    @track_errors(labels={"endpoint": "/query"})
    async def coroutine(self, number: int) -> str:
        return str(number)

    @count_calls
    @classmethod
    def made(cls, number: int) -> Service:
        return cls()

    @classmethod
    @count_calls("made_again_total")
    def made_again(cls, number: int) -> Service:
        return cls()

    @track_active("pure_active")
    @staticmethod
    def pure(number: int) -> int:
        return number

    @property
    @time_operation("size_seconds")
    def size(self) -> int:
        return 1


def watch(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Observation | None:
    return None


def plain(number: int) -> str:
    return str(number)


assert_type(bare(1, text="x"), bytes)
assert_type(called(1, "x"), bytes)
assert_type(generated(1), Generator[int, str, bool])
assert_type(streamed(), AsyncIterator[str])
assert_type(query(""), list[str])
assert_type(traced_query(""), list[str])
assert_type(Service().traced(1), str)
assert_type(Service().method(1), str)
assert_type(Service.made(1), Service)
assert_type(Service.made_again(1), Service)
assert_type(Service.pure(1), int)
assert_type(Service().size, int)
assert_type(wrapped(plain, watch)(1), str)
assert_type(time_operation("x"), Instrument)

bare("1")  # type: ignore[arg-type]
bare(number=1)  # type: ignore[call-arg]
called(1, 2)  # type: ignore[arg-type]
traced_query(1)  # type: ignore[arg-type]
generated("1")  # type: ignore[arg-type]
Service().method("1")  # type: ignore[arg-type]
Service.made("1")  # type: ignore[arg-type]
wrapped(plain, watch)("1")  # type: ignore[arg-type]
track_metrics(label_extractor=1)  # type: ignore[call-overload]
increment_counter("x", labels={"type": "click"})
observe_histogram("x", "1")  # type: ignore[arg-type]
set_gauge("x")  # type: ignore[call-arg]


async def awaited() -> None:
    assert_type(await stacked(1), float)
    assert_type(await traced(1), float)
    assert_type(await process_data({}), None)
    assert_type(await cached(""), tuple[list[float], bool])
    assert_type(await Service().coroutine(1), str)
    await cached(1)  # type: ignore[arg-type]


async def blocks() -> None:
    with time_operation("a_seconds"), track_active("a_active") as active, track_errors(counter_name="a_errors"):
        assert_type(active, Instrument)
    async with time_operation("a_seconds", labels={"query_type": "select"}), monitor_resource("db") as used:
        assert_type(used, Instrument)
    async with start_span("a") as span:
        assert_type(span, Span)
    with start_span("a", kind="client", attributes={"b": 1}) as span:
        span.set_attribute("c", 2)
