"""The application: what it decides about a request, asked without a network."""

import asyncio

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tellmeter.errors import ConfigError
from tellmeter.simulator.app import ROUTES, Simulator
from tellmeter.simulator.exchanges import Exchange, RecordedExchanges
from tellmeter.simulator.traffic import Traffic

CHAT = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hello"}]}
CLAUDE = {"model": "claude-haiku-4-5", "max_tokens": 50, "messages": [{"role": "user", "content": "hello"}]}
FAST = Traffic(speed=0)


class Answer:
    """One answer, as ASGI messages put together."""

    def __init__(self, sent):
        self.status = sent[0]["status"]
        self.headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        self.events = [message["body"] for message in sent[1:] if message["body"]]
        self.body = b"".join(self.events)

    @property
    def json(self):
        return msgspec.json.decode(self.body)


def ask(app, path="/v1/chat/completions", body=CHAT, method="POST", **headers):
    sent = []

    async def run():
        given = [body if isinstance(body, bytes) else msgspec.json.encode(body)]

        async def receive():
            if not given:
                await asyncio.Event().wait()
            return {"type": "http.request", "body": given.pop(), "more_body": False}

        async def send(message):
            sent.append(message)

        named = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        scope = {"type": "http", "method": method, "path": path, "raw_path": path.encode(), "headers": named}
        await app(scope, receive, send)

    asyncio.run(run())
    return Answer(sent)


BODIES = {
    "/chat/completions": CHAT,
    "/completions": {"model": "gpt-3.5-turbo-instruct", "prompt": "hello"},
    "/responses": {"model": "gpt-4o", "input": "hello"},
    "/embeddings": {"model": "text-embedding-3-small", "input": "hello"},
    "/messages": CLAUDE,
    "/messages/count_tokens": CLAUDE,
}
GEMINI = {"contents": [{"role": "user", "parts": [{"text": "hello"}]}]}
EMBEDDED = {"content": GEMINI["contents"][0]}
CONVERSE = {"messages": [{"role": "user", "content": [{"text": "hello"}]}]}
FLASH, EMBEDDER = "gemini-2.5-flash", "gemini-embedding-2"
ARN = "arn:aws:bedrock:us-east-1:000000000000:inference-profile/us.anthropic.claude-haiku-4-5-20251001-v1:0"
# Of those that name the model in the path: the path's beginning, the model, the body.
IN_PATH = {
    ":generateContent": (f"/v1beta/models/{FLASH}", FLASH, GEMINI),
    ":streamGenerateContent": (f"/v1beta/models/{FLASH}", FLASH, GEMINI),
    ":countTokens": (f"/v1beta/models/{FLASH}", FLASH, GEMINI),
    ":embedContent": (f"/v1beta/models/{EMBEDDER}", EMBEDDER, EMBEDDED),
    ":batchEmbedContents": (f"/v1beta/models/{EMBEDDER}", EMBEDDER, {"requests": [EMBEDDED, EMBEDDED]}),
    "/converse": (f"/model/{ARN}", ARN, CONVERSE),
    "/converse-stream": (f"/model/{ARN}", ARN, CONVERSE),
}


@pytest.mark.parametrize("prefix", ["/v1", "/openai/v1", ""])
@pytest.mark.parametrize("path", BODIES)
def test_every_route_answers_under_every_prefix(path, prefix):
    app = Simulator(FAST)
    answer = ask(app, prefix + path, BODIES[path])
    assert answer.status == 200
    assert answer.json
    assert app.served[0].whole
    assert app.served[0].model == BODIES[path]["model"]


@pytest.mark.parametrize("end", IN_PATH)
def test_models_are_read_from_paths(end):
    app = Simulator(FAST)
    before, model, body = IN_PATH[end]
    answer = ask(app, before + end, body)
    (served,) = app.served
    assert (answer.status, served.model, served.whole) == (200, model, True)
    assert served.stream == ("stream" in end)
    assert served.request_id


def test_every_route_is_tested():
    assert set(BODIES) | set(IN_PATH) == set(ROUTES)


