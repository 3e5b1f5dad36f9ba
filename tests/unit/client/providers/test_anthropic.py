"""The real SDK against real servers: one that does as told, and the simulator."""

import asyncio
import builtins
import json

import anthropic
import pytest

from tellmeter.client.ask import Ask
from tellmeter.client.providers.anthropic import AnthropicProvider
from tellmeter.client.providers.base import Access
from tellmeter.errors import ConfigError, MissingExtra
from tellmeter.simulator import SimulatorServer, Traffic
from tellmeter.testing.faults import Answer, Hang, Reset
from tests.support.provider_bench import FIND, HELLO, bench
from tests.support.replay_server import Streamed

pytestmark = pytest.mark.sdk
MODEL = "claude-haiku-4-5"
ASK = Ask(model=MODEL, messages=HELLO)


def event(kind, **inner):
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **inner})}\n\n".encode()


USAGE = {"input_tokens": 3, "output_tokens": 1}
START = event(
    "message_start",
    message={"id": "m", "type": "message", "role": "assistant", "model": MODEL, "content": [], "usage": USAGE},
)
TEXT = event("content_block_start", index=0, content_block={"type": "text", "text": ""})
END = (
    event("content_block_stop", index=0)
    + event("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 9})
    + event("message_stop")
)


def said(text):
    return event("content_block_delta", index=0, delta={"type": "text_delta", "text": text})


@pytest.fixture
def made():
    with bench(AnthropicProvider, "anthropic") as running:
        yield running


@pytest.fixture(scope="module")
def simulator():
    with SimulatorServer(Traffic(seed=5, speed=0)) as running:
        yield running


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_of_the_simulator(made, simulator, stream):
    ask = Ask(model=MODEL, messages=HELLO, tools=[FIND], tool_choice="required")
    heard = made.run(lambda provider: made.hear(provider, ask, stream=stream), base_url=simulator.url)
    ((call, name, arguments),) = heard.calls
    assert call and name == "find" and json.loads(arguments)["q"]
    (record,) = asyncio.run(made.records())
    served = simulator.served[-1]
    assert (record.provider, record.model, record.status) == ("anthropic", MODEL, "success")
    assert record.output_tokens == served.output_tokens and record.cost_usd > 0
    assert record.tools_used == ("find",) and record.retries == 0


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("status", "kind"),
    [(429, anthropic.RateLimitError), (529, anthropic.APIStatusError), (401, anthropic.AuthenticationError)],
)
def test_refusals_are_the_sdks_and_nothing_is_sent_again(made, status, kind, stream):
    body = json.dumps({"type": "error", "error": {"type": "t", "message": "no"}}).encode()
    made.server.default = Answer(status, body, {"content-type": "application/json", "retry-after": "0"})
    heard = made.run(lambda provider: made.hear(provider, ASK, stream=stream))
    assert isinstance(heard.error, kind) and heard.error.status_code == status
    assert len(made.server.requests) == 1
    (record,) = asyncio.run(made.records())
    assert (record.status, record.status_code, record.retries) == ("error", status, 0)


def test_a_connection_that_breaks_is_not_tried_again(made):
    made.server.default = Reset()
    heard = made.run(lambda provider: made.hear(provider, ASK, stream=False))
    assert isinstance(heard.error, anthropic.APIConnectionError) and len(made.server.requests) == 1


def test_silence_is_the_sdks_timeout(made):
    made.server.default = Hang()
    heard = made.run(lambda provider: made.hear(provider, ASK, stream=False), read_seconds=0.1)
    assert isinstance(heard.error, anthropic.APITimeoutError)
    (record,) = asyncio.run(made.records())
    assert record.status == "timeout"


def test_a_stream_is_read_to_its_end(made):
    made.server.script(Streamed([START, TEXT, said("one "), event("ping"), said("two"), END]))
    heard = made.run(lambda provider: made.hear(provider, ASK, stream=True))
    assert [delta.text for delta in heard.deltas] == ["one ", "two"]
    (record,) = asyncio.run(made.records())
    assert (record.status, record.input_tokens, record.output_tokens) == ("success", 3, 9)
    assert record.stream.status == "completed"


