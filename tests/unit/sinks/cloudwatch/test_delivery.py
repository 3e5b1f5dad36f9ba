import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tellmeter.pipeline.outcome import Delivered, Partial, Rejected, RetryLater, TooLarge
from tellmeter.sinks.cloudwatch import encoder as encoders
from tellmeter.sinks.cloudwatch.delivery import Delivery
from tellmeter.sinks.cloudwatch.encoder import Encoder
from tellmeter.sinks.cloudwatch.metrics import check_dimensions, check_metrics
from tests.unit.sinks.made import deadline, recent

BUSY = RetryLater(after=7.0, reason="throttled")


@pytest.fixture
def encoder(monkeypatch):
    """Five data a request, which is five records with models of their own."""
    monkeypatch.setattr(encoders, "REQUEST_DATA", 5)
    metrics = check_metrics(["Requests"])
    return Encoder(metrics, check_dimensions([["model"]], metrics))


def batch(number=20):
    return [recent(model=f"m{index}") for index in range(number)]


def models(data):
    return [one["Dimensions"][0]["Value"] for one in data]


def delivered_by(encoder, rows, put, until=None):
    delivery = Delivery(rows, time.time())
    delivery.run(encoder, put, until or deadline())
    return delivery.outcome()


def test_all_is_delivered_in_order_and_parts(encoder):
    seen = []

    def put(data):
        seen.append(models(data))
        return Delivered()

    assert delivered_by(encoder, batch(12), put) == Delivered()
    assert seen == [[f"m{n}" for n in some] for some in (range(5), range(5, 10), range(10, 12))]


def test_what_was_delivered_before_a_failure_is_told_exactly(encoder):
    answers = iter([Delivered(), Delivered(), BUSY])
    outcome = delivered_by(encoder, batch(), lambda data: next(answers))
    assert outcome == Partial(retry=tuple(range(10, 20)), reason="throttled")


@pytest.mark.parametrize("outcome", [BUSY, TooLarge(), RetryLater(60.0, "unauthorized")])
def test_a_failure_of_the_first_part_is_the_batchs(encoder, outcome):
    calls = []
    assert delivered_by(encoder, batch(), lambda data: calls.append(1) or outcome) == outcome
    assert len(calls) == 1


def test_refused_records_are_found_by_halves_and_the_others_are_delivered(encoder):
    taken = []

    def put(data):
        if {"m3", "m4", "m17"} & set(models(data)):
            return Rejected("invalid_record")
        taken.extend(models(data))
        return Delivered()

    outcome = delivered_by(encoder, batch(), put)
    assert outcome == Partial(rejected=(3, 4, 17), reason="invalid_record")
    assert sorted(taken) == sorted(f"m{n}" for n in range(20) if n not in (3, 4, 17))


def test_all_refused(encoder):
    assert delivered_by(encoder, batch(), lambda data: Rejected("invalid_record")) == Rejected("invalid_record")


def test_times_out_of_bounds_are_refused_by_reason_one_reason_at_a_time(encoder):
    now = time.time()
    rows = [recent(timestamp=at) for at in (now - 20 * 86_400, now, now + 86_400, now - 30 * 86_400)]
    assert delivered_by(encoder, rows, lambda data: Delivered()) == Partial(
        retry=(2,), rejected=(0, 3), reason="too_old"
    )
    assert delivered_by(encoder, rows[2:3], lambda data: Delivered()) == Rejected("in_future")
    assert delivered_by(encoder, rows[1:2], lambda data: Delivered()) == Delivered()


def test_nothing_to_tell_is_delivered_without_a_request():
    metrics = check_metrics(["Cost"])
    encoder = Encoder(metrics, check_dimensions([["model"]], metrics))
    assert delivered_by(encoder, batch(3), lambda data: pytest.fail("a request")) == Delivered()


def test_past_the_deadline_no_request_is_made(encoder):
    calls = []
    outcome = delivered_by(encoder, batch(), lambda data: calls.append(1) or Delivered(), time.monotonic() - 1)
    assert (outcome, calls) == (RetryLater(reason="timeout"), [])


def test_a_refusal_that_cannot_be_narrowed_in_time_asks_for_smaller_batches(encoder):
    end = time.monotonic() + 0.2

    def put(data):
        while time.monotonic() < end:
            time.sleep(0.01)
        return Rejected("invalid_record")

    assert delivered_by(encoder, batch(), put, end) == TooLarge()


def test_an_answer_that_comes_after_the_outcome_changes_nothing(encoder):
    delivery = Delivery(batch(), time.time())
    outcomes = []

    def put(data):
        outcomes.append(delivery.outcome())
        return Delivered()

    delivery.run(encoder, put, deadline())
    assert outcomes == [RetryLater(reason="timeout")]


@given(
    st.lists(st.sampled_from(["good", "refused", "old", "future"]), min_size=1, max_size=25),
    st.integers(0, 30),
    st.sampled_from([BUSY, TooLarge(), RetryLater(60.0, "forbidden")]),
)
def test_whatever_happens_each_record_is_told_of_as_it_went(kinds, failing_at, failure):
    """Records are taken or not, once; what the outcome says is what CloudWatch has seen."""
    now = time.time()
    shift = {"old": -20 * 86_400, "future": 86_400}
    rows = [recent(model=f"{kind}{n}", timestamp=now + shift.get(kind, 0)) for n, kind in enumerate(kinds)]
    metrics = check_metrics(["Requests"])
    calls, taken = [], []

    def put(data):
        calls.append(1)
        if len(calls) > failing_at:
            return failure
        if any(model.startswith("refused") for model in models(data)):
            return Rejected("invalid_record")
        taken.extend(models(data))
        return Delivered()

    outcome = delivered_by(Encoder(metrics, check_dimensions([["model"]], metrics)), rows, put)
    everything = range(len(rows))
    match outcome:
        case Delivered():
            retry, rejected = (), ()
        case Rejected():
            retry, rejected = (), tuple(everything)
        case Partial():
            retry, rejected = outcome.retry, outcome.rejected
        case _:
            retry, rejected = tuple(everything), ()
            assert outcome == failure
    assert not set(retry) & set(rejected)
    told = [rows[index].model for index in everything if index not in {*retry, *rejected}]
    assert sorted(taken) == sorted(told)
    reasons = {"refused": "invalid_record", "old": "too_old", "future": "in_future"}
    for index in rejected:
        assert reasons[kinds[index]] == outcome.reason
    if retry and len(calls) <= failing_at:  # nothing failed: what comes again has another reason to be refused
        assert {reasons[kinds[index]] for index in retry} - {outcome.reason}