def test_the_same_seed_gives_the_same_bytes_and_repeats_differ():
    def run(seed):
        app = Simulator(Traffic(seed=seed, speed=0))
        return [ask(app, body={**CHAT, "stream": stream}).body for stream in (False, True, False, True)]

    assert run(1) == run(1)
    assert run(1) != run(2)
    assert len(set(run(1))) == 4


def test_an_answer_does_not_depend_on_what_else_is_asked():
    alone, busy = Simulator(FAST), Simulator(FAST)
    ask(busy, "/v1/messages", CLAUDE)
    assert ask(alone).body == ask(busy).body


def test_headers_are_the_providers():
    app = Simulator(FAST)
    openai = ask(app).headers
    assert openai["content-type"] == "application/json"
    assert openai["openai-processing-ms"] == "0"
    assert openai["x-request-id"] == app.served[0].request_id
    assert openai["x-ratelimit-limit-requests"]
    anthropic = ask(app, "/v1/messages", CLAUDE).headers
    assert anthropic["request-id"] == app.served[1].request_id
    assert anthropic["anthropic-ratelimit-input-tokens-remaining"]
    assert ask(app, body={**CHAT, "stream": True}).headers["content-type"] == "text/event-stream; charset=utf-8"


def test_what_was_served_is_told_with_its_tokens():
    app = Simulator(Traffic(speed=0, cache_minimum=1))
    body = {**CHAT, "stream": True, "stream_options": {"include_usage": True}}
    ask(app, body=body, x_stainless_retry_count="2")
    again = ask(app, body=body)
    usage = msgspec.json.decode(again.events[-2].removeprefix(b"data: "))["usage"]
    first, second = app.served
    assert first.attempt == 2
    assert second.stream
    assert (second.input_tokens, second.output_tokens) == (usage["prompt_tokens"], usage["completion_tokens"])
    assert second.cached_tokens == usage["prompt_tokens_details"]["cached_tokens"] > 0
    assert second.events == len(again.events)
    ask(app, "/v1/messages/count_tokens", CLAUDE)
    assert (app.served[2].input_tokens, app.served[2].output_tokens) == (0, 0)


@pytest.mark.parametrize(
    ("path", "body", "headers", "status"),
    [
        ("/v1/chat/completions", b"{", {}, 400),
        ("/v1/chat/completions", b"\xff", {}, 400),
        ("/v1/chat/completions", b"[]", {}, 400),
        ("/v1/chat/completions", {**CHAT, "tools": ["x"]}, {}, 400),
        ("/v1/messages", {**CLAUDE, "tool_choice": {"name": "x"}}, {}, 400),
        ("/v1/chat/completions", {**CHAT, "model": "no-such-model"}, {}, 404),
        ("/v1/responses", {"model": "no-such-model", "input": "x"}, {}, 400),
        ("/v1/messages", {**CLAUDE, "model": "no-such-model"}, {}, 404),
        ("/v1/chat/completions", CHAT, {"authorization": "Bearer invalid"}, 401),
        ("/v1/messages", CLAUDE, {"x_api_key": "invalid-key"}, 401),
        ("/v1/chat/completions", CHAT, {"x_simulate": "explode"}, 400),
        ("/v1/nothing", CHAT, {}, 404),
    ],
)
def test_bad_requests_are_refused_in_the_providers_way(path, body, headers, status):
    answer = ask(Simulator(FAST), path, body, **headers)
    assert answer.status == status
    assert answer.json["error"]["message"]


@pytest.mark.parametrize(
    ("end", "headers", "status", "kind"),
    [
        (":generateContent", {"x_goog_api_key": "invalid-key"}, 400, "API_KEY_INVALID"),
        ("/converse", {"authorization": "Bearer invalid"}, 403, "UnrecognizedClientException"),
        (
            "/converse-stream",
            {
                "authorization": "AWS4-HMAC-SHA256 Credential=invalid/20261122/us-east-1/bedrock/aws4_request, Signature=x"
            },
            403,
            "UnrecognizedClientException",
        ),
    ],
)
def test_wrong_keys_are_refused_in_the_providers_way(end, headers, status, kind):
    before, _, body = IN_PATH[end]
    answer = ask(Simulator(FAST), before + end, body, **headers)
    assert answer.status == status
    assert kind in answer.headers.get("x-amzn-errortype", "") + answer.body.decode()


