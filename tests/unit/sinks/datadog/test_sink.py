"""The sink that speaks to Datadog's API: what it sends, when it sends what again, and what it takes."""

from __future__ import annotations

import json
import os
import time
import zlib
from collections import deque
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tellmeter.pipeline.outcome import Delivered, Rejected, RetryLater, TooLarge
from tellmeter.sinks.datadog import DatadogMetricsSink, payloads
from tellmeter.sinks.datadog import sink as module
from tellmeter.sinks.datadog.sink import has_errors
from tellmeter.testing import Answer, Dribble, Hang, Reset
from tests.support.datadog import KEY, Intake
from tests.unit.sinks.made import deadline, record

COUNTS = ("distributions", "series", "series-v1")


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in [name for name in os.environ if name.startswith("DD_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def intake():
    with Intake() as one:
        yield one


def sink_to(intake, **options):
    return DatadogMetricsSink(KEY, url=intake.url, hostname="host-1", **options)


def fresh(number=1, **fields):
    return [record(timestamp=time.time(), latency_ms=10.0, input_tokens=3, **fields) for _ in range(number)]


@pytest.mark.parametrize("counts", COUNTS)
def test_batches_of_one_second_add_up(intake, counts):
    sink = sink_to(intake, counts=counts)
    for _ in range(5):
        assert sink.send(fresh(20), deadline()) == Delivered()
    sink.close()
    assert intake.total("llm.requests") == 100
    assert intake.total("llm.tokens.input") == 300
    latency = "llm.request.latency.sum" if counts == "series-v1" else "llm.request.latency"
    assert intake.total(latency) == 1000
    assert not intake.late and not intake.unclean
    assert {one.path for one in intake.server.requests} == {
        "distributions": {"/api/v1/distribution_points"},
        "series": {"/api/v1/distribution_points", "/api/v2/series"},
        "series-v1": {"/api/v1/series"},
    }[counts]


@pytest.mark.parametrize("counts", COUNTS)
def test_values_are_the_hosts(intake, counts):
    sink = sink_to(intake, counts=counts)
    assert sink.send(fresh(), deadline()) == Delivered()
    sink.close()
    places = [*intake.counts, *intake.distributions]
    assert {host for _, host, _ in places} == {"host-1"}


def test_a_count_whose_answer_was_lost_is_sent_again_and_changes_nothing(intake):
    sink, lost = sink_to(intake, counts="series-v1"), deque(["lost"] * 3)

    def take(request):
        answer = intake.take(request)
        return Reset() if lost and lost.pop() else answer

    intake.server.default = take
    batches = [fresh(10), fresh(10)]
    for batch in batches:
        while sink.send(batch, deadline()) != Delivered():
            pass
    sink.close()
    assert intake.server.received == 5
    assert intake.total("llm.requests") == 20


@pytest.mark.parametrize("counts", ["series", "series-v1"])
def test_counts_are_exact_when_the_clock_goes_back(intake, counts, monkeypatch):
    sink, real = sink_to(intake, counts=counts), time.time
    for step in (0, -100, -101, -250, 0):
        monkeypatch.setattr(module, "time", SimpleNamespace(time=lambda step=step: real() + step))
        assert sink.send(fresh(2), deadline()) == Delivered()
    sink.close()
    assert intake.total("llm.requests") == 10
    assert not intake.late


def test_a_part_that_was_refused_is_not_forgotten_when_the_rest_is_sent_later(intake, monkeypatch):
    monkeypatch.setattr(payloads, "PLAIN_BYTES", 400)
    sink, batch = sink_to(intake), fresh()
    intake.server.script(Answer(400), Answer(503))
    assert sink.send(batch, deadline()) == RetryLater(reason="http_503")
    assert sink.send(batch, deadline()) == Rejected("http_400")
    sink.close()


def test_a_distribution_whose_answer_was_lost_counts_twice_as_is_documented(intake):
    sink, batch = sink_to(intake), fresh(10)
    intake.server.default = lambda request: [intake.take(request), Reset()][1]
    assert sink.send(batch, deadline()) == RetryLater(reason="reset")
    intake.server.default = intake.take
    assert sink.send(batch, deadline()) == Delivered()
    sink.close()
    assert intake.total("llm.requests") == 20


def test_what_has_arrived_of_a_batch_is_not_sent_again(intake, monkeypatch):
    monkeypatch.setattr(payloads, "PLAIN_BYTES", 2000)
    sink, batch = sink_to(intake), [record(model=f"m{n}", timestamp=time.time(), input_tokens=1) for n in range(50)]
    plays = deque()

    def take(request):
        plays.append(request)
        return Answer(503) if len(plays) % 3 == 0 else intake.take(request)

    intake.server.default = take
    outcomes = [sink.send(batch, deadline())]
    while outcomes[-1] != Delivered():
        outcomes.append(sink.send(batch, deadline()))
    sink.close()
    assert len(outcomes) > 5 and set(outcomes[:-1]) == {RetryLater(reason="http_503")}
    assert intake.total("llm.requests") == intake.total("llm.tokens.input") == 50


@pytest.mark.parametrize("counts", COUNTS)
def test_batches_that_interrupt_one_another_still_add_up(intake, counts):
    """A lane does not do so today; another batch ends the wait for what was left of the one before."""
    sink, first, second = sink_to(intake, counts=counts), fresh(3), fresh(4)
    intake.server.script(Answer(503))
    assert sink.send(first, deadline()) == RetryLater(reason="http_503")
    assert sink.send(second, deadline()) == Delivered()
    assert sink.send(first, deadline()) == Delivered()
    sink.close()
    assert intake.total("llm.requests") == 7


def test_a_batch_that_is_too_large_is_the_lanes_until_something_has_arrived(intake, monkeypatch):
    sink, batch = sink_to(intake), fresh(8)
    intake.server.script(Answer(413))
    assert sink.send(batch, deadline()) == TooLarge()
    monkeypatch.setattr(payloads, "PLAIN_BYTES", 3000)
    batch = [record(model=f"m{number}", timestamp=time.time()) for number in range(8)]
    intake.server.script(intake.take, Answer(413), Answer(413))
    assert sink.send(batch, deadline()) == Delivered()
    sink.close()
    assert intake.total("llm.requests") == 8


def test_what_cannot_be_made_smaller_is_refused_and_the_rest_arrives(intake, monkeypatch):
    sink = sink_to(intake)
    monkeypatch.setattr(payloads, "PLAIN_BYTES", 400)
    batch = [*fresh(), *fresh(model="x" * 2000, provider="y" * 120, status="timeout", error_class="z" * 200)]
    assert sink.send(batch, deadline()) == Rejected("too_large")
    sink.close()
    assert intake.total("llm.requests", "model:gpt-4o") == 1


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (Answer(202, b'{"errors": []}'), Delivered()),
        (Answer(202, b'{"status": "ok"}'), Delivered()),
        (Answer(200), Delivered()),
        (Answer(202, b'{"errors": ["metric name too long"]}'), Rejected("partly_refused")),
        (Answer(400, b'{"errors": ["x"]}'), Rejected("http_400")),
        (Answer(401), RetryLater(60.0, "unauthorized")),
        (Answer(403, b'{"errors": ["Forbidden"]}'), RetryLater(60.0, "forbidden")),
        (Answer(408), RetryLater(None, "http_408")),
        (Answer(413), TooLarge()),
        (Answer(429, headers={"Retry-After": "17"}), RetryLater(17.0, "http_429")),
        (Answer(503, headers={"Retry-After": "5"}), RetryLater(5.0, "http_503")),
        (Answer(500), RetryLater(None, "http_500")),
        (Answer(302, headers={"Location": "http://h/"}), Rejected("redirected")),
        (Reset(), RetryLater(None, "reset")),
    ],
)
def test_what_an_answer_means(intake, answer, outcome):
    sink = sink_to(intake)
    intake.server.script(answer)
    assert sink.send(fresh(), deadline()) == outcome
    sink.close()


