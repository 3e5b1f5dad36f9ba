"""The real boto3 against the simulator: Converse and ConverseStream, whole, streamed, refused and broken."""

import json
import time
from contextlib import closing

import pytest

from tellmeter.simulator import SimulatorServer, Traffic

boto3 = pytest.importorskip("boto3")
botocore = pytest.importorskip("botocore")
exceptions = pytest.importorskip("botocore.exceptions")
config = pytest.importorskip("botocore.config")
urllib3 = pytest.importorskip("urllib3")

HAIKU = "us.anthropic.claude-haiku-4-5-20251001-v1:0"
ARN = f"arn:aws:bedrock:us-east-1:000000000000:inference-profile/{HAIKU}"
SCHEMA = {"type": "object", "properties": {"q": {"type": "string"}}, "required": ["q"]}
HELLO = {"modelId": HAIKU, "messages": [{"role": "user", "content": [{"text": "hello"}]}]}
TOOLS = [{"toolSpec": {"name": "find", "inputSchema": {"json": SCHEMA}}}]
CALLED = {**HELLO, "toolConfig": {"tools": TOOLS, "toolChoice": {"any": {}}}}
THINKING = {"additionalModelRequestFields": {"thinking": {"type": "enabled", "budget_tokens": 1024}}}


@pytest.fixture(scope="module")
def server():
    with SimulatorServer(Traffic(seed=5, speed=0, cache_minimum=16)) as running:
        yield running


def client_of(server, service="bedrock-runtime", key="x", attempts=1):
    return boto3.client(
        service,
        region_name="us-east-1",
        endpoint_url=server.url,
        aws_access_key_id=key,
        aws_secret_access_key="y",
        config=config.Config(retries={"total_max_attempts": attempts, "mode": "standard"}),
    )


@pytest.fixture(scope="module")
def client(server):
    with closing(client_of(server)) as made:
        yield made


def streaming(client, **asked):
    """The stream, closed in the end: boto3 leaves the connection of a broken one open."""
    return closing(client.converse_stream(**asked)["stream"])


def streamed(client, **asked):
    with streaming(client, **asked) as stream:
        return list(stream)


def tokens_of(usage):
    inside = usage["inputTokens"] + usage["cacheReadInputTokens"] + usage["cacheWriteInputTokens"]
    return (inside, usage["cacheReadInputTokens"], usage["cacheWriteInputTokens"], usage["outputTokens"])


def tokens_served(server):
    served = server.served[-1]
    return (served.input_tokens, served.cached_tokens, served.cache_write_tokens, served.output_tokens)


# Formats


@pytest.mark.parametrize("model", [HAIKU, ARN, "amazon.nova-lite-v1:0"])
def test_an_answer_whole_and_streamed(model, server, client):
    asked = {**HELLO, "modelId": model}
    whole = client.converse(**asked)
    assert whole["output"]["message"]["content"][0]["text"]
    assert whole["stopReason"] == "end_turn"
    assert tokens_of(whole["usage"]) == tokens_served(server)
    assert whole["usage"]["totalTokens"] == server.served[-1].input_tokens + server.served[-1].output_tokens
    assert whole["ResponseMetadata"]["RequestId"] == server.served[-1].request_id
    events = streamed(client, **asked)
    assert "".join(event.get("contentBlockDelta", {}).get("delta", {}).get("text", "") for event in events)
    assert [next(iter(event)) for event in (events[0], *events[-2:])] == ["messageStart", "messageStop", "metadata"]
    assert tokens_of(events[-1]["metadata"]["usage"]) == tokens_served(server)
    assert len(events) == server.served[-1].events
    assert {one.model for one in list(server.served)[-2:]} == {model}


def test_latency_is_stated(client):
    with SimulatorServer(Traffic(speed=0.02)) as slower, closing(client_of(slower)) as other:
        assert other.converse(**HELLO)["metrics"]["latencyMs"] > 0
        assert streamed(other, **HELLO)[-1]["metadata"]["metrics"]["latencyMs"] > 0
    assert client.converse(**HELLO)["metrics"]["latencyMs"] == 0  # it does not wait


def test_tools_are_called(client):
    whole = client.converse(**CALLED)
    assert whole["stopReason"] == "tool_use"
    assert whole["output"]["message"]["content"][0]["toolUse"]["input"]["q"]
    events = streamed(client, **CALLED)
    (start,) = [event["contentBlockStart"]["start"] for event in events if "contentBlockStart" in event]
    assert start["toolUse"]["name"] == "find"
    deltas = [event["contentBlockDelta"]["delta"] for event in events if "contentBlockDelta" in event]
    assert json.loads("".join(delta["toolUse"]["input"] for delta in deltas))["q"]


def test_reasoning_is_shown(client):
    blocks = client.converse(**HELLO, **THINKING)["output"]["message"]["content"]
    assert blocks[0]["reasoningContent"]["reasoningText"]["text"]
    assert blocks[1]["text"]
    deltas = [
        event["contentBlockDelta"]["delta"]
        for event in streamed(client, **HELLO, **THINKING)[:-2]
        if "contentBlockDelta" in event
    ]
    assert "".join(delta.get("reasoningContent", {}).get("text", "") for delta in deltas)
    assert any("signature" in delta.get("reasoningContent", {}) for delta in deltas)


