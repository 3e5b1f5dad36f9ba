"""Bodies that the application reads itself: InvokeModel's, and what is noted of streams."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from botocore.exceptions import BotoCoreError
from hypothesis import given
from hypothesis import strategies as st

from tellmeter import MetricsCollector
from tellmeter.testing import FaultServer
from tellmeter.testing.faults import Answer, HalfBody
from tellmeter.wire.botocore import WatchedBody
from tests.support.bedrock import metered, runtime
from tests.support.metered import only, own_collector
from tests.support.replay_server import Streamed

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


READS: dict[str, Callable[[Any], Any]] = {
    "all": lambda body: body.read(),
    "json": lambda body: json.dumps(json.load(body)).encode(),
    "pieces": lambda body: b"".join(body.iter_chunks(7)),
    "lines": lambda body: b"".join(body.iter_lines(5)),
    "readlines": lambda body: b"".join(body.readlines()),
    "exactly": lambda body: body.read(10) + body.read(len(INVOKED.body) - 10),
    "nothing first": lambda body: body.read(0) + body.read(),
    "with": lambda body: _inside(body, lambda raw: raw.read()),
    "with lines": lambda body: _inside(body, b"".join),
    "buffered": lambda body: io.BufferedReader(body).read(),
}


def _inside(body: Any, read: Callable[[Any], bytes]) -> bytes:
    with body as raw:
        return read(raw)


@pytest.mark.parametrize("how", READS)
@pytest.mark.parametrize("chunked", [True, False])
def test_a_body_however_it_is_read(
    how: str, chunked: bool, server: FaultServer, client: Any, collector: MetricsCollector
) -> None:
    server.script(
        Streamed([INVOKED.body[:9], INVOKED.body[9:]], content_type="application/json") if chunked else INVOKED
    )
    body = client.invoke_model(**EMBED)["body"]
    assert type(body).__name__ == "StreamingBody"
    read = READS[how](body)
    assert json.loads(read) == json.loads(INVOKED.body)
    if chunked and how in ("exactly", "buffered"):
        body.close()  # that there is no more is not known before one asks again
        assert recorded(collector).input_tokens == 4
        return
    record = recorded(collector)
    assert (record.status, record.operation, record.input_tokens) == ("success", "embeddings", 4)


@pytest.mark.parametrize("how", ["all", "pieces"])
def test_a_body_that_is_cut_short(how: str, server: FaultServer, client: Any, collector: MetricsCollector) -> None:
    server.script(HalfBody(body=INVOKED.body))
    with pytest.raises(BotoCoreError):
        READS[how](client.invoke_model(**EMBED)["body"])
    record = recorded(collector)
    assert (record.status, record.error_category) == ("error", "network")


class _Raw:
    """A response of urllib3's, as far as bodies go."""

    def __init__(self, data: bytes, cut: int) -> None:
        self._pieces = [data[at : at + cut] for at in range(0, len(data), cut)]

    def stream(self, *_: Any) -> Iterator[bytes]:
        yield from self._pieces


class _Watch:
    """Notes what a body tells."""

    def __init__(self) -> None:
        self.chunks_, self.times, self.told, self.limit = [], [], [], 1 << 30

    def chunks(self) -> Any:
        noted, self_ = type("Noted", (), {})(), self
        noted.chunks, noted.times, noted.limit = self_.chunks_, self_.times, self_.limit
        return noted

    def exhausted(self) -> None:
        self.told.append("exhausted")

    def closed(self) -> None:
        self.told.append("closed")

    def dropped(self, begun: bool) -> None:
        self.told.append("dropped")

    def broke(self, error: BaseException) -> None:
        self.told.append(type(error).__name__)


@given(data=st.binary(max_size=200), cut=st.integers(1, 50), stop=st.integers(0, 20))
def test_what_is_noted_is_what_was_given(data: bytes, cut: int, stop: int) -> None:
    watch = _Watch()
    body = WatchedBody(_Raw(data, cut), watch)
    got = []
    for number, chunk in enumerate(body.stream()):
        got.append(chunk)
        if number == stop:
            break
    left = b"".join(got) != data or (data and number == stop)
    assert b"".join(watch.chunks_) == b"".join(got)
    assert len(watch.times) // 2 == len(watch.chunks_) and watch.times == sorted(watch.times)
    del body
    assert watch.told == (["closed"] if left else ["exhausted"])