@pytest.mark.parametrize("fault", [Hang(), Dribble(2)])
def test_it_returns_by_the_deadline(intake, fault):
    sink, batch = sink_to(intake), fresh()
    intake.server.script(fault)
    started = time.monotonic()
    assert sink.send(batch, deadline(0.3)) == RetryLater(reason="timeout")
    assert time.monotonic() - started < 8
    assert sink.send(batch, deadline()) == Delivered()
    sink.close()


@settings(deadline=None, max_examples=30)
@given(st.lists(st.sampled_from(["ok", "refused", "lost"]), max_size=12), st.sampled_from(["series", "series-v1"]))
def test_whatever_answers_are_lost_counts_are_exact(history, counts):
    with Intake() as intake:
        plays = deque(history)

        def take(request):
            play = plays.popleft() if plays else "ok"
            if play == "refused":
                return Answer(503)
            answer = intake.take(request)
            return Reset() if play == "lost" else answer

        intake.server.default = take
        sink, sent = sink_to(intake, counts=counts, interval_seconds=1), 0
        for number in (3, 1, 2):
            batch = fresh(number)
            while sink.send(batch, deadline()) != Delivered():
                pass
            sent += number
        sink.close()
        assert intake.total("llm.requests") == sent


@settings(deadline=None, max_examples=40)
@given(st.lists(st.sampled_from([None, 503, 413, 400]), max_size=25), st.sampled_from(COUNTS))
def test_in_any_weather_each_batch_arrives_once_or_is_said_to_be_refused(history, counts):
    """Behind a lane in small, which splits what is too large and tries again what is to be tried again."""
    with Intake() as intake, pytest.MonkeyPatch.context() as patch:
        patch.setattr(payloads, "PLAIN_BYTES", 1500)
        plays = deque(history)

        def take(request):
            status = plays.popleft() if plays else None
            return intake.take(request) if status is None else Answer(status)

        intake.server.default = take
        sink = sink_to(intake, counts=counts, interval_seconds=1)
        waiting, refused = deque([fresh(1, model=f"m{n}")[0] for n in range(start, start + 4)] for start in (0, 4)), []
        arrived = []
        while waiting:
            batch = waiting.popleft()
            match sink.send(batch, deadline()):
                case Delivered():
                    arrived += batch
                case RetryLater():
                    waiting.appendleft(batch)
                case TooLarge() if len(batch) > 1:
                    waiting.extendleft([batch[len(batch) // 2 :], batch[: len(batch) // 2]])
                case _:
                    refused += batch
        sink.close()
        assert len(arrived) + len(refused) == 8
        for one in arrived:
            assert intake.total("llm.requests", f"model:{one.model}") == 1
            assert intake.total("llm.tokens.input", f"model:{one.model}") == 3
        for one in refused:  # a part of it may have been taken before
            assert intake.total("llm.requests", f"model:{one.model}") <= 1


def test_answers_that_hold_errors():
    assert has_errors(b'{"errors": ["x"]}')
    for body in (b"", b"ok", b"[]", b"null", b'{"errors": []}', b'{"errors": null}', b"[" * 100_000, b"\xff"):
        assert not has_errors(body)


def test_headers_and_packing(intake):
    sink = sink_to(intake)
    assert sink.send(fresh(), deadline()) == Delivered()
    sink.close()
    (request,) = intake.server.requests
    assert request.headers["dd-api-key"] == KEY
    assert request.headers["content-type"] == "application/json"
    assert request.headers["content-encoding"] == "deflate"
    assert json.loads(zlib.decompress(request.body))["series"]
    plain = sink_to(intake, compress=None)
    assert plain.send(fresh(), deadline()) == Delivered()
    plain.close()
    assert "content-encoding" not in intake.server.requests[-1].headers
    assert intake.total("llm.requests") == 2


@pytest.mark.parametrize("counts", COUNTS)
def test_close_and_fork_at_any_time(intake, counts):
    sink = sink_to(intake, counts=counts)
    sink.open()
    sink.after_fork()
    sink.close()
    assert sink.send(fresh(), deadline()) == Delivered()
    sink.after_fork()
    sink.close()
    sink.close()


def test_a_batch_of_nothing_is_delivered(intake):
    sink = sink_to(intake, counts="series")
    assert sink.send([], deadline()) == Delivered()
    assert intake.server.received == 0
    assert module.DatadogMetricsSink is DatadogMetricsSink