def test_a_stream_that_is_left_is_closed_when_the_generator_is(made):
    told = Streamed([START, TEXT, said("one"), said("two"), END], after=3)
    made.server.script(told)
    first, (record,) = made.run(made.leave(ASK))
    told.go.set()
    assert first.text == "one"
    assert (record.status, record.stream.status) == ("closed_early", "closed_early")


def test_an_error_inside_a_stream_is_the_sdks_after_what_came(made):
    error = event("error", error={"type": "overloaded_error", "message": "Overloaded"})
    made.server.script(Streamed([START, TEXT, said("one"), error]))
    heard = made.run(lambda provider: made.hear(provider, ASK, stream=True))
    assert heard.text == "one" and isinstance(heard.error, anthropic.APIStatusError)
    (record,) = asyncio.run(made.records())
    assert (record.status, record.error_category) == ("error", "overloaded")


def test_nothing_is_sent_before_the_first_delta_is_asked_for(made):
    async def unused(provider):
        await provider.stream(ASK).aclose()

    made.run(unused)
    assert made.server.requests == []


def test_key_address_and_headers_are_those_of_the_access(made, monkeypatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", "another")
    made.server.default = Answer(200, b"{}", {"content-type": "application/json"})
    made.run(lambda provider: made.hear(provider, ASK, stream=True), headers={"x-team": "a"})
    (request,) = made.server.requests
    shown = request.headers.get("x-api-key") or request.headers["authorization"].removeprefix("Bearer ")
    assert (shown, request.headers["x-team"], request.path) == ("k", "a", "/v1/messages")


def test_a_missing_key_is_the_sdks_own_error(made, monkeypatch, tmp_path):
    for name in ("API_KEY", "AUTH_TOKEN", "PROFILE", "CONFIG_DIR", "IDENTITY_TOKEN", "IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(f"ANTHROPIC_{name}", raising=False)
    for name in ("HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    heard = made.run(lambda provider: made.hear(provider, ASK, stream=False), api_key=None)
    assert isinstance(heard.error, TypeError | anthropic.AnthropicError) and "api_key" in str(heard.error)
    assert made.server.requests == []


def test_a_missing_package_is_named_with_what_installs_it(monkeypatch):
    original = builtins.__import__

    def without(name, *rest, **more):
        if name.partition(".")[0] == "anthropic":
            raise ImportError(name)
        return original(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtra, match=r"pip install 'tellmeter\[anthropic\]'"):
        AnthropicProvider(Access(provider="anthropic"))


def test_all_pages_of_models_and_no_embeddings(made):
    def page(names, more):
        data = [
            {"type": "model", "id": name, "display_name": name, "created_at": "2026-01-01T00:00:00Z"} for name in names
        ]
        body = {"data": data, "has_more": more, "first_id": names[0], "last_id": names[-1]}
        return Answer(200, json.dumps(body).encode(), {"content-type": "application/json"})

    made.server.script(page(["a", "b"], True), page(["c"], False))
    assert made.run(lambda provider: provider.models()) == ["a", "b", "c"]
    assert "after_id=b" in made.server.requests[1].path
    with pytest.raises(ConfigError, match="no embeddings"):
        made.run(lambda provider: provider.embed("m", ["x"], {}))


def test_a_list_of_models_without_an_end_is_cut(made):
    data = [
        {"type": "model", "id": f"m{number}", "display_name": "m", "created_at": "2026-01-01T00:00:00Z"}
        for number in range(1000)
    ]
    body = {"data": data, "has_more": True, "first_id": "m0", "last_id": "m999"}
    made.server.default = Answer(200, json.dumps(body).encode(), {"content-type": "application/json"})
    assert len(made.run(lambda provider: provider.models())) == 10_000
    assert len(made.server.requests) == 10


def test_long_answers_are_waited_for_at_any_time_limit(made):
    # At its own default limits the SDK refuses to wait for so many tokens.
    made.server.default = Answer(200, b'{"content": []}', {"content-type": "application/json"})
    ask = Ask(model=MODEL, messages=HELLO, max_tokens=60_000)
    heard = made.run(lambda provider: made.hear(provider, ask, stream=False), connect_seconds=5.0, read_seconds=600.0)
    assert heard.error is None
