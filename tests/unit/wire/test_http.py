from __future__ import annotations

import inspect
import types
from typing import Any

import httpx2
import pytest

from tellmeter import InMemoryMetricsSink, MetricsCollector, counts
from tellmeter.wire.http import module_of, send_wrappers

URL = "https://api.openai.com/v1/chat/completions"


def guarded() -> int:
    return counts.snapshot().get("guarded_errors", {}).get("wire", 0)


def wrappers(collector_of: Any) -> tuple[Any, Any]:
    return send_wrappers(httpx2, collector_of)


def request(method: str = "POST", url: str = URL) -> httpx2.Request:
    return httpx2.Request(method, url, json={"model": "m", "messages": []})


def test_other_traffic_goes_through_without_a_look_at_the_collector() -> None:
    def never() -> Any:
        raise AssertionError

    send, send_async = wrappers(never)
    for wrapper in (send, send_async):
        assert wrapper(lambda *given, **more: (given, more), None, ("r",), {"stream": True}) == (
            ("r",),
            {"stream": True},
        )
        get = request("GET")
        assert wrapper(lambda given: given, None, (get,), {}) is get


def test_a_request_given_by_name_is_seen() -> None:
    collector = MetricsCollector(sinks=[InMemoryMetricsSink()])
    send, _ = wrappers(lambda: collector)
    response = httpx2.Response(200, json={})
    assert send(lambda request: response, None, (), {"request": request()}) is response
    collector.flush_sync()
    assert collector.stats().recorded == 1


def test_our_own_fault_is_counted_and_the_request_is_sent() -> None:
    def broken() -> Any:
        raise RuntimeError("canary")

    before = guarded()
    send, _ = wrappers(broken)
    assert send(lambda given: "sent", None, (request(),), {}) == "sent"
    assert guarded() == before + 1


def test_a_response_that_is_none_is_counted_and_handed_over() -> None:
    collector = MetricsCollector(sinks=[InMemoryMetricsSink()])
    send, _ = wrappers(lambda: collector)
    before = guarded()
    odd = types.SimpleNamespace()
    assert send(lambda given: odd, None, (request(),), {}) is odd
    assert guarded() == before + 1
    collector.flush_sync()
    assert collector.open_calls == {}


def test_an_exception_of_the_request_goes_on_unchanged() -> None:
    collector = MetricsCollector(sinks=[InMemoryMetricsSink()])
    send, _ = wrappers(lambda: collector)
    error = httpx2.ConnectError("x")

    def fail(given: Any) -> Any:
        raise error

    with pytest.raises(httpx2.ConnectError) as caught:
        send(fail, None, (request(),), {})
    assert caught.value is error


def test_the_async_wrapper_gives_back_the_very_coroutine_of_other_traffic() -> None:
    _, send_async = wrappers(lambda: None)

    async def wrapped(given: Any) -> str:
        return "sent"

    coroutine = send_async(wrapped, None, (request(),), {})
    assert inspect.iscoroutine(coroutine) and coroutine.cr_code is wrapped.__code__
    coroutine.close()


def test_whose_client_it_is() -> None:
    assert module_of(httpx2.Client()) is httpx2
    assert module_of(object()) is None
