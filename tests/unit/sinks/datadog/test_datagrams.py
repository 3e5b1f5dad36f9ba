"""Lines of DogStatsD: the same bytes as the vendor's client sends, and nothing that a value could add to them."""

from __future__ import annotations

import itertools
import math
import socket

import pytest
from datadog.dogstatsd import DogStatsd
from hypothesis import given
from hypothesis import strategies as st

from tellmeter.sinks.datadog.datagrams import UDP_BYTES, UDS_BYTES, datagrams
from tellmeter.sinks.datadog.labels import MOST_TAGS, TAG_BYTES, Labels
from tests.support.datadog import Agent
from tests.support.datadog_records import MEASURES, expected, varied
from tests.unit.sinks.made import record, records

LABELS = Labels(["team:a"], ["a", "feature"], ("", "", ""))


def read(packets):
    """What an Agent makes of them."""
    agent = Agent()
    agent.close()
    for packet in packets:
        agent._take(packet)
    return agent


def assert_says(agent, batch, labels=LABELS):
    assert not agent.unclean
    found = agent.values()
    wanted = expected(batch, labels.names, labels.constant)
    assert found.keys() == wanted.keys()
    for key, values in wanted.items():
        if key[0].removeprefix("llm.") in MEASURES:
            assert sorted(found[key]) == sorted(values)
        else:
            assert math.isclose(math.fsum(found[key]), math.fsum(values), rel_tol=1e-12)


@given(st.lists(records, max_size=6), st.sampled_from([100, UDP_BYTES, UDS_BYTES]))
def test_any_batch_is_read_back_from_its_datagrams(batch, most):
    packets = datagrams(batch, LABELS, "llm.", most)
    for packet in packets:
        # Longer is only what is a single line with a single value.
        assert len(packet) <= most or (b"\n" not in packet and packet.count(b"|") == 2)
    agent = read(packets)
    for name, values in ((name, values) for (name, _), values in agent.values().items() if "retries.delay" in name):
        assert all(math.isfinite(value) for value in values), name
    if all(one.retry_delay_ms < 1e290 for one in batch):
        assert_says(agent, batch)


def test_ten_thousand_varied_records_are_read_back():
    batch = varied(1000) * 10
    packets = datagrams(batch, LABELS, "llm.", UDP_BYTES)
    assert max(map(len, packets)) <= UDP_BYTES
    assert_says(read(packets), batch)
    for packet, following in itertools.pairwise(packets):  # which are full
        assert len(packet) + 1 + len(following.split(b"\n")[0]) > UDP_BYTES


def test_values_that_look_like_lines_are_none():
    evil = "x:1|c|#a:b\nllm.requests:1000|c"
    batch = [record(model=evil, status="error", error_class=evil, tags={"feature": evil, "a": "|#,@1\r\n"})]
    agent = read(datagrams(batch, LABELS, "llm.", UDP_BYTES))
    assert agent.total("llm.requests") == 1
    assert_says(agent, batch)


def test_the_bytes_are_those_of_the_vendors_client():
    batch = [record(latency_ms=12.5, input_tokens=7, cost_usd=0.25, retry_delay_ms=1e300)]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(10)
        theirs = DogStatsd(
            "127.0.0.1",
            receiver.getsockname()[1],
            disable_telemetry=True,
            disable_buffering=True,
            origin_detection_enabled=False,
        )
        tags = list(LABELS.of(batch[0]))
        theirs.increment("llm.requests", 1, tags=tags)
        theirs.increment("llm.retries.delay", 1e300, tags=tags)
        theirs.increment("llm.tokens.input", 7, tags=tags)
        theirs.increment("llm.cost", 0.25, tags=tags)
        theirs.distribution("llm.request.latency", 12.5, tags=tags)
        lines = [receiver.recv(8192).rstrip(b"\n") for _ in range(5)]
        theirs.close_socket()
    ours = [line for packet in datagrams(batch, LABELS, "llm.", UDP_BYTES) for line in packet.split(b"\n")]
    assert sorted(ours) == sorted(lines)


def test_the_longest_line_is_one_that_an_agent_reads():
    names = [f"n{number}" for number in range(MOST_TAGS - 6)]
    labels = Labels([], names, ("", "", ""))
    long = dict.fromkeys(names, "é" * 256)
    batch = [record(model="é" * 2048, provider="é" * 128, status="error", error_class="é" * 256, tags=long)]
    lengths = [len(packet) for packet in datagrams(batch, labels, f"{'n' * 100}.", UDP_BYTES)]
    assert max(lengths) > MOST_TAGS * TAG_BYTES * 0.8
    assert max(lengths) <= UDS_BYTES


@pytest.mark.parametrize("most", [UDP_BYTES, UDS_BYTES])
def test_nothing_is_no_datagram(most):
    assert datagrams([], LABELS, "llm.", most) == []
