"""The sink that speaks to an Agent: UDP, Unix sockets, and Agents that are not there or have no room."""

from __future__ import annotations

import os
import socket
import time

import pytest

from tellmeter.errors import ConfigError
from tellmeter.pipeline.outcome import Delivered, RetryLater
from tellmeter.sinks.datadog import DogStatsDMetricsSink
from tellmeter.sinks.datadog.dogstatsd import place_of
from tellmeter.sinks.urls import sink_from_url
from tests.support.datadog import Agent
from tests.support.ports import free_port
from tests.unit.sinks.made import deadline, record


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in [name for name in os.environ if name.startswith("DD_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "dsd.socket")


@pytest.mark.parametrize("kind", ["udp", "unix", "unixgram", "unixstream", "unix to a stream", "localhost"])
def test_records_reach_an_agent(kind, path):
    unix = kind.startswith("unix")
    with Agent(path if unix else None, stream="stream" in kind) as agent:
        if unix:
            sink = DogStatsDMetricsSink(url=f"{kind.partition(' ')[0]}://{path}", tags=["team:a"])
        else:
            sink = DogStatsDMetricsSink(kind if kind == "localhost" else "127.0.0.1", agent.port, tags=["team:a"])
        batch = [record(input_tokens=5, latency_ms=float(number)) for number in range(300)]
        assert sink.send(batch, deadline()) == Delivered()
        sink.close()
        agent.wait(lambda: agent.total("llm.request.latency") == sum(range(300)))
        assert agent.total("llm.requests", "team:a") == 300
        assert agent.total("llm.tokens.input") == 1500
        assert max(map(len, agent.datagrams)) <= (8192 if unix else 1432)
        assert not agent.unclean


def test_an_agent_on_this_host_that_is_not_there_is_noticed_and_nothing_lost():
    port = free_port()
    sink, batch = DogStatsDMetricsSink(port=port), [record()]
    for _ in range(3):
        assert sink.send(batch, deadline()) == RetryLater(reason="unreachable")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as late:
        late.bind(("127.0.0.1", port))
        assert sink.send(batch, deadline()) == Delivered()
        assert b"llm.requests:1|c|#" in late.recv(8192)
    sink.close()


def test_a_socket_that_comes_later_gets_what_waited(path):
    sink, batch = DogStatsDMetricsSink(socket_path=path), [record() for _ in range(5)]
    assert sink.send(batch, deadline()) == RetryLater(reason="unreachable")
    with Agent(path) as agent:
        assert sink.send(batch, deadline()) == Delivered()
        agent.wait(lambda: agent.total("llm.request.latency") == 0 and agent.total("llm.requests") == 5)
    os.unlink(path)
    with Agent(path) as restarted:  # the old socket is of no use any more
        assert sink.send([record()], deadline()) == RetryLater(reason="unreachable")
        second = [record()]
        assert sink.send(second, deadline()) == Delivered()
        restarted.wait(lambda: restarted.total("llm.requests") == 1)
    sink.close()


def test_an_agent_without_room_is_waited_for_and_what_was_sent_is_not_sent_again(path):
    batch = [record(model=f"m{number}", latency_ms=1.0) for number in range(2000)]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as full:
        full.bind(path)
        sink = DogStatsDMetricsSink(socket_path=path)
        started = time.monotonic()
        assert sink.send(batch, deadline(0.1)) == RetryLater(reason="timeout")
        assert time.monotonic() - started < 8
        lines, outcome = [], None
        full.settimeout(0.01)
        while outcome != Delivered():
            try:
                while True:
                    lines += full.recv(8192).split(b"\n")
            except TimeoutError:
                outcome = sink.send(batch, deadline(0.05))
                assert outcome in (Delivered(), RetryLater(reason="timeout"))
        try:
            while True:
                lines += full.recv(8192).split(b"\n")
        except TimeoutError:
            pass
        sink.close()
    assert len([line for line in lines if line.startswith(b"llm.requests:1|c")]) == 2000
    assert len(set(lines)) == len(lines)


def test_a_stream_that_ends_is_opened_anew(path):
    with Agent(path, stream=True):
        sink = DogStatsDMetricsSink(url=f"unixstream://{path}")
        assert sink.send([record()], deadline()) == Delivered()
        sink._socket.shutdown(socket.SHUT_RDWR)
        batch = [record()]
        assert sink.send(batch, deadline()) == RetryLater(reason="closed")
        sink.close()


def test_a_name_that_nobody_knows_is_tried_again():
    sink = DogStatsDMetricsSink("no-such-host.invalid")
    assert sink.send([record()], deadline()) in (RetryLater(reason="dns"), RetryLater(reason="timeout"))


def test_no_time_is_no_attempt():
    sink = DogStatsDMetricsSink()
    assert sink.send([record()], time.monotonic() - 1) == RetryLater(reason="timeout")


def test_close_and_fork_before_and_between(path):
    sink = DogStatsDMetricsSink(socket_path=path)
    sink.open()
    sink.after_fork()
    sink.close()
    with Agent(path) as agent:
        assert sink.send([record()], deadline()) == Delivered()
        sink.after_fork()
        assert sink.send([record()], deadline()) == Delivered()
        sink.close()
        sink.close()
        agent.wait(lambda: agent.total("llm.requests") == 2)


@pytest.mark.parametrize(
    ("environment", "arguments", "destination"),
    [
        ({}, {}, "udp://127.0.0.1:8125"),
        ({"DD_AGENT_HOST": "10.0.0.1"}, {}, "udp://10.0.0.1:8125"),
        ({"DD_AGENT_HOST": "10.0.0.1", "DD_DOGSTATSD_PORT": "99"}, {}, "udp://10.0.0.1:99"),
        ({"DD_DOGSTATSD_URL": "udp://a.b:7", "DD_AGENT_HOST": "10.0.0.1"}, {}, "udp://a.b:7"),
        ({"DD_DOGSTATSD_URL": "unix:///run/dsd.socket"}, {}, "unix:///run/dsd.socket"),
        ({"DD_DOGSTATSD_URL": "unix:///run/dsd.socket"}, {"port": 99}, "udp://127.0.0.1:99"),
        ({}, {"host": "::1"}, "udp://[::1]:8125"),
        ({}, {"url": "udp://[fe80::1]:99"}, "udp://[fe80::1]:99"),
        ({}, {"url": "udp://agent"}, "udp://agent:8125"),
    ],
)
def test_where_the_agent_is(environment, arguments, destination, monkeypatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert DogStatsDMetricsSink(**arguments).destination == f"{destination}#llm"


def test_urls_name_sinks(path, monkeypatch):
    assert sink_from_url("dogstatsd://10.0.0.1:99").destination == "udp://10.0.0.1:99#llm"
    assert sink_from_url("dogstatsd:///run/dsd.socket").destination == "unix:///run/dsd.socket#llm"
    monkeypatch.setenv("DD_AGENT_HOST", "10.0.0.2")
    sink = sink_from_url("dogstatsd://?namespace=shop.llm&tags=team:a,zone:b&tag_names=feature&batch_size=7&env=prod")
    assert type(sink) is DogStatsDMetricsSink
    assert sink.destination == "udp://10.0.0.2:8125#shop.llm"
    assert sink._labels.constant == ("team:a", "zone:b", "env:prod")
    assert sink._labels.names == ("feature",)
    assert sink.lane_options == {"batch_size": 7}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"host": "a b"}, "host"),
        ({"host": 5}, "host"),
        ({"port": 0}, "port"),
        ({"port": 65536}, "port"),
        ({"port": True}, "port"),
        ({"host": "a", "socket_path": "/x"}, "host and socket_path"),
        ({"socket_path": "relative"}, "absolute"),
        ({"socket_path": "/" + "x" * 108}, "107"),
        ({"url": "http://a"}, "udp://"),
        ({"url": "udp://a:b"}, "port"),
        ({"url": "udp://a:1:2"}, "host"),
        ({"url": "udp://"}, "host"),
        ({"url": "udp://me:canary@a"}, "user"),
        ({"url": "no url"}, "URL"),
        ({"namespace": "1"}, "namespace"),
        ({"tags": [""]}, "tags"),
        ({"batch_size": 0}, "batch_size"),
    ],
)
def test_arguments_that_cannot_work_are_refused(arguments, told):
    with pytest.raises(ConfigError, match=told) as caught:
        DogStatsDMetricsSink(**arguments)
    assert "canary" not in str(caught.value)


def test_a_bad_environment_is_told(monkeypatch):
    monkeypatch.setenv("DD_DOGSTATSD_PORT", "abc")
    with pytest.raises(ConfigError, match="DD_DOGSTATSD_PORT"):
        DogStatsDMetricsSink()
    assert place_of("unixgram:///run/x").kinds == (socket.SOCK_DGRAM,)
