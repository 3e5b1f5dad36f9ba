"""The real SDKs against the real server, over real connections; and every recording, byte for byte."""

import asyncio
import http.client
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from pathlib import Path

import pytest

from tellmeter.simulator import RecordedExchanges, SimulatorServer, Traffic

ROOT = Path(__file__).parents[2]
SHARED = Path(os.environ.get("TELLMETER_SHARED") or ROOT.parent / "shared")
HELLO = [{"role": "user", "content": "hello"}]
FIND = {"type": "object", "properties": {"q": {"type": "string"}}, "required": ["q"], "additionalProperties": False}
TOOLS = [{"type": "function", "function": {"name": "find", "parameters": FIND}}]
CLAUDE = {"model": "claude-haiku-4-5", "max_tokens": 3000, "messages": HELLO}

openai = pytest.importorskip("openai")
anthropic = pytest.importorskip("anthropic")
sdk = pytest.mark.sdk


@pytest.fixture(scope="module")
def server():
    with SimulatorServer(Traffic(seed=5, speed=0, cache_minimum=16)) as running:
        yield running


@pytest.fixture(scope="module")
def oai(server):
    with openai.OpenAI(base_url=server.openai_url, api_key="any", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def ant(server):
    with anthropic.Anthropic(base_url=server.url, api_key="any", max_retries=0) as client:
        yield client


def simulate(fault):
    return {"extra_headers": {"x-simulate": fault}}


# Formats


@sdk
def test_chat_whole_and_streamed(server, oai):
    whole = oai.chat.completions.create(model="gpt-4o-mini", messages=HELLO)
    assert whole.choices[0].message.content
    assert whole._request_id == server.served[-1].request_id
    assert whole.usage.completion_tokens == server.served[-1].output_tokens > 0
    chunks = list(
        oai.chat.completions.create(
            model="gpt-5-mini", messages=HELLO, stream=True, stream_options={"include_usage": True}
        )
    )
    assert chunks[-1].usage.completion_tokens_details.reasoning_tokens == server.served[-1].reasoning_tokens > 0
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1])
    assert len(chunks) == server.served[-1].events - 1  # all but [DONE]


@sdk
def test_chat_with_tools(oai):
    wanted = {"model": "gpt-4o", "messages": HELLO, "tools": TOOLS, "tool_choice": "required"}
    call = oai.chat.completions.create(**wanted).choices[0].message.tool_calls[0]
    assert json.loads(call.function.arguments)["q"]
    with oai.chat.completions.stream(**wanted) as stream:
        final = stream.get_final_completion()
    assert json.loads(final.choices[0].message.tool_calls[0].function.arguments)["q"]
    assert final.choices[0].finish_reason == "tool_calls"


@sdk
def test_structured_output_is_parsed(oai):
    pydantic = pytest.importorskip("pydantic")
    Item = pydantic.create_model("Item", name=(str, ...), many=(int, ...))
    Basket = pydantic.create_model("Basket", items=(list[Item], ...), paid=(bool, ...), note=(str | None, ...))
    chat = oai.chat.completions.parse(model="gpt-4o", messages=HELLO, response_format=Basket)
    assert isinstance(chat.choices[0].message.parsed, Basket)
    response = oai.responses.parse(model="gpt-4o", input="hello", text_format=Basket)
    assert isinstance(response.output_parsed, Basket)


