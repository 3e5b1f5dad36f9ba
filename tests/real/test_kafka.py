"""Calls in a Kafka topic, read back by a consumer; the cluster is librdkafka's mock, which speaks the real protocol."""

from __future__ import annotations

import contextlib
import json
import logging
import time

import pytest

from tellmeter import KafkaMetricsSink, MetricsCollector, MetricsConfig
from tellmeter.pipeline.outcome import Delivered, Partial, Rejected, RetryLater, TooLarge
from tellmeter.registry.registry import MetricsRegistry
from tellmeter.sinks.query import summarise
from tellmeter.testing import SinkContract
from tests.support import kafka
from tests.support.varied import varied
from tests.unit.sinks.made import deadline, python, record

CANARY = "canary-7f3a"
MANY = 1000  # more failing answers than any test asks for


@pytest.fixture(scope="module")
def server():
    one = kafka.Kafka()
    yield one
    one.close()


@pytest.fixture
def topic(server):
    return server.topic()


@pytest.fixture
def sink(server, topic):
    one = KafkaMetricsSink(server.servers, topic)
    yield one
    one.close()


class TestContract(SinkContract):
    keeps_fields = True
    secrets = (CANARY,)

    @pytest.fixture(autouse=True)
    def backend(self, server, topic):
        self.server, self.topic = server, topic

    def make_sink(self):
        return KafkaMetricsSink(self.server.servers, self.topic, config={"sasl.password": CANARY})

    def read_back(self):
        return self.server.records(self.topic)

    @contextlib.contextmanager
    def fault(self, kind):
        codes = {
            "too_large": [kafka.MSG_SIZE_TOO_LARGE] * 8,  # one for each partition, twice
            "partial": [kafka.TOPIC_AUTHORIZATION_FAILED],  # of one partition
            "reject": [kafka.INVALID_RECORD] * MANY,
            "unauthorized": [kafka.TOPIC_AUTHORIZATION_FAILED] * MANY,
        }
        if kind == "down":
            with self.server.down():
                yield
        elif kind == "hang":
            with self.server.slow(60_000):
                yield
        elif kind in codes:
            self.server.fail(kafka.PRODUCE, *codes[kind])
            yield
            self.server.forget_failures(kafka.PRODUCE)
        else:
            pytest.skip(f"the mock cluster does not do it: {kind}")


def collect(records, sink, **settings):
    """Through a collector; its account."""
    config = MetricsConfig(max_queue=len(records), flush_timeout_seconds=60.0)
    collector = MetricsCollector(config, registry=MetricsRegistry())
    collector.add_sink(sink, **settings)
    for one in records:
        collector.record(one)
    assert collector.shutdown_sync().complete
    stats = collector.stats()
    assert stats.balanced
    return next(iter(stats.sinks.values()))


def by_id(records):
    return sorted(records, key=lambda one: one.id)


@pytest.mark.heavy
def test_ten_thousand_varied_calls_come_back(server, topic):
    records = varied(10_000)
    ledger = collect(records, KafkaMetricsSink(server.servers, topic), batch_size=1000)
    assert (ledger.delivered, ledger.dropped) == (10_000, {})
    messages = server.messages(topic)
    assert len({one.partition() for one in messages}) == 4
    assert by_id(server.records(topic)) == by_id(records)
    for one in messages:
        assert one.key().decode() == json.loads(one.value())["id"]
        assert one.headers() == [("content-type", b"application/json"), ("schema", b"tellmeter.call/1")]


def test_totals_are_those_of_the_records(server, topic):
    records = [record(number, input_tokens=number, cost_usd=number / 8) for number in range(50)]
    records += [record(status="timeout"), record(status="cancelled")]
    for _ in range(2):  # a call that is there twice counts once
        collect(records, KafkaMetricsSink(server.servers, topic))
    expected = summarise(records)
    assert kafka.totals(server, topic) == {
        "calls": 52,
        "tokens": expected.total_tokens,
        "dollars": expected.total_cost,
        "errors": 1,
    }


def test_a_call_has_its_partition_for_ever(server, topic, sink):
    records = [record(number) for number in range(50)]
    for _ in range(2):
        assert sink.send(records, deadline()) == Delivered()
    places = {(one.key(), one.partition()) for one in server.messages(topic)}
    assert len(places) == 50


def test_a_broker_that_goes_and_comes_back_gets_everything_once(server, topic, sink):
    assert sink.send([record(0)], deadline()) == Delivered()
    again = [record(1), record(2)]
    with server.down():
        assert sink.send(again, deadline()) == RetryLater(None, "unreachable")
    assert sink.send(again, deadline()) == Delivered()
    assert len(server.records(topic)) == 3


def test_a_cluster_that_was_killed(server):
    other = kafka.Kafka()
    sink = KafkaMetricsSink(other.servers, other.topic())
    assert sink.send([record()], deadline()) == Delivered()
    other.close()
    assert sink.send([record()], deadline()) == RetryLater(None, "unreachable")
    sink.close()


