"""A canary in prompts, answers, keys, headers, URLs and exception messages is found in no record, log line, repr or file."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
from pathlib import Path
from typing import Any

import msgspec
import openai
import pytest

from tellmeter import (
    BatchingMetricsSink,
    ConsoleMetricsSink,
    InMemoryMetricsSink,
    JSONLMetricsSink,
    MetricsCollector,
    MetricsConfig,
    Rejected,
    RetryLater,
    SQLiteMetricsSink,
    instrument,
    uninstrument,
)
from tests.support.sdk import http
from tests.support.sse import SSE, bodies, chunk

pytestmark = pytest.mark.sdk
CANARY = "canary-7f3a"
Body, _ = bodies(http)


def answers() -> list[Any]:
    usage = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
    message = {"role": "assistant", "content": CANARY, "tool_calls": None, "refusal": CANARY}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    plain = {
        "id": "1",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-4o",
        "choices": [choice],
        "usage": usage,
    }
    error = {"error": {"message": f"no {CANARY}", "type": "invalid_request_error", "param": CANARY, "code": None}}
    headers = {"content-type": "application/json", "set-cookie": CANARY, "openai-organization": CANARY}

    def explode(request: Any) -> Any:
        raise http.ConnectError(f"cannot reach {CANARY}")

    return [
        lambda request: http.Response(200, headers=headers, json=plain),
        lambda request: http.Response(400, headers=headers, json=error),
        lambda request: http.Response(500, headers=headers, content=CANARY.encode()),
        lambda request: http.Response(200, headers=headers, content=b"{" + CANARY.encode()),
        lambda request: http.Response(200, headers=SSE, stream=Body([chunk({"content": CANARY})] * 3, 2)),
        explode,
    ]


@pytest.mark.security(1, 2)
def test_no_content_no_key_and_no_message_is_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG, "tellmeter")
    memory = InMemoryMetricsSink()

    def nosy(record: Any) -> bool:
        raise ValueError(CANARY)

    class Broken:
        async def record(self, metrics: Any) -> None:
            raise RuntimeError(CANARY)

    class Down(BatchingMetricsSink):
        destination = "somewhere"

        def send(self, batch: Any, deadline: float) -> RetryLater:
            return RetryLater(after=300.0)

    class Refusing(BatchingMetricsSink):
        def send(self, batch: Any, deadline: float) -> Rejected:
            return Rejected()

    sinks = [
        memory,
        SQLiteMetricsSink(str(tmp_path / "calls.db")),
        JSONLMetricsSink(str(tmp_path / "calls.jsonl")),
        ConsoleMetricsSink(),
        Broken(),
        Down(spool=tmp_path / "spool"),
        Refusing(dead_letters=tmp_path / "letters"),
    ]
    collector = MetricsCollector(MetricsConfig(filters=[nosy]), sinks=sinks)
    instrument(collector=collector)
    made = []
    try:
        for answer in answers():

            class Transport(http.BaseTransport):  # type: ignore[name-defined, misc]
                def handle_request(self, request: Any, answer: Any = answer) -> Any:
                    return answer(request)

            sdk = openai.OpenAI(
                api_key=CANARY,
                organization=CANARY,
                base_url=f"https://user:{CANARY}@api.openai.com/v1",
                default_headers={"x-secret": CANARY},
                max_retries=0,
                http_client=http.Client(transport=Transport()),
            )
            for streamed in (False, True):
                try:
                    reply = sdk.chat.completions.create(
                        model="gpt-4o",
                        messages=[{"role": "user", "content": CANARY}],
                        user=CANARY,
                        stream=streamed,
                    )
                    made.append(list(reply) if streamed else reply)
                except Exception as error:  # whatever the answer makes of it
                    made.append(repr(error))
        with pytest.raises(ValueError, match=CANARY), collector.track_request("openai", "gpt-4o") as call:
            made.append(repr(call))
            raise ValueError(CANARY)
    finally:
        uninstrument()
    gc.collect()
    assert collector.flush_sync().waiting.keys() == {"Down"}
    records = asyncio.run(memory.get_metrics())
    assert len(records) >= len(answers()) * 2 + 1
    collector.shutdown_sync()
    files = [file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()]
    for kept in (tmp_path / "spool").rglob("*.seg"), (tmp_path / "letters").rglob("*.jsonl"):
        assert sum(file.stat().st_size for file in kept) > 1000  # there is something to look at
    output = capsys.readouterr()
    seen = [
        msgspec.json.encode(records).decode(),
        repr(records),
        repr(collector.stats()),
        repr(sinks),
        json.dumps(collector.stats().counts),
        caplog.text,
        output.out,
        output.err,
        *(file.decode("latin-1") for file in files),
        *map(str, tmp_path.rglob("*")),
    ]
    assert caplog.text  # the guards did speak
    for text in seen:
        assert CANARY not in text
