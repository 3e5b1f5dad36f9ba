from __future__ import annotations

import asyncio
import gc
import io
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import BotoCoreError, ClientError, EventStreamError

from tellmeter import MetricsCollector, counts
from tellmeter import call as call_module
from tellmeter.testing import FaultServer
from tellmeter.testing.faults import Answer, Fault, Garbage, Hang, Reset
from tellmeter.wire.botocore import OPERATIONS, meter_client
from tellmeter.wire.calls import begin
from tests.support.bedrock import ANSWER, EVENTS, FRAMES, OK, SAID, metered, runtime, streamed
from tests.support.event_stream import exception
from tests.support.metered import only, own_collector, records

SLOW_DOWN = Answer(429, b'{"message":"slow down"}', {"x-amzn-errortype": "ThrottlingException"})
BROKEN = Answer(500, b'{"message":"oh"}', {"x-amzn-errortype": "InternalServerException"})
INVOKED = Answer(200, b'{"inputTextTokenCount": 4, "embedding": [0.5]}', {"content-type": "application/json"})
EMBED = {"modelId": "amazon.titan-embed-text-v2:0", "body": b'{"inputText": "hi"}'}


@pytest.fixture(scope="module")
def server() -> Iterator[FaultServer]:
    with FaultServer() as made:
        yield made


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[MetricsCollector]:
    with own_collector(monkeypatch) as made:
        yield made


@pytest.fixture
def client(server: FaultServer, collector: MetricsCollector) -> Iterator[Any]:
    made = metered(runtime(server.url), collector)
    yield made
    made.close()


def recorded(collector: MetricsCollector) -> Any:
    collector.flush_sync()
    return only(collector)


def wire_faults() -> int:
    return counts.snapshot().get("guarded_errors", {}).get("wire", 0)


# ---------------------------------------------------------------------- what is recorded


def test_a_call(server: FaultServer, client: Any, collector: MetricsCollector) -> None:
    server.script(OK)
    assert client.converse(**SAID)["output"] == ANSWER["output"]
    record = recorded(collector)
    assert (record.model, record.provider, record.method) == ("m.one-v1:0", "unknown", "generate")
    assert (record.input_tokens, record.output_tokens, record.finish_reason) == (3, 5, "end_turn")
    assert (record.status, record.status_code, record.retries, record.request_id) == ("success", 200, 0, "r-1")


def test_the_host_tells_the_provider(collector: MetricsCollector) -> None:
    seen: list[Any] = []

    def look(request: Any) -> None:
        seen.append((request.url, request.method, dict(request.headers.raw)[b"Content-Type"], request.content))

    client = runtime("https://bedrock-runtime.eu-west-1.amazonaws.com:444")
    meter_client(client, look)
    # A handler that answers in the network's place.
    client.meta.events.register("before-send.bedrock-runtime.*", lambda **_: _canned(200, json.dumps(ANSWER).encode()))
    client.converse(**{**SAID, "modelId": "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.a.b-v1:0"})
    ((url, method, kind, content),) = seen
    assert (url.scheme, url.host, url.port) == ("https", "bedrock-runtime.eu-west-1.amazonaws.com", 444)
    assert url.path == "/model/arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.a.b-v1:0/converse"
    assert (method, kind, json.loads(content)) == ("POST", b"application/json", {"messages": SAID["messages"]})


def _canned(status: int, body: bytes) -> Any:
    from botocore.awsrequest import AWSResponse

    class Raw(io.BytesIO):
        def stream(self) -> Iterator[bytes]:
            yield self.read()

    return AWSResponse("https://x", status, {"content-type": "application/json"}, Raw(body))


def test_a_call_of_a_botocore_without_before_parse(
    server: FaultServer, client: Any, collector: MetricsCollector
) -> None:
    name = "before-parse.bedrock-runtime.Converse"
    client.meta.events.unregister(name, unique_id=f"tellmeter-{name}")
    server.script(OK)
    client.converse(**SAID)
    assert (record := recorded(collector)).status == "success" and record.output_tokens == 5


def test_a_stream(server: FaultServer, client: Any, collector: MetricsCollector) -> None:
    server.script(streamed())
    answer = client.converse_stream(**SAID)
    assert not [*records(collector)] and len(collector.open_calls) == 1
    assert [next(iter(one)) for one in answer["stream"]] == [name for name, _ in EVENTS]
    record = recorded(collector)
    assert (record.status, record.method, record.output_tokens) == ("success", "stream", 5)
    assert record.stream.chunks_received == len(EVENTS) and record.stream.time_to_first_token_ms > 0


