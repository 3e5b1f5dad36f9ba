"""StreamingResponse: an answer while it arrives, its callbacks, and its end."""

import asyncio

import pytest

from tellmeter import ConfigError, ProviderError, ToolCall, counts
from tellmeter.client.response import json_in
from tests.unit.client.asked import answering, failed, records, streamed, whole

pytestmark = [pytest.mark.sdk, pytest.mark.asyncio]


async def test_it_is_read_as_it_comes_and_whole_at_its_end():
    with answering(streamed("Hel", "lo")) as (client, memory, _):
        response = await client.stream_with_usage("Hi", model="gpt-4o")
        assert response.get_usage() is None and response.get_text() == ""
        texts = []
        async for text in response:
            texts.append(text)
            assert response.get_text() == "".join(texts)
        final = await response.get_response()
        assert texts == ["Hel", "lo"] and final.text == "Hello"
        assert final.usage == response.get_usage() and final.usage.total_tokens == 14
        assert final.cost_usd == final.metrics.cost_usd > 0 and final.finish_reason == "stop"
        (record,) = await asyncio.to_thread(records, client, memory)
        assert record == final.metrics


async def test_it_need_not_be_iterated():
    with answering(streamed("a", "b")) as (client, _, _):
        final = await client.stream_with_usage("Hi", model="gpt-4o").get_response()
        assert final.text == "ab"


async def test_it_is_read_once():
    with answering(streamed("a")) as (client, _, _):
        response = client.stream_with_usage("Hi", model="gpt-4o")
        assert [text async for text in response] == ["a"]
        with pytest.raises(ConfigError, match="read already"):
            aiter(response)


async def test_left_early_what_came_stays_and_the_record_says_so():
    with answering(streamed("a", "b", "c")) as (client, memory, _):
        async with client.stream_with_usage("Hi", model="gpt-4o") as response:
            async for _ in response:
                break
        assert response.get_text() == "a"
        with pytest.raises(ConfigError, match="not read to its end"):
            await response.get_response()
        (record,) = await asyncio.to_thread(records, client, memory)
        assert record.status == "closed_early"


async def test_callbacks_are_called_in_order_sync_or_async():
    seen = []

    async def on_delta(event):
        await asyncio.sleep(0)
        seen.append((event.chunk_index, event.get_text()))

    with answering(streamed("a", "b")) as (client, _, _):
        response = client.stream_with_usage(
            "Hi",
            model="gpt-4o",
            request_id="mine",
            on_start=seen.append,
            on_delta=on_delta,
            on_usage=seen.append,
            on_complete=seen.append,
            on_error=seen.append,
        )
        async for _ in response:
            pass
    start, first, second, usage, complete = seen
    assert (type(start).__name__, start.provider, start.model) == ("StreamStarted", "openai", "gpt-4o")
    assert (first, second) == ((0, "a"), (1, "b"))
    assert usage.usage["total_tokens"] == 14 and usage.cost_usd > 0 and not usage.is_estimated
    assert complete.total_chunks == 2 and complete.response.text == "ab" and complete.duration_ms > 0
    assert {one.request_id for one in (start, usage, complete)} == {"mine"}
    assert "'a" not in repr((start, usage, complete))


async def test_what_a_callback_raises_is_counted_and_the_stream_goes_on(monkeypatch):
    monkeypatch.setattr(counts, "_counters", {})

    def broken(event):
        raise ValueError("canary")

    with answering(streamed("a", "b")) as (client, _, _):
        named = dict.fromkeys(("on_start", "on_delta", "on_usage", "on_complete"), broken)
        texts = [text async for text in client.stream_with_usage("Hi", model="gpt-4o", **named)]
    assert texts == ["a", "b"]
    assert counts.snapshot()["guarded_errors"]["client_callback"] == 5


async def test_an_error_is_told_once_and_raised():
    told = []
    with answering(failed(400)) as (client, _, _):
        response = client.stream_with_usage("Hi", model="gpt-4o", on_error=told.append, on_complete=told.append)
        with pytest.raises(ProviderError) as caught:
            async for _ in response:
                pass
    (event,) = told
    assert event.error is caught.value and (event.error_type, event.is_retryable) == ("ProviderError", False)
    assert (event.provider, event.model) == ("openai", "gpt-4o")
    assert "canary" not in repr(event) + str(caught.value)


async def test_tool_calls_are_put_together():
    pieces = [
        '{"index":0,"id":"call_1","type":"function","function":{"name":"look_up","arguments":""}}',
        '{"index":1,"id":"call_2","type":"function","function":{"name":"add","arguments":"{\\"a\\""}}',
        '{"index":0,"function":{"arguments":"{\\"q\\":1}"}}',
        '{"index":1,"function":{"arguments":":2}"}}',
    ]
    event = (
        'data: {"id":"c","model":"m-1","choices":[{"index":0,"delta":{"tool_calls":[%s]},"finish_reason":null}]}\n\n'
    )
    stream = streamed()
    stream.pieces = [*(event % piece for piece in pieces), *(piece.decode() for piece in stream.pieces)]
    stream.pieces = [piece.encode() for piece in stream.pieces]
    with answering(stream) as (client, _, _):
        response = client.stream_with_usage("Hi", model="gpt-4o")
        assert [text async for text in response] == []
        expected = (ToolCall("call_1", "look_up", '{"q":1}'), ToolCall("call_2", "add", '{"a":2}'))
        assert response.tool_calls == (await response.get_response()).tool_calls == expected


async def test_streamed_or_not_it_costs_the_same():
    with answering(streamed("Hello"), whole("Hello")) as (client, _, _):
        first = await client.stream_with_usage("Hi", model="gpt-4o").get_response()
        second = await client.generate("Hi", model="gpt-4o")
    assert first.usage == second.usage and first.cost_usd == second.cost_usd
    assert first.cost_breakdown == second.cost_breakdown


@pytest.mark.parametrize("text", ['{"a": 1}', ' {"a": 1}\n', '```json\n{"a": 1}\n```', '```\n{"a": 1}```'])
async def test_json_with_and_without_a_fence(text):
    assert json_in(text) == {"a": 1}


async def test_what_is_no_json_is_a_value_error():
    with pytest.raises(ValueError):
        json_in('{"a": ')


async def test_the_sync_twin():
    with answering(streamed("[1", ",2]"), streamed("a", "b")) as (client, memory, _):

        def use():
            with client.stream_with_usage_sync("Hi", model="gpt-4o") as response:
                assert list(response) == ["[1", ",2]"]
                assert response.get_json() == [1, 2] and response.get_usage().total_tokens == 14
                assert response.get_response().text == response.get_text()
            with client.stream_with_usage_sync("Hi", model="gpt-4o") as response:
                text = next(iter(response))
            return text, records(client, memory)

        text, (first, second) = await asyncio.to_thread(use)
    assert text == "a" and (first.status, second.status) == ("success", "closed_early")