def test_structured_output_fits(client):
    wanted = {"type": "json_schema", "structure": {"jsonSchema": {"name": "item", "schema": json.dumps(SCHEMA)}}}
    try:
        whole = client.converse(**HELLO, outputConfig={"textFormat": wanted})
    except exceptions.ParamValidationError:
        pytest.skip("this botocore does not know outputConfig")
    assert json.loads(whole["output"]["message"]["content"][0]["text"])["q"]


def test_the_second_prompt_with_the_same_beginning_reads_the_cache(server, client):
    system = [{"text": "be brief. " * 40}, {"cachePoint": {"type": "default"}}]
    first = client.converse(**HELLO, system=system)["usage"]
    assert tokens_of(first) == tokens_served(server)
    second = streamed(client, **HELLO, system=system)[-1]["metadata"]["usage"]
    assert tokens_of(second) == tokens_served(server)
    assert first["cacheWriteInputTokens"] == second["cacheReadInputTokens"] == 100


def test_models_are_listed(server):
    with closing(client_of(server, "bedrock")) as control:
        listed = control.list_foundation_models()["modelSummaries"]
    assert "amazon.nova-lite-v1:0" in {model["modelId"] for model in listed}


# Faults


@pytest.mark.parametrize("ask", [lambda client: client.converse(**HELLO), lambda client: streamed(client, **HELLO)])
@pytest.mark.parametrize(
    ("fault", "name"),
    [
        ("400", "ValidationException"),
        ("403", "AccessDeniedException"),
        ("404", "ResourceNotFoundException"),
        ("408", "ModelTimeoutException"),
        ("424", "ModelErrorException"),
        ("429;retry-after=2", "ThrottlingException"),
        ("429;code=ModelNotReadyException", "ModelNotReadyException"),
        ("500", "InternalServerException"),
        ("503", "ServiceUnavailableException"),
    ],
)
def test_errors_are_the_sdks_own(fault, name, ask, server, client):
    server.script(fault)
    with pytest.raises(getattr(client.exceptions, name)) as error:
        ask(client)
    told = error.value.response
    assert told["ResponseMetadata"]["HTTPStatusCode"] == int(fault[:3])
    assert told["ResponseMetadata"]["RequestId"] == server.served[-1].request_id
    assert told["Error"]["Message"]
    assert told["ResponseMetadata"]["HTTPHeaders"].get("retry-after") == ("2" if "after" in fault else None)


def test_unknown_models_and_keys_are_refused(server, client):
    with pytest.raises(client.exceptions.ValidationException):
        client.converse(**{**HELLO, "modelId": "no-such-model"})
    with closing(client_of(server, key="invalid-key")) as wrong, pytest.raises(exceptions.ClientError) as error:
        wrong.converse(**HELLO)
    assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403
    assert error.value.response["Error"]["Code"] == "UnrecognizedClientException"


def test_boto3_retries_until_it_works(server):
    server.script("500", "reset;after=0")
    with closing(client_of(server, attempts=3)) as patient:
        patient.converse(**HELLO)
    assert [(one.attempt, one.status) for one in list(server.served)[-3:]] == [(0, 500), (1, 0), (2, 200)]


@pytest.mark.parametrize("fault", ["reset", "close"])
@pytest.mark.parametrize("after", [1, 4])
def test_a_broken_stream_is_an_error_after_its_events(fault, after, server, client):
    server.script(f"{fault};after={after}")
    got = []
    with streaming(client, **HELLO) as stream, pytest.raises((urllib3.exceptions.HTTPError, exceptions.BotoCoreError)):
        for event in stream:
            got.append(event)  # noqa: PERF402 - those before the error are what counts
    assert len(got) <= after
    assert (server.served[-1].events, server.served[-1].whole) == (after, False)


@pytest.mark.parametrize("fault", ["reset;after=0", "close;after=0", "reset;after=3", "hang;seconds=0"])
def test_a_broken_connection_is_a_connection_error(fault, server, client):
    server.script(fault)
    with pytest.raises(exceptions.ConnectionClosedError):
        client.converse(**HELLO)


@pytest.mark.parametrize("fault", ["stall;after=1;seconds=0.2", "slow;seconds=0.2"])
def test_a_first_token_can_be_slow(fault, server, client):
    server.script(fault)
    started = time.perf_counter()
    with streaming(client, **HELLO, inferenceConfig={"maxTokens": 3}) as stream:
        next(event for event in stream if "contentBlockDelta" in event)
    assert time.perf_counter() - started > 0.2


def test_an_error_inside_a_stream_is_the_sdks_error(server, client):
    server.script("error-event;after=2")
    got = []
    with streaming(client, **HELLO) as stream, pytest.raises(exceptions.EventStreamError) as error:
        for event in stream:
            got.append(event)  # noqa: PERF402
    assert error.value.response["Error"]["Code"] == "throttlingException"
    assert len(got) == 2


def test_garbage_says_nothing(server, client):
    """boto3 takes what is no JSON for an empty answer."""
    server.script("garbage", "garbage;after=1")
    assert "output" not in client.converse(**HELLO)
    events = streamed(client, **HELLO)
    assert "text" not in str(events[1])
    assert tokens_of(events[-1]["metadata"]["usage"]) == tokens_served(server)


def test_usage_or_the_end_can_be_missing(server, client):
    server.script("no-usage", "no-usage", "no-terminator")
    assert "usage" not in client.converse(**HELLO)
    assert "usage" not in streamed(client, **HELLO)[-1]["metadata"]
    assert not {"messageStop", "metadata"} & {name for event in streamed(client, **HELLO) for name in event}