@sdk
def test_responses_whole_and_streamed(server, oai):
    whole = oai.responses.create(model="o4-mini", input="hello", reasoning={"summary": "auto"})
    assert whole.output_text
    assert whole.usage.output_tokens_details.reasoning_tokens == server.served[-1].reasoning_tokens > 0
    events = list(oai.responses.create(model="gpt-4o", input="hello", stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert events[-1].type == "response.completed"
    assert events[-1].response.usage.output_tokens == server.served[-1].output_tokens
    tools = [{"type": "function", "name": "find", "parameters": FIND, "strict": True}]
    with oai.responses.stream(model="gpt-4o", input="hello", tools=tools, tool_choice="required") as stream:
        final = stream.get_final_response()
    assert json.loads(final.output[0].arguments)["q"]


@sdk
def test_completions_embeddings_and_models(oai):
    assert oai.completions.create(model="gpt-3.5-turbo-instruct", prompt="hi").usage.completion_tokens == 16
    parts = oai.completions.create(model="gpt-3.5-turbo-instruct", prompt="hi", max_tokens=5, stream=True)
    assert len(list(parts)) == 6
    found = oai.embeddings.create(model="text-embedding-3-small", input=["a", "b"])
    assert [len(one.embedding) for one in found.data] == [1536, 1536]
    assert "gpt-4o" in {model.id for model in oai.models.list()}


@sdk
def test_messages_whole_streamed_and_counted(server, ant):
    whole = ant.messages.create(**CLAUDE, thinking={"type": "enabled", "budget_tokens": 1024})
    assert [block.type for block in whole.content] == ["thinking", "text"]
    assert whole.usage.output_tokens == server.served[-1].output_tokens
    with ant.messages.stream(**CLAUDE, thinking={"type": "enabled", "budget_tokens": 1024}) as stream:
        final = stream.get_final_message()
    assert [block.type for block in final.content] == ["thinking", "text"]
    assert final.usage.output_tokens == server.served[-1].output_tokens
    assert final._request_id == server.served[-1].request_id if hasattr(final, "_request_id") else True
    kinds = [event.type for event in ant.messages.create(**CLAUDE, stream=True)]
    assert (kinds[0], kinds[-1]) == ("message_start", "message_stop")
    assert ant.messages.count_tokens(model=CLAUDE["model"], messages=HELLO).input_tokens > 0
    assert "claude-haiku-4-5" in {model.id for model in ant.models.list()}


@sdk
def test_messages_with_tools(ant):
    tools = [{"name": "find", "input_schema": FIND}]
    whole = ant.messages.create(**CLAUDE, tools=tools, tool_choice={"type": "any"})
    assert whole.content[-1].input["q"]
    with ant.messages.stream(**CLAUDE, tools=tools, tool_choice={"type": "any"}) as stream:
        final = stream.get_final_message()
    assert (final.stop_reason, final.content[-1].name) == ("tool_use", "find")
    assert final.content[-1].input["q"]


@sdk
def test_the_second_prompt_with_the_same_beginning_reads_the_cache(oai, ant):
    rules = "be brief. " * 40

    def chat(text):
        messages = [{"role": "system", "content": rules}, {"role": "user", "content": text}]
        return oai.chat.completions.create(model="gpt-4.1", messages=messages).usage.prompt_tokens_details

    assert (chat("one").cached_tokens, chat("two").cached_tokens) == (0, 96)

    def message(text):
        system = [{"type": "text", "text": rules, "cache_control": {"type": "ephemeral"}}]
        return ant.messages.create(**{**CLAUDE, "messages": [{"role": "user", "content": text}]}, system=system).usage

    first, second = message("one"), message("two")
    assert first.cache_creation_input_tokens == second.cache_read_input_tokens == 100


@sdk
def test_async_clients_are_answered_together(server):
    async def run():
        async with (
            openai.AsyncOpenAI(base_url=server.openai_url, api_key="any") as oai,
            anthropic.AsyncAnthropic(base_url=server.url, api_key="any") as ant,
        ):

            async def chat(number):
                asked = [{"role": "user", "content": f"hello {number}"}]
                stream = await oai.chat.completions.create(
                    model="gpt-4o", messages=asked, stream=True, stream_options={"include_usage": True}
                )
                return [chunk async for chunk in stream][-1].usage.completion_tokens

            async def message():
                async with ant.messages.stream(**CLAUDE) as stream:
                    return (await stream.get_final_message()).usage.output_tokens

            return await asyncio.gather(*map(chat, range(10)), message(), message())

    counts = asyncio.run(run())
    assert sorted(counts) == sorted(served.output_tokens for served in list(server.served)[-12:])


# Faults

STATUSES = [
    ("400", openai.BadRequestError, anthropic.BadRequestError),
    ("401", openai.AuthenticationError, anthropic.AuthenticationError),
    ("403", openai.PermissionDeniedError, anthropic.PermissionDeniedError),
    ("404", openai.NotFoundError, anthropic.NotFoundError),
    ("429;retry-after=2", openai.RateLimitError, anthropic.RateLimitError),
    ("500", openai.InternalServerError, anthropic.InternalServerError),
    ("503", openai.InternalServerError, anthropic.InternalServerError),
    ("529", openai.InternalServerError, anthropic.APIStatusError),
]


@sdk
@pytest.mark.parametrize(("fault", "of_openai", "of_anthropic"), STATUSES)
def test_errors_are_the_sdks_own(fault, of_openai, of_anthropic, oai, ant):
    with pytest.raises(of_openai) as error:
        oai.chat.completions.create(model="gpt-4o", messages=HELLO, **simulate(fault))
    assert error.value.request_id.startswith("req_")
    assert error.value.body["message"]
    assert error.value.response.headers.get("retry-after") == ("2" if "after" in fault else None)
    with pytest.raises(of_anthropic) as error:
        ant.messages.create(**CLAUDE, **simulate(fault))
    assert error.value.request_id.startswith("req_")
    assert error.value.body["error"]["type"].endswith("_error")


@sdk
def test_unknown_models_and_keys_are_refused(server, oai, ant):
    for wrong in (oai.chat.completions, oai.completions):
        given = {"messages": HELLO} if wrong is oai.chat.completions else {"prompt": "x"}
        with pytest.raises(openai.NotFoundError):
            wrong.create(model="no-such-model", **given)
    with pytest.raises(openai.BadRequestError):
        oai.responses.create(model="no-such-model", input="x")
    with pytest.raises(anthropic.NotFoundError):
        ant.messages.create(**{**CLAUDE, "model": "no-such-model"})
    with pytest.raises(openai.AuthenticationError):
        oai.with_options(api_key="invalid").embeddings.create(model="text-embedding-3-small", input="x")


@sdk
def test_the_sdks_retry_until_it_works(server, oai, ant):
    server.script("500", "429;retry-after=0.01")
    oai.with_options(max_retries=2).chat.completions.create(model="gpt-4o", messages=HELLO)
    assert [(one.attempt, one.status) for one in list(server.served)[-3:]] == [(0, 500), (1, 429), (2, 200)]
    ant.with_options(max_retries=2).messages.create(**CLAUDE, **simulate("529;retry-after=0.01, reset;after=0, ok"))
    assert [(one.attempt, one.status) for one in list(server.served)[-3:]] == [(0, 529), (1, 0), (2, 200)]


def connection_errors():
    """What a broken connection is to an application: newer SDKs wrap it, older ones and Anthropic's let it through."""
    names = [sys.modules[name].TransportError for name in ("httpx", "httpx2") if name in sys.modules]
    return (openai.APIConnectionError, anthropic.APIConnectionError, *names)


def chain(error):
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


@sdk
@pytest.mark.parametrize(("fault", "below"), [("reset", "Connection reset"), ("close", "without sending complete")])
@pytest.mark.parametrize("after", [0, 1, 4])
def test_a_broken_stream_is_a_connection_error_after_its_events(fault, below, after, server, oai, ant):
    asked = {"model": "gpt-4o", "messages": HELLO, "stream": True}
    for ask in (
        lambda fault: oai.chat.completions.create(**asked, **fault),
        lambda fault: oai.responses.create(model="gpt-4o", input="hello", stream=True, **fault),
        lambda fault: ant.messages.create(**CLAUDE, stream=True, **fault),
    ):
        got = []
        with pytest.raises(connection_errors()) as error:
            got.extend(ask(simulate(f"{fault};after={after}")))
            raise AssertionError("the stream ended well")
        served = server.served[-1]
        assert (served.events, served.whole) == (after, False)
        assert after == 0 or any(below in str(one) for one in chain(error.value))


@sdk
def test_events_before_a_break_arrive(oai, ant):
    got = []
    with pytest.raises(connection_errors()):
        for chunk in oai.chat.completions.create(
            model="gpt-4o", messages=HELLO, stream=True, **simulate("reset;after=4")
        ):
            got.append(chunk)  # noqa: PERF402 - those before the error are what counts
    assert len(got) == 4
    got = []
    with pytest.raises(connection_errors()):
        for event in ant.messages.create(**CLAUDE, stream=True, **simulate("reset;after=6")):
            got.append(event)
    assert len(got) == 5  # the SDK does not show the ping


@sdk
@pytest.mark.parametrize("fault", ["reset;after=3", "close;after=3", "hang;seconds=0"])
def test_a_broken_body_is_a_connection_error(fault, oai, ant):
    with pytest.raises(openai.APIConnectionError):
        oai.chat.completions.create(model="gpt-4o", messages=HELLO, **simulate(fault))
    with pytest.raises(anthropic.APIConnectionError):
        ant.messages.create(**CLAUDE, **simulate(fault))


@sdk
def test_silence_is_a_timeout_where_one_is_set(oai, ant):
    with pytest.raises(openai.APITimeoutError):
        oai.chat.completions.create(model="gpt-4o", messages=HELLO, timeout=0.1, **simulate("hang"))
    with pytest.raises(anthropic.APITimeoutError):
        ant.messages.create(**CLAUDE, timeout=0.1, **simulate("stall;seconds=60"))


@sdk
def test_a_stall_is_a_gap_where_it_was_asked_for(oai, ant):
    def gaps(stream):
        seen = [time.perf_counter()]
        for _ in stream:
            seen.append(time.perf_counter())
        return [after - before for before, after in itertools.pairwise(seen)]

    asked = {"model": "gpt-4o", "messages": HELLO, "stream": True}
    assert gaps(oai.chat.completions.create(**asked, **simulate("stall;after=5;seconds=0.2")))[5] > 0.15
    # The ping is an event, which the SDK does not show.
    assert gaps(ant.messages.create(**CLAUDE, stream=True, **simulate("stall;after=5;seconds=0.2")))[4] > 0.15
    slow = gaps(oai.chat.completions.create(**asked, max_tokens=4, **simulate("slow;seconds=0.03")))
    assert sum(slow[1:]) > 0.03 * (len(slow) - 2)


@sdk
def test_an_error_inside_a_stream_is_the_sdks_error(oai, ant):
    asked = {"model": "gpt-4o", "messages": HELLO, "stream": True}
    with pytest.raises(openai.APIError, match="error while processing"):
        list(oai.chat.completions.create(**asked, **simulate("error-event")))
    with pytest.raises(openai.APIError, match="error while processing"):
        list(oai.responses.create(model="gpt-4o", input="hello", stream=True, **simulate("error-event")))
    with pytest.raises(anthropic.APIStatusError, match="overloaded_error"):
        list(ant.messages.create(**CLAUDE, stream=True, **simulate("error-event")))


@sdk
def test_garbage_is_no_json(oai, ant):
    for stream in (False, True):
        with pytest.raises(json.JSONDecodeError):
            list(oai.chat.completions.create(model="gpt-4o", messages=HELLO, stream=stream, **simulate("garbage")))
        with pytest.raises(json.JSONDecodeError):
            list(ant.messages.create(**CLAUDE, stream=stream, **simulate("garbage")))


@sdk
def test_usage_or_the_end_can_be_missing(oai, ant):
    asked = {"model": "gpt-4o", "messages": HELLO}
    assert oai.chat.completions.create(**asked, **simulate("no-usage")).usage is None
    options = {"stream": True, "stream_options": {"include_usage": True}}
    chunks = list(oai.chat.completions.create(**asked, **options, **simulate("no-usage")))
    assert not any(chunk.usage for chunk in chunks)
    assert oai.responses.create(model="gpt-4o", input="hello", **simulate("no-usage")).usage is None
    events = list(oai.responses.create(model="gpt-4o", input="hello", stream=True, **simulate("no-terminator")))
    assert events[-1].type == "response.output_item.done"
    events = list(ant.messages.create(**CLAUDE, stream=True, **simulate("no-terminator")))
    assert events[-1].type == "message_delta"


# Load


def test_hundreds_of_streams_are_served_at_once():
    body = json.dumps({"model": "gpt-4o", "messages": HELLO, "stream": True, "max_tokens": 50}).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(
        body
    )

    async def one(port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head + body)
        answer = await reader.read(-1)
        writer.close()
        await writer.wait_closed()
        return answer

    async def all_of_them(port):
        return await asyncio.gather(*[one(port) for _ in range(300)])

    with SimulatorServer(Traffic(speed=0.05)) as server:
        answers = asyncio.run(all_of_them(server.port))
        assert all(b"data: [DONE]\n\n" in answer for answer in answers)
        assert all(served.whole for served in server.served)


# Recordings


@pytest.fixture(scope="module")
def recordings():
    folder = SHARED / "exchanges" if (SHARED / "exchanges").is_dir() else SHARED / "data" / "exchanges"
    if not folder.is_dir():
        reason = f"no recorded traffic at {folder}; TELLMETER_SHARED names another place"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return RecordedExchanges(folder)


def test_every_recording_is_served_byte_for_byte(recordings):
    with SimulatorServer(exchanges=recordings) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
        for exchange in recordings:
            connection.request(exchange.method, "/any/path", b"", {"x-exchange-id": exchange.id})
            answer = connection.getresponse()
            assert answer.read() == exchange.body, exchange.id
            assert answer.status == exchange.status
            headers = {name.lower(): value for name, value in answer.getheaders()}
            for name, value in exchange.response_headers.items():
                assert headers[name.lower()] == value, (exchange.id, name)
        connection.close()
    assert len(recordings) > 1000


def test_recordings_are_found_by_their_requests(recordings):
    with SimulatorServer(exchanges=recordings) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
        same = 0
        for exchange in recordings:
            if exchange.request_json is None or exchange.api != "responses":
                continue
            connection.request("POST", exchange.path, json.dumps(exchange.request_json))
            answer = connection.getresponse()
            same += answer.read() == exchange.body
        connection.close()
    # Several recordings of one request take turns, so not every one is the one that was meant.
    assert same > 150


@sdk
def test_the_sdks_read_recorded_streams(recordings):
    with SimulatorServer(exchanges=recordings) as server:
        clients = (
            openai.OpenAI(base_url=server.openai_url, api_key="any", max_retries=0),
            anthropic.Anthropic(base_url=server.url, api_key="any", max_retries=0),
        )
        read = 0
        for exchange in recordings:
            this = {"extra_headers": {"x-exchange-id": exchange.id}}
            wanted = exchange.expected.get("output_tokens")
            if not exchange.is_stream or wanted is None or "no_terminator" in exchange.tags:
                continue
            if (exchange.provider, exchange.api) == ("openai", "chat.completions"):
                chunks = list(clients[0].chat.completions.create(model="m", messages=[], stream=True, **this))
                assert [chunk.usage for chunk in chunks if chunk.usage][-1].completion_tokens == wanted
            elif (exchange.provider, exchange.api) == ("anthropic", "messages"):
                events = clients[1].messages.create(model="m", max_tokens=9, messages=[], stream=True, **this)
                assert [event.usage.output_tokens for event in events if event.type == "message_delta"][-1] == wanted
            else:
                continue
            read += 1
        for client in clients:
            client.close()
    assert read > 100


# The demo


@pytest.mark.heavy
@sdk
def test_the_demos_application_runs_through_errors_and_ends_by_itself():
    with SimulatorServer(Traffic(seed=2, speed=0.02, error_rate=0.15)) as server:
        command = [sys.executable, "-W", "error", "-m", "tellmeter.simulator.demo_app"]
        options = ["--base-url", server.url, "--seconds", "1.5", "--rate", "40"]
        done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("shop closed: ")
    assert done.stdout.count("\n") == 1
    assert {served.model for served in server.served} > {"gpt-4.1", "gpt-5.4-mini", "claude-sonnet-4-6"}
    assert {served.status for served in server.served} > {200}
    assert any(served.attempt for served in server.served)
    assert any(served.cached_tokens for served in server.served)


@pytest.mark.heavy
@sdk
def test_the_demos_application_ends_early_when_it_is_interrupted():
    busy = threading.Event()

    class Noted(deque):
        def append(self, served):
            super().append(served)
            if len(self) > 3:
                busy.set()

    with SimulatorServer(Traffic(seed=2)) as server:
        server.app.served = Noted()
        command = [sys.executable, "-W", "error", "-m", "tellmeter.simulator.demo_app"]
        with subprocess.Popen(
            [*command, "--base-url", server.url, "--seconds", "3600"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert busy.wait(30)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, "")
    assert out.startswith("shop closed: ")
