"""boto3's clients of Bedrock on a server of a test's own, asked what recordings were asked."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any
from urllib.parse import unquote

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from tellmeter import MetricsCollector
from tellmeter.testing.faults import Answer, Fault
from tellmeter.wire.botocore import meter_client
from tellmeter.wire.calls import begin
from tellmeter.wire.event_stream import CONTENT_TYPE
from tests.support.event_stream import event
from tests.support.exchanges import Recorded
from tests.support.replay_server import Streamed

METHODS = {
    "converse": "converse",
    "converse_stream": "converse_stream",
    "invoke_model": "invoke_model",
    "invoke_model_stream": "invoke_model_with_response_stream",
}
SAID = {"modelId": "m.one-v1:0", "messages": [{"role": "user", "content": [{"text": "hi"}]}]}
ANSWER = {
    "output": {"message": {"role": "assistant", "content": [{"text": "hello"}]}},
    "stopReason": "end_turn",
    "usage": {"inputTokens": 3, "outputTokens": 5, "totalTokens": 8},
    "metrics": {"latencyMs": 7},
}
EVENTS = [
    ("messageStart", {"role": "assistant"}),
    ("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": "hel"}}),
    ("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": "lo"}}),
    ("contentBlockStop", {"contentBlockIndex": 0}),
    ("messageStop", {"stopReason": "end_turn"}),
    ("metadata", {"usage": ANSWER["usage"], "metrics": ANSWER["metrics"]}),
]

FRAMES = [event(name, body) for name, body in EVENTS]
OK = Answer(200, json.dumps(ANSWER).encode(), {"content-type": "application/json", "x-amzn-requestid": "r-1"})

_session = boto3.Session(aws_access_key_id="AKIDEXAMPLE", aws_secret_access_key="s3cr3t", region_name="us-east-1")


def runtime(url: str, attempts: int = 1, read_timeout: float = 30.0) -> Any:
    """A client of its own."""
    config = Config(retries={"total_max_attempts": attempts}, connect_timeout=5, read_timeout=read_timeout)
    return _session.client("bedrock-runtime", endpoint_url=url, config=config)


def streamed(pieces: Sequence[bytes] = FRAMES, **more: Any) -> Fault:
    """A stream of these frames."""
    return Streamed(pieces, content_type=CONTENT_TYPE, **more)


def metered(client: Any, collector: MetricsCollector) -> Any:
    """The same client, its calls recorded by a collector."""
    meter_client(client, lambda request: begin(lambda: collector, request))
    return client


def model_of(exchange: Recorded) -> str:
    """The model that a recording's path names."""
    return unquote(exchange.path.partition("/model/")[2].rpartition("/")[0])


def ask(client: Any, exchange: Recorded) -> tuple[list[Any], tuple[Any, ...]]:
    """What the application gets of a recorded call: the answer, or the events, and what the exception says."""
    got: list[Any] = []
    if exchange.api.startswith("converse"):
        arguments = _with_bytes(exchange.request)
    else:
        arguments = {"body": json.dumps(exchange.request).encode()}
    try:
        answer = getattr(client, METHODS[exchange.api])(modelId=model_of(exchange), **arguments)
        answer["ResponseMetadata"].pop("HTTPHeaders")  # the date
        body = answer.pop("body", None) or answer.pop("stream", None)
        got.append(answer)
        if body is not None and exchange.is_stream:
            got.extend(body)
        elif body is not None:
            got.append(body.read())
    except (BotoCoreError, ClientError) as error:
        return got, (type(error).__name__, str(error))
    return got, ()


def _with_bytes(value: Any, name: str = "") -> Any:
    """boto3 has bytes where its JSON has base64."""
    if isinstance(value, dict):
        return {key: _with_bytes(inner, key) for key, inner in value.items()}
    if isinstance(value, list):
        return [_with_bytes(inner) for inner in value]
    return base64.b64decode(value) if name in ("bytes", "redactedContent") else value
