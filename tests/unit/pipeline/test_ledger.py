from __future__ import annotations

import pytest

from tellmeter import CollectorStats, FlushReport, SinkStats
from tellmeter.pipeline.ledger import Ledger


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


def test_a_goal_is_reached_when_as_many_are_settled_as_had_come() -> None:
    ledger = Ledger()
    ledger.enter(10)
    ledger.take(10)
    goal = ledger.goal()
    ledger.enter(5)
    assert not ledger.reached(goal)
    ledger.finish(delivered=7, dropped=2, reason="schema", adopted=False)
    assert not ledger.reached(goal)
    ledger.finish(delivered=1, dropped=0, reason="", adopted=False)
    assert ledger.reached(goal) and not ledger.reached(ledger.goal())


@pytest.mark.parametrize("lose", ["refuse", "lose", "lose from disk"])
def test_records_that_are_lost_meanwhile_do_not_reach_it_for_those_that_wait(lose: str) -> None:
    ledger = Ledger()
    ledger.enter(10)
    ledger.take(10)
    goal = ledger.goal()
    if lose == "refuse":
        ledger.refuse(20, "lane_full")
    else:
        ledger.enter(20)
        ledger.write(20)
        if lose == "lose":
            ledger.enter(20)
        ledger.lose(20, "lane_full", spooled=lose != "lose")
    assert not ledger.reached(goal)
    ledger.finish(delivered=10, dropped=0, reason="", adopted=False)
    assert ledger.reached(goal)


def test_a_goal_is_reached_when_everything_that_is_left_of_it_is_settled() -> None:
    ledger = Ledger()
    ledger.enter(10)
    goal = ledger.goal()
    ledger.lose(4, "lane_full")
    ledger.take(6)
    assert not ledger.reached(goal)
    ledger.finish(delivered=6, dropped=0, reason="", adopted=False)
    assert ledger.reached(goal) and ledger.reached(ledger.goal())


def test_what_an_earlier_process_left_is_a_goal_of_its_own() -> None:
    ledger = Ledger()
    ledger.adopt(3)
    ledger.enter(1)
    goal = ledger.goal()
    ledger.take(1)
    ledger.finish(delivered=1, dropped=0, reason="", adopted=False)
    assert not ledger.reached(goal)
    ledger.take(2, adopted=True)
    ledger.lose(1, "spool_damaged", adopted=True)
    ledger.finish(delivered=2, dropped=0, reason="", adopted=True)
    assert ledger.reached(goal) and ledger.adopted_unread == 0
    stats = ledger.stats(failures={}, state="ready")
    assert stats.balanced and (stats.accepted, stats.adopted, stats.dropped) == (4, 3, {"spool_damaged": 1})


def test_what_is_being_sent_is_on_disk_or_given_up_at_the_end() -> None:
    ledger = Ledger()
    ledger.enter(6)
    ledger.write(4)
    ledger.take(4, spooled=True)
    ledger.give_back()
    assert ledger.abandon("shutdown") == 2
    stats = ledger.stats(failures={}, state="ready")
    assert (stats.spooled, stats.in_flight, stats.queued, stats.dropped) == (4, 0, 0, {"shutdown": 2})
    assert stats.balanced and stats.waiting == 4


def test_a_goal_inside_a_batch_waits_for_the_whole_of_it() -> None:
    ledger = Ledger()
    ledger.enter(1)
    goal = ledger.goal()
    ledger.enter(2)
    ledger.take(3)
    ledger.finish(delivered=2, dropped=0, reason="", adopted=False)  # the newer two; the first is sent again
    assert not ledger.reached(goal)
    ledger.finish(delivered=1, dropped=0, reason="", adopted=False)
    assert ledger.reached(goal)


def test_records_that_overtake_those_on_disk_do_not_reach_their_goal() -> None:
    ledger = Ledger()
    ledger.enter(4)
    ledger.write(4)
    goal = ledger.goal()
    ledger.enter(5)
    ledger.take(5)  # from memory: the disk is in trouble
    both = ledger.goal()
    ledger.finish(delivered=5, dropped=0, reason="", adopted=False)
    assert not ledger.reached(goal) and not ledger.reached(both)
    ledger.take(4, spooled=True)
    ledger.finish(delivered=4, dropped=0, reason="", adopted=False)
    assert ledger.reached(goal) and ledger.reached(both)
