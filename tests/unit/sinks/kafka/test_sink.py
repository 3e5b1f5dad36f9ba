"""The sink as it is made and ended; tests/real/test_kafka.py has it with a broker."""

from __future__ import annotations

import logging
import socket

import pytest

from tellmeter.errors import ConfigError
from tellmeter.pipeline.outcome import RetryLater
from tellmeter.sinks.kafka import KafkaMetricsSink
from tellmeter.sinks.urls import sink_from_url
from tests.support.ports import free_port
from tests.unit.sinks.made import deadline, python, record

CANARY = "canary-7f3a"


def test_a_url_names_a_sink(monkeypatch, tmp_path):
    monkeypatch.setenv("KAFKA_PASSWORD", CANARY)
    url = f"kafka://a:9092,b:9092/calls?sasl.password_env=KAFKA_PASSWORD&sasl.username=me&spool={tmp_path}&linger.ms=9"
    sink = sink_from_url(url)
    assert type(sink) is KafkaMetricsSink
    assert sink.destination == "kafka://a:9092,b:9092/calls"
    assert sink.lane_options == {"spool": str(tmp_path)}
    assert sink._settings["linger.ms"] == "9"
    assert CANARY not in repr(vars(sink))


def test_a_topic_has_a_name_without_being_told():
    assert KafkaMetricsSink("a:9092").destination == "kafka://a:9092/llm-metrics"


@pytest.mark.parametrize("options", [{"config": {"nonsense": CANARY}}, {"batch_size": 0}, {"topic": ""}])
def test_arguments_that_cannot_work_are_refused(options):
    with pytest.raises(ConfigError) as caught:
        KafkaMetricsSink("a:9092", **options)
    assert CANARY not in str(caught.value)


def test_nobody_there_is_a_retry_before_the_deadline_and_says_nothing_on_stderr(capfd, caplog):
    sink = KafkaMetricsSink(f"127.0.0.1:{free_port()}")
    with caplog.at_level(logging.INFO):
        # Were it not left early, its message would time out by librdkafka's own limit, which has another name.
        assert sink.send([record()], deadline(60)) == RetryLater(None, "unreachable")
    assert sink._producer is None
    sink.close()
    assert capfd.readouterr() == ("", "")
    assert caplog.text == ""


def test_a_server_that_says_nothing_is_left_at_the_deadline():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        sink = KafkaMetricsSink(f"127.0.0.1:{silent.getsockname()[1]}")
        assert sink.send([record()], deadline(0.5)) == RetryLater(None, "timeout")
        sink.close()


def test_a_producer_that_cannot_be_made_any_more_is_a_pause(tmp_path):
    import trustme

    authority = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(authority)
    sink = KafkaMetricsSink("a:9092", config={"security.protocol": "SSL", "ssl.ca.location": str(authority)})
    authority.unlink()
    assert sink.send([record()], deadline()) == RetryLater(60.0, "no_producer")


def test_closing_and_forking_before_the_first_batch():
    sink = KafkaMetricsSink("a:9092")
    sink.open()
    sink.after_fork()
    sink.close()
    sink.close()


def test_a_child_never_frees_the_parents_producer():
    """librdkafka would wait in it for threads that are not there."""
    freed = []

    class Producer:
        def __del__(self):
            freed.append(self)

    sink = KafkaMetricsSink("a:9092")
    sink._producer = Producer()
    sink.after_fork()
    assert (sink._producer, freed) == (None, [])


def test_the_package_is_needed_when_the_sink_is_made():
    code = """
import sys
sys.modules["confluent_kafka"] = None
from tellmeter import KafkaMetricsSink, MissingExtra
try:
    KafkaMetricsSink("a:9092")
except MissingExtra as error:
    print(error)
"""
    assert "tellmeter[kafka]" in python(code).stdout
