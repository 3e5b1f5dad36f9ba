from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from typing import Any

import httpx
import httpx2
import pytest

from tellmeter import ConfigError, InMemoryMetricsSink, MetricsCollector, instrument, uninstrument
from tellmeter.wire import status
from tests.support.sse import JSON, answer

URL = "https://api.openai.com/v1/chat/completions"
BODY = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hi"}]}
LIBRARIES = [httpx, httpx2]


@pytest.fixture
def collector() -> Iterator[MetricsCollector]:
    yield MetricsCollector(sinks=[InMemoryMetricsSink()])
    uninstrument()


def records(collector: MetricsCollector) -> list[Any]:
    return asyncio.run(collector.sinks[0].get_metrics())


def client(http: Any) -> Any:
    return http.Client(transport=http.MockTransport(lambda request: http.Response(200, headers=JSON, content=answer())))


def async_client(http: Any) -> Any:
    async def handle(request: Any) -> Any:
        return http.Response(200, headers=JSON, content=answer())

    return http.AsyncClient(transport=http.MockTransport(handle))


@pytest.mark.parametrize("http", LIBRARIES)
def test_instrumenting_twice_meters_once_and_uninstrumenting_restores(http: Any, collector: MetricsCollector) -> None:
    before = vars(http.Client)["send"], vars(http.AsyncClient)["send"]
    instrument(collector=collector)
    instrument(collector=collector)
    client(http).post(URL, json=BODY)

    async def main() -> None:
        await async_client(http).post(URL, json=BODY)

    asyncio.run(main())
    assert len(records(collector)) == 2
    uninstrument()
    uninstrument()
    assert (vars(http.Client)["send"], vars(http.AsyncClient)["send"]) == before
    client(http).post(URL, json=BODY)
    assert len(records(collector)) == 2


@pytest.mark.parametrize("http", LIBRARIES)
def test_one_client_alone(http: Any, collector: MetricsCollector) -> None:
    chosen, other = client(http), client(http)
    instrument(chosen, collector=collector)
    instrument(chosen, collector=collector)
    chosen.post(URL, json=BODY)
    other.post(URL, json=BODY)
    assert len(records(collector)) == 1
    uninstrument(chosen)
    chosen.post(URL, json=BODY)
    assert len(records(collector)) == 1
    assert "send" not in vars(chosen)


@pytest.mark.parametrize("http", LIBRARIES)
def test_one_async_client_alone(http: Any, collector: MetricsCollector) -> None:
    async def main() -> None:
        chosen = async_client(http)
        instrument(chosen, collector=collector)
        await chosen.post(URL, json=BODY)

    asyncio.run(main())
    assert len(records(collector)) == 1


def test_one_client_beside_all_is_counted_once(collector: MetricsCollector) -> None:
    chosen = client(httpx2)
    instrument(collector=collector)
    instrument(chosen, collector=collector)
    chosen.post(URL, json=BODY)
    assert len(records(collector)) == 1


def test_an_sdks_client_is_found_inside_it(collector: MetricsCollector) -> None:
    class Sdk:
        def __init__(self) -> None:
            self._client = client(httpx2)

    class GoogleLike:
        def __init__(self) -> None:
            self._api_client = type("Api", (), {"_httpx_client": client(httpx2)})()

    for sdk, http in ((one := Sdk(), one._client), (two := GoogleLike(), two._api_client._httpx_client)):
        instrument(sdk, collector=collector)
        http.post(URL, json=BODY)
        uninstrument(sdk)
    assert len(records(collector)) == 2


def test_what_has_no_http_client_is_refused_in_one_line() -> None:
    with pytest.raises(ConfigError, match="no HTTP client in a dict") as caught:
        instrument({})
    assert "\n" not in str(caught.value)


def test_a_wrapper_that_came_later_stays_and_ours_lets_everything_pass(collector: MetricsCollector) -> None:
    original = vars(httpx2.Client)["send"]
    instrument(collector=collector)
    ours = httpx2.Client.send

    def theirs(self: Any, *arguments: Any, **more: Any) -> Any:
        return ours(self, *arguments, **more)

    httpx2.Client.send = theirs  # type: ignore[method-assign, assignment]
    try:
        uninstrument()
        assert httpx2.Client.send is theirs
        assert client(httpx2).post(URL, json=BODY).status_code == 200
        assert records(collector) == []
        instrument(collector=collector)
        client(httpx2).post(URL, json=BODY)
        assert len(records(collector)) == 1
    finally:
        httpx2.Client.send = original  # type: ignore[method-assign]
        uninstrument()


def test_status_says_what_is_hooked(collector: MetricsCollector) -> None:
    instrument(collector=collector)
    assert status()["httpx"] == status()["httpx2"] == "hooked"
    uninstrument()
    assert status()["httpx2"] == "not hooked"


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_nothing_is_imported_for_the_sake_of_it_and_later_imports_are_hooked() -> None:
    assert (
        run(
            """
            import sys, tellmeter
            tellmeter.instrument()
            assert not {"httpx", "httpx2", "openai", "anthropic"} & set(sys.modules)
            import httpx2
            print(hasattr(vars(httpx2.Client)["send"], "__wrapped__"))
            """
        )
        == "True"
    )


def test_a_library_imported_after_uninstrument_is_left_alone() -> None:
    assert (
        run(
            """
            import tellmeter
            tellmeter.instrument(); tellmeter.uninstrument()
            import httpx2
            print(hasattr(vars(httpx2.Client)["send"], "__wrapped__"))
            tellmeter.instrument()
            print(hasattr(vars(httpx2.Client)["send"], "__wrapped__"))
            """
        )
        == "False\nTrue"
    )


def test_an_sdk_of_another_shape_is_counted_and_not_broken() -> None:
    assert (
        run(
            """
            import sys, types, tellmeter
            from tellmeter import counts
            sys.modules["groq"] = types.ModuleType("groq")
            sys.modules["groq._base_client"] = types.ModuleType("groq._base_client")
            tellmeter.instrument()
            print(counts.snapshot()["guarded_errors"])
            """
        )
        == "{'hook': 1}"
    )
