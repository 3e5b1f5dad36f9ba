"""What every provider has: an Access, a Reply, Deltas, and requests that are metered."""

import asyncio
import types

import httpx
import httpx2
import pytest

from tellmeter.client.providers.base import Access, Delta, Reply, begin_attempt, meter_http, metering
from tellmeter.client.response import ToolCall
from tellmeter.secret import Secret
from tellmeter.testing import FaultServer
from tellmeter.testing.faults import Answer


@pytest.mark.security(3)
def test_no_repr_tells_what_was_said_or_the_key():
    access = Access(provider="openai", api_key=Secret("canary"), headers={"x-key": "canary"})
    tool = ToolCall("1", "find", "canary")
    for one in (access, Reply(text="canary", tool_calls=(tool,), raw="canary"), Delta(text="canary")):
        assert "canary" not in repr(one)
    assert "canary" not in repr(Delta(reasoning="canary", tool_index=0, tool=tool))


@pytest.mark.parametrize("module", [httpx, httpx2], ids=lambda module: module.__name__)
def test_the_requests_of_a_client_are_the_attempts_of_the_call_in_force(module):
    begun = []

    async def ask(url):
        async with module.AsyncClient() as client:
            meter_http(client)
            assert (await client.post(url, content=b"before")).content == b"ok"
            token = metering.set(lambda request: begun.append(bytes(request.content)))
            assert (await client.post(url, content=b"one")).content == b"ok"
            assert (await client.post(url, content=b"two")).content == b"ok"
            metering.reset(token)
            assert (await client.post(url, content=b"after")).content == b"ok"

    with FaultServer(Answer(200, b"ok")) as server:
        asyncio.run(ask(server.url))
        assert server.received == 4
    assert begun == [b"one", b"two"]


def test_a_client_of_nobodys_is_left_alone():
    client = types.SimpleNamespace(send=print)
    meter_http(client)
    assert client.send is print


def test_without_a_call_there_is_no_attempt():
    assert begin_attempt(object()) is None
    token = metering.set(lambda request: request)
    assert begin_attempt("request") == "request"
    metering.reset(token)