def test_what_was_taken_back_at_the_deadline_does_not_arrive_later(server, topic):
    """The broker answers nothing for a while: nothing has been sent yet, as the producer has no id."""
    sink = KafkaMetricsSink(server.servers, topic)
    records = [record(number) for number in range(20)]
    with server.slow(3000):
        for _ in range(3):
            assert sink.send(records, deadline(0.4)) == RetryLater(None, "timeout")
    assert sink.send(records, deadline()) == Delivered()
    sink.close()
    assert by_id(server.records(topic)) == by_id(records)


def test_a_message_that_was_on_its_way_is_there_twice_at_most(server, topic, sink):
    assert sink.send([record()], deadline()) == Delivered()
    one = record(1)
    with server.slow(2000):
        assert sink.send([one], deadline(0.5)) == RetryLater(None, "timeout")
    assert sink.send([one], deadline()) == Delivered()
    found = [found for found in server.records(topic) if found.id == one.id]
    assert found in ([one], [one, one])


@pytest.mark.parametrize(
    ("code", "outcome"),
    [
        (kafka.MSG_SIZE_TOO_LARGE, TooLarge()),
        (kafka.TOPIC_AUTHORIZATION_FAILED, RetryLater(60.0, "forbidden")),
        (kafka.POLICY_VIOLATION, Rejected("policy_violation")),
        (kafka.INVALID_RECORD, Rejected("invalid_record")),
    ],
)
def test_what_a_brokers_error_means(server, topic, sink, code, outcome):
    server.fail(kafka.PRODUCE, *[code] * MANY)
    assert sink.send([record(number) for number in range(20)], deadline()) == outcome
    server.forget_failures(kafka.PRODUCE)
    assert server.records(topic) == []
    assert sink.send([record()], deadline()) == Delivered()


def test_what_passes_costs_nothing(server, topic, sink):
    server.fail(kafka.PRODUCE, kafka.NOT_ENOUGH_REPLICAS, kafka.NOT_ENOUGH_REPLICAS)
    assert sink.send([record()], deadline()) == Delivered()
    assert len(server.records(topic)) == 1


def test_a_missing_topic_is_told_once(server, topic, caplog):
    server.topic_fails(topic, 3)
    sink = KafkaMetricsSink(server.servers, topic, config={"topic.metadata.propagation.max.ms": 200})
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert sink.send([record()], deadline()) == RetryLater(60.0, "no_topic")
    assert [line.getMessage() for line in caplog.records] == [
        f"KafkaMetricsSink: kafka://{server.servers}/{topic}: there is no such topic: make it"
    ]
    server.topic_fails(topic, 0)
    assert sink.send([record()], deadline()) == Delivered()
    sink.close()


def test_a_wrong_password_pauses_and_is_not_told(server, topic, caplog):
    """The mock cluster knows no SASL, and refuses it."""
    settings = {"security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "PLAIN", "sasl.username": "me"}
    sink = KafkaMetricsSink(server.servers, topic, config={**settings, "sasl.password": CANARY})
    with caplog.at_level(logging.DEBUG):
        assert sink.send([record()], deadline(60)) == RetryLater(60.0, "unauthorized")
    assert "check sasl.mechanism" in caplog.text
    assert CANARY not in caplog.text + repr(vars(sink))
    sink.close()


def test_one_message_that_is_too_large_costs_only_itself(server, topic):
    sink = KafkaMetricsSink(server.servers, topic, config={"message.max.bytes": 2000})
    big = record(tags={f"t{number}": "x" * 256 for number in range(32)})
    assert sink.send([record(0), big, record(1)], deadline()) == Partial((), (1,), "too_large")
    assert len(server.records(topic)) == 2
    sink.close()


def test_a_batch_that_is_larger_than_the_queue_of_librdkafka(server, topic):
    sink = KafkaMetricsSink(server.servers, topic, config={"queue.buffering.max.messages": 100})
    assert sink.send([record(number) for number in range(1000)], deadline(30)) == Delivered()
    assert len(server.records(topic)) == 1000
    sink.close()


def test_a_child_ends_without_touching_the_parents_producer(server, topic):
    """A fork without any hook of ours, and a child that ends as programs do: its interpreter frees everything."""
    code = """
import os, sys, time, warnings
from tellmeter.sinks.kafka import KafkaMetricsSink
from tests.unit.sinks.made import deadline, record
warnings.simplefilter("ignore")
sink = KafkaMetricsSink(sys.argv[1], sys.argv[2])
print(sink.send([record(0)], deadline()), flush=True)
child = os.fork()
print(sink.send([record(1)], deadline()), flush=True)
if child == 0:
    sink.close()
    sys.exit(0)
end = time.monotonic() + 30
while time.monotonic() < end:
    found, status = os.waitpid(child, os.WNOHANG)
    if found:
        print("child", status, flush=True)
        break
    time.sleep(0.01)
sink.close()
"""
    said = python(code, server.servers, topic, timeout=60).stdout.splitlines()
    assert sorted(said) == ["Delivered()", "Delivered()", "Delivered()", "child 0"]
    assert len(server.records(topic)) == 3


def test_closing_is_quick_while_the_broker_hangs(server, topic, sink):
    assert sink.send([record()], deadline()) == Delivered()
    with server.slow(60_000):
        sink.send([record()], deadline(0.3))
        before = time.monotonic()
        sink.close()
        assert time.monotonic() - before < 10
