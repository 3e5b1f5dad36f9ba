"""A Kafka cluster that speaks the real protocol over TCP: librdkafka's own mock, in a process of its own.

It keeps messages in memory. Run as a program, this file is that process: it obeys the lines of its standard input.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from tellmeter.records import FAILURES, AgentMetrics

PRODUCE, INIT_PRODUCER_ID = 0, 22  # https://kafka.apache.org/protocol.html#protocol_api_keys
# https://kafka.apache.org/protocol.html#protocol_error_codes
MSG_SIZE_TOO_LARGE, NOT_ENOUGH_REPLICAS, TOPIC_AUTHORIZATION_FAILED, POLICY_VIOLATION, INVALID_RECORD = (
    10,
    19,
    29,
    44,
    87,
)


class Kafka:
    """One broker, until `close()`."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
            start_new_session=True,
        )
        self.servers = self._answer()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def tell(self, *words: object) -> None:
        """Have it do something, and wait until it has."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(words) + "\n")
        self._process.stdin.flush()
        assert self._answer() == "done"

    @contextlib.contextmanager
    def down(self) -> Iterator[None]:
        """The broker is gone: connections end, new ones are refused."""
        self.tell("rd_kafka_mock_broker_set_down", 1)
        yield
        self.tell("rd_kafka_mock_broker_set_up", 1)

    @contextlib.contextmanager
    def slow(self, milliseconds: int) -> Iterator[None]:
        """The broker answers so much later."""
        self.tell("rd_kafka_mock_broker_set_rtt", 1, milliseconds)
        yield
        self.tell("rd_kafka_mock_broker_set_rtt", 1, 0)

    def fail(self, request: int, *codes: int) -> None:
        """Answer the next requests of a kind with these errors, in turn."""
        self.tell("push_request_errors", request, *codes)

    def forget_failures(self, request: int) -> None:
        """Answer well again."""
        self.tell("rd_kafka_mock_clear_request_errors", request)

    def topic(self) -> str:
        """A new topic of four partitions."""
        name = f"calls-{uuid.uuid4().hex[:12]}"
        self.tell("topic", name, 4)
        return name

    def topic_fails(self, topic: str, code: int) -> None:
        """What the cluster answers when it is asked where the topic is."""
        self.tell("topic_error", topic, code)

    def messages(self, topic: str) -> list[Any]:
        """All messages of a topic, as a consumer reads them."""
        from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

        consumer = Consumer(
            {
                "bootstrap.servers": self.servers,
                "group.id": uuid.uuid4().hex,
                "enable.partition.eof": True,
                "enable.auto.commit": False,
                "log_level": 0,
            }
        )
        try:
            partitions = list(consumer.list_topics(topic, 10).topics[topic].partitions)
            consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in partitions])
            found: list[Any] = []
            ended: set[int] = set()
            deadline = time.monotonic() + 30
            while len(ended) < len(partitions):
                assert time.monotonic() < deadline, "the topic has no end"
                for one in consumer.consume(1000, 0.1):
                    if one.error() is None:
                        found.append(one)
                    elif one.error().name() == "_PARTITION_EOF":
                        ended.add(one.partition())
            return found
        finally:
            consumer.close()

    def records(self, topic: str) -> list[AgentMetrics]:
        """All calls of a topic."""
        return [msgspec.json.decode(one.value(), type=AgentMetrics) for one in self.messages(topic)]

    def close(self) -> None:
        """Kill it."""
        self._process.kill()
        self._process.wait(30)
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with contextlib.suppress(OSError):
                pipe.close()


def totals(server: Kafka, topic: str = "llm-metrics") -> dict[str, float]:
    """Calls, tokens, dollars and errors over everything in a topic; a call that is there twice counts once."""
    calls = {one.id: one for one in server.records(topic)}.values()
    return {
        "calls": len(calls),
        "tokens": sum(one.total_tokens for one in calls),
        "dollars": sum(one.cost_usd or 0.0 for one in calls),
        "errors": sum(one.status in FAILURES for one in calls),
    }


def _serve() -> None:
    """The process of the cluster: librdkafka's rdkafka_mock.h by ctypes."""
    import confluent_kafka

    folder = Path(confluent_kafka.__file__).parent
    (library,) = [*folder.with_name("confluent_kafka.libs").glob("librdkafka*"), *folder.glob(".dylibs/librdkafka*")]
    kafka = ctypes.CDLL(str(library))
    pointers = ("rd_kafka_new", "rd_kafka_conf_new", "rd_kafka_mock_cluster_new")
    for name in pointers:
        getattr(kafka, name).restype = ctypes.c_void_p
    kafka.rd_kafka_mock_cluster_bootstraps.restype = ctypes.c_char_p
    told = ctypes.create_string_buffer(512)
    configuration = ctypes.c_void_p(kafka.rd_kafka_conf_new())
    kafka.rd_kafka_conf_set(configuration, b"log_level", b"0", told, ctypes.c_size_t(512))
    handle = ctypes.c_void_p(kafka.rd_kafka_new(0, configuration, told, ctypes.c_size_t(512)))
    cluster = ctypes.c_void_p(kafka.rd_kafka_mock_cluster_new(handle, 1))
    print(kafka.rd_kafka_mock_cluster_bootstraps(cluster).decode(), flush=True)
    for line in sys.stdin:
        name, *words = json.loads(line)
        if name == "push_request_errors":
            request, *codes = words
            errors = (ctypes.c_int * len(codes))(*codes)
            kafka.rd_kafka_mock_push_request_errors_array(
                cluster, ctypes.c_int16(request), ctypes.c_size_t(len(codes)), errors
            )
        elif name == "topic":
            kafka.rd_kafka_mock_topic_create(cluster, words[0].encode(), words[1], 1)
        elif name == "topic_error":
            kafka.rd_kafka_mock_topic_set_error(cluster, words[0].encode(), words[1])
        else:
            getattr(kafka, name)(cluster, *words)
        print("done", flush=True)


if __name__ == "__main__":
    _serve()