def test_a_stream_that_ends_early(server: FaultServer, client: Any, collector: MetricsCollector) -> None:
    go = threading.Event()
    server.script(streamed(after=2, go=go))
    answer = client.converse_stream(**SAID)
    events = iter(answer["stream"])
    next(events), next(events)
    answer["stream"].close()
    go.set()
    record = recorded(collector)
    assert (record.status, record.tokens_estimated) == ("closed_early", True)


@pytest.mark.filterwarnings("ignore")  # botocore leaves the socket to the garbage collector, which says so
def test_a_stream_that_nobody_reads(server: FaultServer, client: Any, collector: MetricsCollector) -> None:
    server.script(streamed())
    answer = client.converse_stream(**SAID)
    del answer
    gc.collect()  # botocore's stream is in a circle with its generator
    assert recorded(collector).status == "abandoned"


@pytest.mark.filterwarnings("ignore")
def test_a_stream_that_is_left_after_its_last_event_is_complete(
    server: FaultServer, client: Any, collector: MetricsCollector
) -> None:
    go = threading.Event()
    server.script(streamed([*FRAMES, b"x"], after=len(FRAMES), go=go))
    answer = client.converse_stream(**SAID)
    for one in answer["stream"]:
        if "metadata" in one:
            break
    del answer, one
    gc.collect()
    go.set()
    assert recorded(collector).status == "success"


def test_a_stream_that_breaks(server: FaultServer, client: Any, collector: MetricsCollector) -> None:
    server.script(streamed(FRAMES[:2], ending="close"))
    with pytest.raises(Exception) as caught:
        list(client.converse_stream(**SAID)["stream"])
    record = recorded(collector)
    assert (record.status, record.error_class) == ("error", type(caught.value).__name__)
    assert record.error_category == "network" and record.output_tokens > 0


def test_an_exception_inside_a_stream(server: FaultServer, client: Any, collector: MetricsCollector) -> None:
    server.script(streamed([*FRAMES[:2], exception("throttlingException", {"message": "slow down"})]))
    answer = client.converse_stream(**SAID)
    with pytest.raises(EventStreamError):
        list(answer["stream"])
    answer["stream"].close()
    assert (record := recorded(collector)).status == "error" and record.error_category == "rate_limit"


# ---------------------------------------------------------------------- attempts


@pytest.mark.parametrize("first", [SLOW_DOWN, BROKEN, Reset(), Garbage()], ids=["429", "500", "reset", "garbage"])
def test_botocores_retries_are_attempts_of_one_call(
    first: Fault, server: FaultServer, collector: MetricsCollector
) -> None:
    client = metered(runtime(server.url, attempts=2), collector)
    server.script(first, OK)
    client.converse(**SAID)
    record = recorded(collector)
    assert (record.status, record.retries, record.status_code, record.input_tokens) == ("success", 1, 200, 3)
    assert record.retry_delay_ms >= 0


@pytest.mark.parametrize("fault", [SLOW_DOWN, BROKEN], ids=["429", "500"])
def test_an_error_of_the_provider(fault: Answer, server: FaultServer, client: Any, collector: MetricsCollector) -> None:
    server.script(fault)
    with pytest.raises(ClientError):
        client.converse_stream(**SAID)
    record = recorded(collector)
    assert (record.status, record.status_code, record.retries) == ("error", fault.status, 0)
    assert record.error_category == {429: "rate_limit", 500: "server_error"}[fault.status]


@pytest.mark.parametrize("fault", [Reset(), Garbage()], ids=["reset", "garbage"])
def test_no_answer(fault: Fault, server: FaultServer, client: Any, collector: MetricsCollector) -> None:
    server.script(fault)
    with pytest.raises(BotoCoreError) as caught:
        client.converse(**SAID)
    record = recorded(collector)
    assert (record.status, record.status_code, record.error_class) == ("error", None, type(caught.value).__name__)
    assert record.error_category == "network"


def test_an_answer_that_takes_too_long(server: FaultServer, collector: MetricsCollector) -> None:
    client = metered(runtime(server.url, read_timeout=0.2), collector)
    server.script(Hang())
    with pytest.raises(BotoCoreError):
        client.converse(**SAID)
    record = recorded(collector)
    assert (record.status, record.error_category) == ("timeout", "timeout")


def test_what_is_no_exception_ends_the_attempt_too(
    server: FaultServer, client: Any, collector: MetricsCollector
) -> None:
    def interrupt(**_: Any) -> None:
        raise KeyboardInterrupt

    client.meta.events.register_last("before-send.bedrock-runtime.Converse", interrupt)
    with pytest.raises(KeyboardInterrupt):
        client.converse(**SAID)
    gc.collect()
    assert recorded(collector).status == "cancelled"
    server.script(streamed())
    list(client.converse_stream(**SAID)["stream"])
    collector.flush_sync()
    assert [one.status for one in records(collector)] == ["cancelled", "success"]


