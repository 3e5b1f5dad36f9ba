from __future__ import annotations

import pytest

from tellmeter.errors import ConfigError
from tellmeter.secret import Secret
from tellmeter.sinks.kafka.settings import Silent, checked, from_url, revealed

SASL = {"security.protocol": "SASL_SSL", "sasl.mechanism": "PLAIN", "sasl.username": "me"}


def test_the_sinks_own_settings_and_the_users():
    found = checked("a:9092,b:9092", "calls", {"linger.ms": 20, "acks": -1})
    assert (found["bootstrap.servers"], found["enable.idempotence"], found["linger.ms"]) == ("a:9092,b:9092", True, 20)
    assert checked(["a:9092", "b:9092"], "calls", None)["bootstrap.servers"] == "a:9092,b:9092"
    assert checked("a", "calls", {"enable.idempotence": False, "acks": "1"})["acks"] == "1"


def test_secrets_are_hidden_and_reach_librdkafka():
    found = checked("a", "calls", {**SASL, "sasl.password": "canary"})
    assert "canary" not in repr(found)
    assert revealed(found)["sasl.password"] == "canary"
    assert checked("a", "calls", {**SASL, "sasl.password": Secret("canary")}) == found


@pytest.mark.parametrize(
    ("servers", "topic", "config", "told"),
    [
        ("", "t", None, "bootstrap_servers"),
        (None, "t", None, "bootstrap_servers"),
        ("a:9092, b:9092", "t", None, "bootstrap_servers"),
        ("user:canary@a:9092", "t", None, "bootstrap_servers"),
        ([], "t", None, "bootstrap_servers"),
        ("a", "", None, "topic"),
        ("a", "no topic", None, "topic"),
        ("a", "..", None, "topic"),
        ("a", "x" * 250, None, "topic"),
        ("a", None, None, "topic"),
        ("a", "t", {"nonsense": 1}, "nonsense"),
        ("a", "t", {"linger.ms": "canary"}, "linger.ms|queue.buffering.max.ms"),
        ("a", "t", {"acks": "1"}, "acks"),
        ("a", "t", {"error_cb": print}, "error_cb"),
        ("a", "t", {"transactional.id": "x"}, "transactional.id"),
        ("a", "t", {5: "x"}, "'5'"),
        ("a", "t", {"linger.ms": object()}, "config"),
        ("a", "t", {"security.protocol": "SSL", "ssl.ca.location": "/nowhere"}, "ssl.ca.location"),
        ("a", "t", {"security.protocol": "SSL", "ssl.key.pem": "canary"}, "ssl.key.pem"),
        ("a", "t", {"sasl.password": ""}, "sasl.password"),
    ],
)
def test_what_cannot_work_is_refused(servers, topic, config, told):
    with pytest.raises(ConfigError, match=told) as caught:
        checked(servers, topic, config)
    assert "canary" not in str(caught.value)


def test_a_url_gives_arguments(monkeypatch):
    monkeypatch.setenv("KAFKA_PASSWORD", "canary\n")
    found = from_url(
        "kafka://a:9092%2Cb:9092/my.calls?security.protocol=SASL_SSL&sasl.username=me"
        "&sasl.password_env=KAFKA_PASSWORD&batch_size=7"
    )
    assert found == {
        "bootstrap_servers": "a:9092,b:9092",
        "topic": "my.calls",
        "config": {"security.protocol": "SASL_SSL", "sasl.username": "me", "sasl.password": Secret("canary")},
        "batch_size": 7,
    }
    assert from_url("kafka://a:1,b:2") == {"bootstrap_servers": "a:1,b:2", "config": {}}
    assert from_url("kafka://a/t?ssl.key.location=k.pem")["config"] == {"ssl.key.location": "k.pem"}


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("kafka:a:9092", "kafka://host:9092/topic"),
        ("kafka://me:canary@a/t", "sasl.username"),
        ("kafka://a/t?sasl.password=canary", "sasl.password_env"),
        ("kafka://a/t?sasl.password_env=NO_SUCH", "NO_SUCH"),
        ("kafka://a/t?batch_size=0", "batch_size"),
    ],
)
def test_urls_that_cannot_work_are_refused(url, told):
    with pytest.raises(ConfigError, match=told) as caught:
        from_url(url)
    assert "canary" not in str(caught.value)


def test_silence():
    assert Silent().log(10, "x") is None
