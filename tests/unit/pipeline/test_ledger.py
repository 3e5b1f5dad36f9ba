from __future__ import annotations

from tellmeter import CollectorStats, FlushReport, SinkStats


def test_a_sinks_account_adds_up_or_says_that_it_does_not() -> None:
    assert SinkStats(accepted=10, delivered=4, dropped={"full": 1}, queued=2, in_flight=2, spooled=1).balanced
    assert not SinkStats(accepted=10, delivered=9).balanced


def test_a_collectors_account_is_only_as_good_as_its_sinks() -> None:
    good, bad = SinkStats(accepted=1, delivered=1), SinkStats(accepted=2, delivered=1)
    assert CollectorStats(recorded=3, passed=1, dropped={"filtered": 1}, queued=1, sinks={"a": good}).balanced
    assert not CollectorStats(recorded=3, passed=1, sinks={"a": good}).balanced
    assert not CollectorStats(sinks={"a": good, "b": bad}).balanced


def test_an_empty_flush_is_complete() -> None:
    assert FlushReport().complete
