from __future__ import annotations

import inspect
import types
from typing import Any

import httpx2
import pytest

from tellmeter import InMemoryMetricsSink, MetricsCollector, counts
from tellmeter.wire.calls import begin
from tellmeter.wire.http import metered_async_send, metered_send, module_of

URL = "https://api.openai.com/v1/chat/completions"


def beginning(collector: MetricsCollector | None) -> Any:
    return lambda request: begin(lambda: collector, request)


def guarded() -> int:
    return counts.snapshot().get("guarded_errors", {}).get("wire", 0)


def request(method: str = "POST", url: str = URL) -> httpx2.Request:
    return httpx2.Request(method, url, json={"model": "m", "messages": []})


def test_other_traffic_goes_through_without_a_look_at_the_collector() -> None:
    def never(request: Any) -> Any:
        raise AssertionError

    for wrapper_of in (metered_send, metered_async_send):
        send = wrapper_of(lambda *given, **more: (given, more), httpx2, never)
        get = request("GET")
        assert send("self", get, stream=True) == (("self", get), {"stream": True})
        assert send(request=get) == ((), {"request": get})


def test_what_is_no_request_is_the_originals_business() -> None:
    before = guarded()
    assert metered_send(lambda *given: given, httpx2, beginning(None))("r") == ("r",)
    assert guarded() == before + 1


def test_a_request_given_by_name_is_seen() -> None:
    collector = MetricsCollector(sinks=[InMemoryMetricsSink()])
    response = httpx2.Response(200, json={})
    send = metered_send(lambda request: response, httpx2, beginning(collector))
    assert send(request=request()) is response
    collector.flush_sync()
    assert collector.stats().recorded == 1


def test_our_own_fault_is_counted_and_the_request_is_sent() -> None:
    def broken(request: Any) -> Any:
        raise RuntimeError("canary")

    before = guarded()
    assert metered_send(lambda given: "sent", httpx2, broken)(request()) == "sent"
    assert guarded() == before + 1


def test_a_response_that_is_none_is_counted_and_handed_over() -> None:
    collector = MetricsCollector(sinks=[InMemoryMetricsSink()])
    before = guarded()
    odd = types.SimpleNamespace()
    assert metered_send(lambda given: odd, httpx2, beginning(collector))(request()) is odd
    assert guarded() == before + 1
    collector.flush_sync()
    assert collector.open_calls == {}


def test_an_exception_of_the_request_goes_on_unchanged() -> None:
    collector = MetricsCollector(sinks=[InMemoryMetricsSink()])
    error = httpx2.ConnectError("x")

    def fail(given: Any) -> Any:
        raise error

    with pytest.raises(httpx2.ConnectError) as caught:
        metered_send(fail, httpx2, beginning(collector))(request())
    assert caught.value is error


def test_the_async_wrapper_gives_back_the_very_coroutine_of_other_traffic() -> None:
    async def original(given: Any) -> str:
        return "sent"

    coroutine = metered_async_send(original, httpx2, beginning(None))(request())
    assert inspect.iscoroutine(coroutine) and coroutine.cr_code is original.__code__
    coroutine.close()


def test_the_wrapper_looks_like_what_it_wraps() -> None:
    send = metered_send(httpx2.Client.send, httpx2, beginning(None))
    assert inspect.signature(send) == inspect.signature(httpx2.Client.send)
    assert send.__doc__ == httpx2.Client.send.__doc__


def test_whose_client_it_is() -> None:
    assert module_of(httpx2.Client()) is httpx2
    assert module_of(object()) is None
