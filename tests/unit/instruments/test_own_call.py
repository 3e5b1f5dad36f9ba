from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tellmeter import MetricsCollector, counts, meter_call, on, track_llm_usage
from tellmeter.instruments.own_call import OwnCall, provider_by
from tests.support.metered import only, own_collector, records

PATIENCE = 30


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[MetricsCollector]:
    with own_collector(monkeypatch) as made:
        yield made


def words() -> Iterator[str]:
    for _ in range(100):
        yield "word"


@pytest.mark.parametrize("given", [words, functools.partial(words)])  # the steps of a partial are not told
def test_the_items_of_a_decorated_generator_are_measured(collector: MetricsCollector, given: Any) -> None:
    assert len(list(track_llm_usage("own", "m")(given)())) == 100
    record = only(collector)
    assert (record.stream.chunks_received, record.stream.bytes_received) == (100, 400)
    assert record.stream.provider_wait_ms + record.stream.consumer_wait_ms <= record.latency_ms
    assert (record.output_tokens, record.tokens_estimated, record.cost_usd) == (0, False, None)


def test_a_stream_that_turns_out_to_be_anothers_ends_for_who_was_told(collector: MetricsCollector) -> None:
    told: list[str] = []
    started = threading.Event()

    @track_llm_usage("own", "m")
    def own() -> Iterator[str]:
        yield "thinking"
        assert started.wait(PATIENCE)
        with meter_call(model="inner"):
            yield "a"
        yield "b"

    offs = [
        on("stream.start", lambda report: (told.append(report.event), started.set())),
        on("stream.complete", lambda report: told.append(report.event)),
    ]
    try:
        assert list(own()) == ["thinking", "a", "b"]
        collector.flush_sync()
    finally:
        for off in offs:
            off()
    assert told == ["stream.start", "stream.complete"]
    assert [record.model for record in records(collector)] == ["inner"]
    assert collector.active_streams() == []


def test_what_fails_in_measuring_is_counted_and_stays_there(
    collector: MetricsCollector, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*given: Any) -> None:
        raise LookupError

    monkeypatch.setattr(OwnCall, "_fold", fail)
    before = counts.snapshot().get("guarded_errors", {}).get("stream", 0)
    assert len(list(track_llm_usage("own", "m")(words)())) == 100
    assert only(collector).status == "success"
    assert counts.snapshot()["guarded_errors"]["stream"] > before


@pytest.mark.parametrize(("model", "provider"), [("gpt-4o", "openai"), ("", ""), ("nobody's", "")])
def test_who_has_a_model(model: str, provider: str) -> None:
    assert provider_by(model) == provider
