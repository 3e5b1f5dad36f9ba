"""An LLMClient whose provider is a FaultServer, and what that answers."""

import contextlib
import json

from tellmeter import InMemoryMetricsSink, LLMClient, MetricsConfig
from tellmeter.registry.registry import MetricsRegistry
from tellmeter.testing import FaultServer
from tellmeter.testing.faults import Answer
from tests.support.replay_server import Streamed, chat

USAGE = '{"prompt_tokens":9,"completion_tokens":5,"total_tokens":14}'
JSON = {"content-type": "application/json"}


def whole(text="Hello", **message):
    """A chat completion that says `text`."""
    said = {"role": "assistant", "content": text, **message}
    body = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-4o-2024-08-06",
        "choices": [{"index": 0, "message": said, "finish_reason": "stop"}],
        "usage": json.loads(USAGE),
    }
    return Answer(200, json.dumps(body).encode(), {**JSON, "x-request-id": "req_1"})


def streamed(*texts, **ending):
    """A streamed one."""
    return Streamed(list(chat(*texts, usage=USAGE)), **ending)


def failed(status, code=None, **headers):
    """An error in OpenAI's shape."""
    error = {"error": {"message": "canary-said", "type": "some_error", "code": code}}
    return Answer(status, json.dumps(error).encode(), {**JSON, **{n.replace("_", "-"): v for n, v in headers.items()}})


@contextlib.contextmanager
def answering(*faults, provider="openai", **arguments):
    """A client, its sink, and the server that plays `faults` in turn."""
    memory = InMemoryMetricsSink()
    with FaultServer() as server:
        server.script(*faults)
        given = {
            "api_keys": {provider: "canary-key"},
            "base_urls": {provider: server.url},
            "metrics_config": MetricsConfig(),
            "metrics_sinks": [memory],
            "registry": MetricsRegistry(),
        }
        with LLMClient(**{**given, **arguments}) as client:
            yield client, memory, server


def records(client, memory):
    """What was recorded, oldest first."""
    from tellmeter.client.background import run

    client.metrics_collector.flush_sync()
    return run(memory.get_metrics())[::-1]


def sent(server):
    """The bodies of the requests."""
    return [json.loads(request.body) for request in server.requests]