def test_calls_in_threads_do_not_mix(server: FaultServer, client: Any, collector: MetricsCollector) -> None:
    server.script()
    server.default = OK
    try:
        threads = [
            threading.Thread(target=lambda n=number: client.converse(**{**SAID, "modelId": f"m.n-{n}"}))
            for number in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        server.default = Answer()
    collector.flush_sync()
    assert sorted(one.model for one in records(collector)) == [f"m.n-{number}" for number in range(8)]


# ---------------------------------------------------------------------- the span around a request


class _Span:
    def __init__(self) -> None:
        self.told: list[str] = []

    def enter(self, call: Any) -> None:
        self.told.append("enter")

    def leave(self) -> None:
        self.told.append("leave")

    def asked(self, request: Any) -> None:
        self.told.append("asked")

    def end(self, call: Any, record: Any) -> None:
        self.told.append("end")


def test_the_span_is_entered_for_each_attempt(
    server: FaultServer, collector: MetricsCollector, monkeypatch: pytest.MonkeyPatch
) -> None:
    span = _Span()
    monkeypatch.setattr(call_module, "new_span", lambda: span)
    client = metered(runtime(server.url, attempts=2), collector)
    server.script(Reset(), streamed())
    answer = client.converse_stream(**SAID)
    assert span.told == ["enter", "leave", "enter", "leave"]
    list(answer["stream"])
    collector.flush_sync()
    assert span.told[4:] == ["asked", "end"]


# ---------------------------------------------------------------------- nothing changes


def test_metering_twice_meters_once_and_the_last_counts(server: FaultServer, collector: MetricsCollector) -> None:
    client = runtime(server.url)
    told: list[Any] = []
    meter_client(client, told.append)
    metered(metered(client, collector), collector)
    server.script(OK)
    client.converse(**SAID)
    assert recorded(collector).status == "success" and told == []


def test_a_fault_of_ours_is_counted_and_changes_nothing(server: FaultServer) -> None:
    def broken(request: Any) -> Any:
        raise RuntimeError("canary")

    client, before = runtime(server.url), wire_faults()
    meter_client(client, broken)
    server.script(OK, streamed())
    assert client.converse(**SAID)["output"] == ANSWER["output"]
    assert len(list(client.converse_stream(**SAID)["stream"])) == len(EVENTS)
    assert wire_faults() == before + 2


def test_a_fault_with_the_answer_ends_the_attempt(
    server: FaultServer, client: Any, collector: MetricsCollector, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*given: Any) -> Any:
        raise RuntimeError("canary")

    monkeypatch.setattr("tellmeter.wire.botocore.WatchedBody", broken)
    server.script(streamed())
    assert len(list(client.converse_stream(**SAID)["stream"])) == len(EVENTS)
    assert recorded(collector).status_code == 200


def test_other_operations_are_not_looked_at(server: FaultServer) -> None:
    client = runtime(server.url)
    seen: list[Any] = []
    meter_client(client, seen.append)
    server.script(Answer(200, b'{"inputTokens": 3}', {"content-type": "application/json"}))
    client.count_tokens(modelId="m.one-v1:0", input={"converse": {"messages": SAID["messages"]}})
    assert seen == [] and "CountTokens" not in OPERATIONS


def test_a_collector_that_is_off(server: FaultServer) -> None:
    client = runtime(server.url)
    meter_client(client, lambda request: begin(lambda: None, request))
    server.script(OK)
    assert client.converse(**SAID)["output"] == ANSWER["output"]


def test_an_uploaded_file_stays_the_applications(server: FaultServer, client: Any, collector: MetricsCollector) -> None:
    server.script(INVOKED)
    client.invoke_model(modelId=EMBED["modelId"], body=io.BytesIO(b'{"inputText": "hi"}'))["body"].read()
    assert server.requests[-1].body == b'{"inputText": "hi"}'
    assert recorded(collector).input_tokens == 4


def test_the_applications_own_context_is_as_it_was(server: FaultServer, client: Any) -> None:
    from tellmeter.wire import botocore

    async def main() -> Any:
        server.script(OK)
        await asyncio.to_thread(client.converse, **SAID)
        server.script(BROKEN)
        with pytest.raises(ClientError):
            client.converse(**SAID)
        return botocore._current.get()

    assert asyncio.run(main()) is None