@pytest.mark.parametrize(
    ("told", "attempt"), [("attempt=1", 0), ("ttl=1; attempt=3; max=5", 2), ("attempt=0", 0), ("", 0)]
)
def test_attempts_are_read_from_boto3s_header(told, attempt):
    app = Simulator(FAST)
    before, _, body = IN_PATH["/converse"]
    ask(app, before + "/converse", body, amz_sdk_request=told)
    assert app.served[0].attempt == attempt


def test_models_are_listed_in_the_providers_formats():
    app = Simulator(FAST)
    google = ask(app, "/v1beta/models", b"", "GET", x_goog_api_key="any").json
    assert all(model["name"].startswith("models/gemini-") for model in google["models"])
    amazon = ask(app, "/foundation-models", b"", "GET").json
    assert all(model["modelId"] in model["modelArn"] for model in amazon["modelSummaries"])
    assert ask(app, "/v1/models", b"", "GET", authorization="Bearer invalid").status == 401
    openai = ask(app, "/v1/models", b"", "GET").json
    assert "gpt-4o-mini" in {model["id"] for model in openai["data"]}
    anthropic = ask(app, "/v1/models", b"", "GET", anthropic_version="2023-06-01").json
    assert anthropic["has_more"] is False
    assert all(model["id"].startswith("claude") for model in anthropic["data"])


def test_a_script_hits_the_next_requests_and_a_header_only_its_own():
    app = Simulator(FAST, faults=[500, "429;retry-after=0.25", "ok"])
    assert ask(app, x_simulate="503").status == 503
    statuses = [ask(app) for _ in range(4)]
    assert [answer.status for answer in statuses] == [500, 429, 200, 200]
    assert (statuses[1].headers["retry-after"], statuses[1].headers["retry-after-ms"]) == ("1", "250")
    assert [served.fault for served in app.served] == ["503", "500", "429;retry-after=0.25", "ok", "ok"]


def test_a_header_says_one_fault_an_attempt():
    app = Simulator(FAST)
    statuses = [ask(app, x_simulate="500, 529, ok", x_stainless_retry_count=str(n)).status for n in range(4)]
    assert statuses == [500, 529, 200, 200]


def test_chance_fails_requests_at_the_error_rate():
    app = Simulator(Traffic(speed=0, error_rate=0.3, errors={"500": 1, "529": 1}))
    statuses = [ask(app, "/v1/messages", CLAUDE).status for _ in range(200)]
    assert 35 < sum(status != 200 for status in statuses) < 90
    assert set(statuses) == {200, 500, 529}


def test_usage_and_terminator_can_be_missing():
    app = Simulator(FAST)
    assert "usage" not in ask(app, x_simulate="no-usage").json
    assert app.served[0].output_tokens > 0  # what it would have been
    answer = ask(app, body={**CHAT, "stream": True}, x_simulate="no-terminator")
    assert b"[DONE]" not in answer.body
    assert not app.served[1].whole


def test_the_end_of_converse_is_two_events():
    app = Simulator(FAST)
    answer = ask(app, f"/model/{ARN}/converse-stream", CONVERSE, x_simulate="no-terminator")
    assert not any(name in answer.body for name in (b"messageStop", b"metadata"))
    assert b"contentBlockStop" in answer.body


def test_an_error_inside_a_stream_ends_it():
    app = Simulator(FAST)
    answer = ask(app, body={**CHAT, "stream": True}, x_simulate="error-event;after=2")
    assert len(answer.events) == 3
    assert b'"error"' in answer.events[2]


