"""Reports of streams: when they come, who says so, and what is in them."""

from __future__ import annotations

import json
import logging
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tellmeter import ConsoleMetricsSink, JSONLMetricsSink, counts, instrument, stream_options
from tellmeter.streams import running as running_module
from tellmeter.streams.meter import StreamMeter
from tellmeter.streams.options import StreamOptions
from tellmeter.streams.running import Running
from tellmeter.streams.timer import Timer
from tellmeter.testing.contract_kit import poll
from tellmeter.wire.formats.openai_chat import FORMAT
from tests.support.paced import ASKED, URL, client_of, read
from tests.support.sse import stream
from tests.support.watched import FINAL, Watched

EVENTS = stream(20)
CANARY = "canary-5b1d"


class Quiet:
    """The call of a stream."""

    def live(self) -> tuple[str, str, bool]:
        return "openai", "m", True

    def live_tags(self) -> dict[str, str]:
        return {}

    def is_recorded(self) -> bool:
        return True

    def stalled(self, stream_id: str) -> None: ...


@given(st.lists(st.integers(0, 400), min_size=1, max_size=60))
def test_reports_of_progress_are_never_nearer_than_the_interval(steps: list[int]) -> None:
    told: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(running_module, "clock", lambda: 0)
        patch.setattr(running_module, "tell", lambda callback, report, loop: told.append(report))
        meter = StreamMeter(FORMAT.new_reader(), 0, 0.0)
        watched = Running(Quiet(), meter, StreamOptions(callback=print, interval_ms=100.0))
        now = 0
        for step in steps:  # a timer that is late now and then
            now += step * 1_000_000
            again = watched.look(now)
            assert again > now
    times = [one.duration_ms for one in told if one.event == "stream.progress"]
    assert all(later - sooner >= 100.0 for sooner, later in pairwise(times)), times
    if sum(steps) >= 400:
        assert times


def test_streams_that_ended_do_not_wait_for_their_time() -> None:
    """Each is to be looked at in an hour, and most are over at once."""
    timer, hour = Timer(), 3600 * 10**9
    kept = [Running(Quiet(), StreamMeter(FORMAT.new_reader(), 0, 0.0), StreamOptions()) for _ in range(100)]
    for number in range(50_000):
        one = (
            kept[number]
            if number < 100
            else Running(Quiet(), StreamMeter(FORMAT.new_reader(), 0, 0.0), StreamOptions())
        )
        timer.watch(one, time.perf_counter_ns() + hour)
        one.over = number >= 100
    poll(lambda: len(timer._heap) + len(timer._new) < 5000, lambda: f"{len(timer._heap)} {len(timer._new)}")
    assert {id(one) for one in kept} <= {id(one) for _, _, one in timer._heap} | {id(one) for one in timer._new}


def test_live_reports_of_progress_keep_their_distance() -> None:
    with Watched(stream_interval_ms=50.0) as watched:
        read(client_of(*EVENTS[:3], 0.5, *EVENTS[3:]))
        watched.only()
        times = [one.duration_ms for one in watched.of("stream.progress")]
        assert 1 <= len(times) <= 10
        assert all(later - sooner >= 50.0 for sooner, later in pairwise(times)), times


def test_the_nearest_word_on_a_stream_counts() -> None:
    told: dict[str, list[Any]] = {name: [] for name in ("process", "client", "block", "inner")}
    with Watched(stream_callback=told["process"].append, include_raw_chunks=True) as watched:
        client = client_of(*EVENTS)
        instrument(client, collector=watched.collector, stream_options={"metrics_callback": told["client"].append})
        read(client_of(*EVENTS))
        read(client)
        with stream_options(callback=told["block"].append, include_raw_data=False):
            read(client)
            with stream_options(callback=told["inner"].append):
                read(client)
        with stream_options(enabled=False):
            read(client)
        records = watched.records()
        poll(lambda: sum(map(len, told.values())) == 8, lambda: f"{told}")
        finals = {name: [one for one in reports if one.event in FINAL] for name, reports in told.items()}
        assert {name: len(reports) for name, reports in finals.items()} == dict.fromkeys(told, 1)
        assert finals["process"][0].raw_chunks == finals["client"][0].raw_chunks == tuple(EVENTS)
        assert finals["block"][0].raw_chunks is finals["inner"][0].raw_chunks is None
        off = [record for record in records if record.stream is None]
        assert len(records) == 5 and len(off) == 1
        other = next(record for record in records if record.stream is not None)
        assert off[0].output_tokens == other.output_tokens == 200
        assert off[0].cost_usd == other.cost_usd and off[0].cost_usd
        assert watched.collector.active_streams() == []


