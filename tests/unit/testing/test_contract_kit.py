import os
import threading

import pytest

from tellmeter import AgentMetrics, Delivered, Rejected, RetryLater
from tellmeter.testing import FakeClock, OracleSink, contract_kit
from tellmeter.testing.contract_kit import Pipeline, compare, descriptors, hostile, ids_of, in_time, made, poll, threads


def test_no_two_made_records_are_alike():
    records = made(50, status="error")
    assert len(set(ids_of(records))) == len({record.input_tokens for record in records}) == 50
    assert records[0].cost_usd is None and records[1].cost_usd == 0.001 and records[2].status == "error"


def test_hostile_records_are_what_they_say():
    records = hostile()
    texts = "".join(record.model for record in records)
    assert all(sign in texts for sign in "\"'`\\{};<%=,😀")
    assert any(len(record.model) > 1000 for record in records)
    assert 2**63 - 1 in {record.input_tokens for record in records}
    assert {record.latency_ms for record in records} >= {0.0, 1e308}
    assert any(record.stream is not None for record in records)


def test_a_condition_that_never_holds_says_what_is_the_case(monkeypatch):
    monkeypatch.setattr(contract_kit, "PATIENCE", 0.02)
    with pytest.raises(AssertionError, match="after 0.02 s: nothing came"):
        poll(lambda: False, lambda: "nothing came")
    poll(lambda: True, lambda: "")


def test_in_time_gives_results_and_exceptions_and_tells_who_hangs():
    assert in_time(lambda: 5, 20.0, "") == 5
    assert isinstance(in_time(lambda: 1 / 0, 20.0, ""), ZeroDivisionError)
    hanging = threading.Event()
    with pytest.raises(AssertionError, match="it hangs"):
        in_time(hanging.wait, 0.02, "it hangs")
    hanging.set()


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (lambda one, two: [one, two.id], None),
        (lambda one, two: [one], "1 of 2 records did not arrive"),
        (lambda one, two: [], "2 of 2"),
        (lambda one, two: [one, two, "x"], "1 records arrived that nobody recorded, as 'x'"),
        (lambda one, two: [one, two, two], "3 records arrived, 1 of them for the second time"),
    ],
)
def test_what_arrived_is_compared(found, told):
    one, two = made(2)
    if told is None:
        compare(found(one, two), [one, two], more_often=False, exact=False)
        return
    with pytest.raises(AssertionError, match=told):
        compare(found(one, two), [one, two], more_often=False, exact=False)
    if "second" in told:
        compare(found(one, two), [one, two], more_often=True, exact=False)


def test_fields_are_compared_where_they_are_kept():
    record = AgentMetrics(model="a" * 1000, input_tokens=5)
    compare([record], [record], more_often=False, exact=True)
    changed = AgentMetrics(model="a" * 255, id=record.id, timestamp=record.timestamp, input_tokens=4)
    with pytest.raises(AssertionError, match="model, input_tokens changed on the way: 'aaaa") as caught:
        compare([changed], [record], more_often=False, exact=True)
    assert len(str(caught.value)) < 300


def test_a_pipeline_accounts_for_every_record():
    oracle = OracleSink([Rejected("bad")])
    with Pipeline(oracle) as pipeline:
        pipeline.record(made(20))
        pipeline.flush()
        pipeline.record(made(5))
    assert pipeline.ledger.delivered == len(oracle.delivered) == 5
    assert pipeline.ledger.dropped == {"bad": 20} and pipeline.errors == 0


def test_a_pipeline_lets_time_pass_until_all_is_settled():
    oracle = OracleSink([RetryLater(after=200.0), OSError, Delivered()])
    clock = FakeClock()
    with Pipeline(oracle, clock) as pipeline:
        pipeline.record(made(20))
        pipeline.wait_for_attempt()
        assert pipeline.is_backing_off() and not pipeline.is_settled()
        assert clock.next_due == clock.monotonic() + 200.0
        pipeline.settle()
    assert pipeline.errors == 1 and len(oracle.delivered) == 20 and len(oracle.batches) == 3


def test_a_pipeline_that_is_not_done_says_so(monkeypatch):
    monkeypatch.setattr(contract_kit, "PATIENCE", 0.05)
    never = threading.Event()

    def hang(batch, deadline):
        never.wait(20)
        return Delivered()

    with pytest.raises(AssertionError, match="records wait"), Pipeline(OracleSink(default=hang)) as pipeline:
        pipeline.record(made(20))
    never.set()


def test_a_failing_test_is_not_covered_by_its_pipeline():
    with pytest.raises(ZeroDivisionError), Pipeline(OracleSink(default=RetryLater())) as pipeline:
        pipeline.record(made(20))
        raise ZeroDivisionError


def test_open_threads_and_descriptors_are_seen(tmp_path):
    before, opened = threads(), descriptors()
    stop = threading.Event()
    mine = threading.Thread(target=stop.wait)
    mine.start()
    assert threads() - before == {mine}
    stop.set()
    mine.join()
    if opened is not None:
        descriptor = os.open(tmp_path / "file", os.O_CREAT)
        assert descriptors() == opened + 1
        os.close(descriptor)
