"""Which sightings are of one call."""

from __future__ import annotations

import gc

from tellmeter import AgentMetrics, MetricsCollector
from tellmeter.telemetry.sightings import COUNTED, MOST_ENDED, NOTHING, Sighting, Sightings
from tellmeter.wire.calls import WireCall
from tellmeter.wire.formats import by_path

CHAT = by_path("/v1/chat/completions")


def seen(
    who: str = "a",
    began: float = 100.0,
    seconds: float = 1.0,
    *,
    model: str = "gpt-4o",
    answered: str | None = None,
    tokens: tuple[int, int] = (10, 20),
    status: str = "success",
    answer: str | None = None,
    operation: str = "chat",
) -> Sighting:
    one = Sighting(who, operation, began)
    record = AgentMetrics(model=model, input_tokens=tokens[0], output_tokens=tokens[1])
    one.know(operation, (model, answered), answer, record)
    one.whole, one.ended = status == "success", began + seconds
    return one


def same(one: Sighting, other: Sighting) -> bool:
    assert one.is_same(other) is other.is_same(one)
    return one.is_same(other)


def test_the_answers_id_decides_where_both_know_it() -> None:
    assert same(seen(answer="x"), seen(answer="x", tokens=(1, 1)))
    assert not same(seen(answer="x"), seen(answer="x", began=900.0))  # some local servers count them anew
    assert not same(seen(answer="x"), seen(answer="y"))
    assert same(seen(answer="x"), seen())


def test_without_it_time_model_and_tokens_decide() -> None:
    assert same(seen(), seen(began=100.2, seconds=0.5))
    assert not same(seen(), seen(began=102.0))
    assert not same(seen(), seen(model="gpt-4o-mini"))
    assert same(seen(), seen(model="azure/GPT-4o"))
    assert same(seen(), seen(model="gpt-4o-2024-08-06", answered="gpt-4o"))
    assert same(seen(), seen(model="unknown"))
    assert not same(seen(), seen(tokens=(10, 21)))
    assert same(seen(), seen(tokens=(10, 0)))
    assert same(seen(tokens=(0, 0)), seen())
    assert same(seen(), seen(tokens=(10, 3), status="closed_early"))
    assert not same(seen(), seen(operation="embeddings"))


def test_each_instrumentation_tells_of_a_call_once() -> None:
    log = Sightings()
    calls = [seen("", 100.0), seen("", 100.1)]
    for one in calls:
        log.add(one)
    found = []
    for _ in range(3):
        same = log.same_as(seen("langchain"))
        if same is not None:
            same.told_by.add("langchain")
        found.append(same)
    assert found == [calls[0], calls[1], None]
    assert log.same_as(seen("other")) is calls[0]
    assert Sightings().same_as(seen()) is None


def test_its_own_spans_are_never_those_of_another_call() -> None:
    log = Sightings()
    log.add(seen("a"))
    assert log.same_as(seen("a")) is None


def test_only_the_newest_are_kept() -> None:
    log = Sightings()
    for number in range(MOST_ENDED + 10):
        log.add(seen("", 100.0 + number, answer=str(number)))
    assert len(log._ended) == MOST_ENDED
    assert log.same_as(seen("a", 100.0 + MOST_ENDED + 9, answer=str(MOST_ENDED + 9))) is not None
    assert log.same_as(seen("a", 100.0, answer="0")) is None


def test_a_call_in_progress_counts_until_it_is_discarded_or_turns_out_to_be_none() -> None:
    log, collector = Sightings(), MetricsCollector()
    for end in ("discard", "none", "dropped"):
        call = WireCall(collector, CHAT, scoped=False)
        call.model = "gpt-4o"
        call.sighting = sighting = log.begin(call)
        told = seen(began=sighting.began - 1, seconds=10)
        assert sighting.counts() and log.same_as(told) is sighting
        if end == "discard":
            call.discard()
        elif end == "none":
            call.recorded(None)
            assert sighting.fate == NOTHING
        else:
            collector.open_calls.clear()
            del call
            gc.collect()
        assert not sighting.counts() and log.same_as(told) is None
    collector.open_calls.clear()


def test_what_ended_is_compared_by_its_record() -> None:
    log, collector = Sightings(), MetricsCollector()
    call = WireCall(collector, CHAT, scoped=False)
    call.sighting = sighting = log.begin(call)
    record = AgentMetrics(model="gpt-4o", timestamp=sighting.began, latency_ms=10.0, input_tokens=3)
    call.response_id = "x"
    call.recorded(record)
    collector.open_calls.clear()
    assert (sighting.fate, sighting.call) == (COUNTED, None)
    assert log.same_as(seen(began=sighting.began - 1, seconds=2, tokens=(3, 0), answer="x")) is sighting