@pytest.mark.parametrize("where", ["process", "block"])
def test_a_stream_that_is_not_watched_is_still_paid_for(where: str) -> None:
    off: dict[str, Any] = {"enable_streaming_metrics": False} if where == "process" else {}
    with Watched(stall_after_ms=1.0, **off) as watched, stream_options(**({} if off else {"enabled": False})):
        read(client_of(*EVENTS[:5], 0.05, *EVENTS[5:]))
        (record,) = watched.records()
        assert record.stream is None and record.method == "stream"
        assert (record.input_tokens, record.output_tokens, record.tokens_estimated) == (42, 200, False)
        assert record.cost_usd
        assert watched.reports == [] and watched.total("llm_stream_stalls_total") == 0
        watched.check()


@pytest.mark.parametrize("enabled", [True, False])
def test_a_stream_that_is_read_at_once_is_told_of_as_any_other(enabled: bool) -> None:
    with Watched(include_raw_chunks=True) as watched, stream_options(enabled=enabled):
        assert client_of(*EVENTS).post(URL, json=ASKED).content == b"".join(EVENTS)
        if not enabled:
            assert [record.stream for record in watched.records()] == [None] and watched.reports == []
            return
        record, final = watched.only()
    assert [one.event for one in watched.reports] == ["stream.first_token", "stream.complete"]
    assert (record.status, final.status, final.chunks_received) == ("success", "completed", len(EVENTS) - 1)
    assert final.raw_chunks == (b"".join(EVENTS),)


@pytest.mark.security(1)
def test_raw_chunks_are_in_the_last_report_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: Any) -> None:
    events = [
        *EVENTS[:3],
        b'data: {"choices":[{"index":0,"delta":{"content":"%b"}}]}\n\n' % CANARY.encode(),
        *EVENTS[3:],
    ]
    seen: list[Any] = []
    with (
        caplog.at_level(logging.DEBUG),
        Watched(include_raw_chunks=True, stream_interval_ms=5.0, stall_after_ms=20.0) as watched,
    ):
        for sink in (JSONLMetricsSink(str(tmp_path / "calls.jsonl")), ConsoleMetricsSink()):
            watched.collector.add_sink(sink)
        read(client_of(*events[:6], 0.1, *events[6:]), lambda: seen.extend(watched.collector.active_streams()))
        record, final = watched.only()
        assert final.raw_chunks == tuple(events)
        others = [one for one in [*watched.reports, *seen] if one is not final]
        assert {"stream.progress", "stream.first_token", "stream.stall"} <= {one.event for one in others}
        assert all(one.raw_chunks is None for one in others)
        collected = watched.registry.text().decode()
        told = [
            msgspec.json.encode(record).decode(),
            repr(record),
            repr(others),
            json.dumps(watched.collector.stats().counts),
        ]
    output = capsys.readouterr()
    told += [caplog.text, output.out, output.err, (tmp_path / "calls.jsonl").read_text(), collected]
    assert output.out or output.err
    assert not [text for text in told if CANARY in str(text)]


def test_raw_chunks_are_capped_and_the_rest_is_counted() -> None:
    before = counts.total("raw_chunks_left_out")
    text = b"x" * 1000
    events = [b'data: {"choices":[{"index":0,"delta":{"content":"%b"}}]}\n\n' % text for _ in range(1500)]
    with Watched(include_raw_chunks=True) as watched:
        read(client_of(*events, *EVENTS))
        record, final = watched.only()
    kept = final.raw_chunks
    assert kept is not None and kept == tuple(events[: len(kept)])
    assert 2**20 - 2 * len(events[0]) <= sum(map(len, kept)) <= 2**20
    assert counts.total("raw_chunks_left_out") - before == len(events) + len(EVENTS) - len(kept)
    assert record.stream is not None and record.stream.bytes_received == sum(map(len, [*events, *EVENTS]))