def test_faults_can_be_scripted_over_http():
    app = Simulator(FAST)
    assert ask(app, "/__faults", ["500", 429]).status == 200
    assert ask(app, "/__faults", b"", "GET").json == ["500", "429"]
    assert ask(app).status == 500
    assert ask(app, "/__faults", b"", "DELETE").status == 200
    assert ask(app).status == 200
    assert [one["status"] for one in ask(app, "/__served", b"", "GET").json] == [500, 200]
    for wrong in (b"no json", {"a": 1}, ["explode"]):
        assert ask(app, "/__faults", wrong).status == 400
    assert ask(app, "/__nothing").status == 404
    with pytest.raises(ConfigError):
        Simulator(faults=["explode"])


def test_recordings_are_served_as_they_are():
    recorded = RecordedExchanges(
        [
            Exchange(id="one", path="/v1/x", request_json={"a": 1}, response_body="{}", status=202),
            Exchange(
                id="two",
                path="/v1/x?v=2",
                is_stream=True,
                response_body="data: 1\n\ndata: 2\n\n",
                response_headers={"X-Request-Id": "req_7", "Content-Type": "text/event-stream"},
                expected={"model": "m"},
            ),
        ]
    )
    app = Simulator(exchanges=recorded)
    assert (ask(app, "/v1/x", {"a": 1}).status, ask(app, "/v1/x", {"a": 1}).body) == (202, b"{}")
    two = ask(app, "/anything", b"", x_exchange_id="two")
    assert two.events == [b"data: 1\n\n", b"data: 2\n\n"]
    assert two.headers == {"x-request-id": "req_7", "content-type": "text/event-stream"}
    assert app.served[2].model == "m"
    assert ask(app, "/v1/nothing").status == 404
    assert ask(app, "/v1/x", x_exchange_id="three").status == 404
    assert ask(app, "/v1/x", x_simulate="500").status == 500
    assert len(ask(app, "/v1/x", b"", x_exchange_id="two", x_simulate="garbage;after=0").events) == 2


def test_a_client_that_leaves_ends_the_answer():
    app = Simulator(Traffic(speed=100.0))  # an answer that takes minutes

    async def run():
        messages = [{"type": "http.request", "body": msgspec.json.encode(CHAT)}, {"type": "http.disconnect"}]

        async def receive():
            return messages.pop(0)

        async def send(message):
            raise AssertionError(message)

        scope = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "headers": []}
        await app(scope, receive, send)

    asyncio.run(run())
    assert (app.served[0].status, app.served[0].whole) == (0, False)


def test_a_client_that_leaves_while_it_asks_is_not_answered():
    app = Simulator(FAST)

    async def run():
        messages = [{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}]

        async def receive():
            return messages.pop(0)

        await app({"type": "http", "method": "POST", "path": "/v1/messages", "headers": []}, receive, None)
        await app({"type": "lifespan"}, receive, None)

    asyncio.run(run())
    assert list(app.served) == []


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from(["", "auto", "user", "tool", "1h"]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["type", "role", "content", "function", "name", "schema"]), inner, max_size=3)
    ),
    max_leaves=5,
)
FIELDS = (
    *("stream", "stream_options", "tools", "tool_choice", "response_format", "max_tokens", "n", "reasoning", "text"),
    *(
        "system",
        "thinking",
        "cache_control",
        "output_config",
        "messages",
        "input",
        "prompt",
        "dimensions",
        "instructions",
    ),
    *("contents", "generationConfig", "systemInstruction", "toolConfig", "requests", "content", "inferenceConfig"),
    *("additionalModelRequestFields", "outputConfig"),
    *("instructions", "encoding_format", "max_output_tokens", "reasoning_effort", "metadata", "parallel_tool_calls"),
)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(ROUTES)), st.dictionaries(st.sampled_from(FIELDS), json_values, max_size=3))
def test_whatever_is_asked_is_answered_or_refused(end, more):
    before, _, body = IN_PATH[end] if end in IN_PATH else ("/v1", None, BODIES[end])
    answer = ask(Simulator(Traffic(speed=0, most_tokens=5)), before + end, {**body, **more})
    assert answer.status in {200, 400}
    assert answer.status == 200 or answer.json.get("error", answer.json)["message"]
