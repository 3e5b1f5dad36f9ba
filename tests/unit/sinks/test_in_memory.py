from __future__ import annotations

import asyncio
import math
import os
import sys
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tellmeter.errors import ConfigError
from tellmeter.records import StreamMetrics
from tellmeter.sinks import query
from tellmeter.sinks.in_memory import InMemoryMetricsSink
from tests.unit.sinks import made
from tests.unit.sinks.made import T0, python, recent, record, run


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def filled(rows, **options):
    sink = InMemoryMetricsSink(**options)
    for row in rows:
        sink.write(row)
    return sink


def test_a_record_is_there_at_once():
    sink, one = InMemoryMetricsSink(), record(request_id="req_1")
    run(sink.record(one))
    run(sink.flush())
    assert run(sink.get_metrics()) == [one]


def test_newest_first_by_time_and_the_limit_keeps_the_newest():
    rows = [record(n) for n in (3, 1, 4, 1, 5, 9, 2, 6)]
    sink = filled(rows)
    assert [row.timestamp - T0 for row in run(sink.get_metrics())] == [9, 6, 5, 4, 3, 2, 1, 1]
    assert [row.timestamp - T0 for row in run(sink.get_metrics(limit=3))] == [9, 6, 5]
    assert run(sink.get_metrics(limit=0)) == []


def test_what_came_last_is_first_among_equal_times():
    first, second = record(1), record(1)
    assert run(filled([first, second]).get_metrics()) == [second, first]


def test_an_unknown_request_id_gives_nothing():
    sink = filled([record(request_id="req_1"), record()])
    assert run(sink.get_metrics(request_id="nowhere")) == []
    assert len(run(sink.get_metrics(request_id="req_1"))) == 1


def test_filters_apply_to_every_question():
    rows = [
        recent(model="a", provider="x", latency_ms=1.0, tags={"f": "a"}),
        recent(model="b", provider="y", latency_ms=3.0, tags={"f": "b"}, status="error"),
        recent(model="b", provider="x", latency_ms=5.0, tags={"f": "b"}),
    ]
    sink = filled(rows)
    assert len(run(sink.get_metrics(model="b", provider="x"))) == 1
    assert len(run(sink.get_metrics(status="error"))) == 1
    assert run(sink.get_summary(provider="x")).count == 2
    assert run(sink.get_summary(300, "y")).count == 1
    assert run(sink.get_summary(tags={"f": "b"})).avg_latency_ms == 4.0
    assert run(sink.get_percentile(100, provider="y")) == 3.0
    assert sum(point.summary.count for point in run(sink.get_series(1000, model="b"))) == 2
    assert list(run(sink.get_breakdown("model", provider="x"))) == ["a", "b"]


def test_the_oldest_make_room_and_the_newest_stay():
    sink = filled([record(n) for n in range(25)], max_size=10)
    assert [row.timestamp - T0 for row in run(sink.get_metrics())] == list(range(24, 14, -1))
    assert sink.get_stats()["stored_metrics"] == 10
    assert sink.get_stats()["total_requests"] == 25


def test_memory_is_bounded_while_nobody_asks():
    sink = filled((record(n) for n in range(10_000)), max_size=100)
    assert len(sink._kept) + len(sink._fresh) <= 200
    assert len(sink._ids) == len(sink._kept)


def test_what_is_too_old_is_in_no_answer():
    clock = Clock()
    sink = InMemoryMetricsSink(ttl_seconds=60, clock=clock)
    sink.write(recent(model="old"))
    clock.now += 59
    sink.write(recent(model="new"))
    assert run(sink.get_summary(None)).count == 2
    clock.now += 1
    assert [row.model for row in run(sink.get_metrics())] == ["new"]
    assert run(sink.get_summary(None)).models == {"new": 1}
    assert list(run(sink.get_breakdown("model"))) == ["new"]
    assert sink.get_stats()["stored_metrics"] == 1
    assert sink.get_stats()["unique_models"] == 1
    assert sink.get_stats()["total_requests"] == 2
    clock.now += 60
    assert run(sink.get_metrics()) == []
    assert run(sink.get_percentile(50)) == 0.0


def test_what_is_too_old_is_let_go():
    clock = Clock()
    sink = InMemoryMetricsSink(ttl_seconds=60, clock=clock)
    sink.write(record())
    clock.now += 61
    sink.get_stats()
    assert not sink._kept
    assert not sink._ids


def test_a_ttl_counts_from_the_arrival_not_from_the_start_of_the_call():
    sink = filled([record(timestamp=1.0)])
    assert len(run(sink.get_metrics())) == 1


def test_without_a_ttl_everything_stays():
    clock = Clock()
    sink = InMemoryMetricsSink(ttl_seconds=None, clock=clock)
    sink.write(record())
    clock.now += 1e9
    assert len(run(sink.get_metrics())) == 1


def test_the_window_is_the_last_five_minutes_unless_told():
    now = time.time()
    sink = filled([recent(timestamp=now - age) for age in (10, 200, 400, 4000)])
    assert run(sink.get_summary()).count == 2
    assert run(sink.get_summary(window_seconds=500)).count == 3
    assert run(sink.get_summary(None)).count == 4
    assert run(sink.get_summary(start_time=now - 4500, end_time=now - 300)).count == 2


def test_a_record_written_twice_counts_once():
    one = recent(input_tokens=5)
    sink = filled([one, recent(), one])
    assert run(sink.get_summary()).count == 2
    assert sink.get_stats()["total_requests"] == 2
    assert sink.get_stats()["total_tokens"] == 5


def test_stats_are_totals_since_the_start_and_what_is_kept():
    sink = filled(
        [
            recent(latency_ms=100.0, input_tokens=10, output_tokens=5, cost_usd=0.25),
            recent(latency_ms=300.0, provider="anthropic", model="claude", cost_usd=0.5),
            recent(latency_ms=200.0, status="error", error_class="E"),
            recent(latency_ms=200.0, status="cancelled"),
        ]
    )
    assert sink.get_stats() == {
        "total_requests": 4,
        "total_errors": 1,
        "total_tokens": 15,
        "total_cost": 0.75,
        "avg_latency_ms": 200.0,
        "error_rate": 0.25,
        "stored_metrics": 4,
        "unique_models": 2,
        "unique_providers": 2,
    }
    assert InMemoryMetricsSink().get_stats()["avg_latency_ms"] == 0.0


def test_stats_and_summary_agree():
    sink = filled([recent(latency_ms=float(n), input_tokens=n, cost_usd=n / 7, status="error" if n % 3 else "success")
                   for n in range(1000)])  # fmt: skip
    stats, summary = sink.get_stats(), run(sink.get_summary())
    assert stats["total_requests"] == summary.count
    assert stats["total_errors"] == summary.error_count
    assert stats["total_tokens"] == summary.total_tokens
    assert stats["total_cost"] == pytest.approx(summary.total_cost, abs=1e-9)
    assert stats["avg_latency_ms"] == pytest.approx(summary.avg_latency_ms)


def test_clear_forgets_records_and_totals():
    sink = filled([record(), record()])
    run(sink.clear())
    assert run(sink.get_metrics()) == []
    assert sink.get_stats() == InMemoryMetricsSink().get_stats()
    again = record()
    sink.write(again)
    assert run(sink.get_metrics()) == [again]


def test_percentiles_of_metrics():
    sink = filled([recent(latency_ms=float(n), output_tokens=n, stream=StreamMetrics(time_to_first_token_ms=n / 2))
                   for n in range(0, 1000, 10)])  # fmt: skip
    assert run(sink.get_percentile(50)) == 495.0
    assert run(sink.get_percentile(95, "latency_ms", 60)) == pytest.approx(940.5)
    assert run(sink.get_percentile(100, metric="ttft_ms")) == 495.0
    assert run(sink.get_percentile(0, "output_tokens")) == 0.0


@pytest.mark.parametrize(
    "question",
    [
        lambda sink: sink.get_percentile(101),
        lambda sink: sink.get_percentile(50, "speed"),
        lambda sink: sink.get_metrics(limit=-1),
        lambda sink: sink.get_summary(colour="red"),
        lambda sink: sink.get_series(0),
        lambda sink: sink.get_breakdown("latency_ms"),
        lambda sink: sink.get_breakdown("model", limit=-1),
    ],
)
def test_a_question_that_cannot_be_answered_is_refused(question):
    with pytest.raises(ConfigError):
        run(question(InMemoryMetricsSink()))


def test_every_question_settles_all_its_ways_first():
    sink = InMemoryMetricsSink()
    waiting = []

    def settle(timeout):
        while waiting:
            sink.write(waiting.pop())
        return True

    sink.bind(lambda timeout: True)
    sink.bind(settle)
    questions = [
        lambda: run(sink.get_metrics()),
        lambda: run(sink.get_summary()),
        lambda: run(sink.get_percentile(50)),
        lambda: run(sink.get_series(60)),
        lambda: run(sink.get_breakdown("model")),
        sink.get_stats,
    ]
    for number, question in enumerate(questions, 1):
        waiting.append(recent())
        question()
        assert waiting == []
        assert sink.get_stats()["total_requests"] == number
    waiting.append(recent())
    run(sink.clear())
    assert waiting == []
    assert sink.get_stats()["total_requests"] == 0


@pytest.mark.parametrize(("size", "on_the_loop"), [(10, True), (3000, False)])
def test_only_a_quick_answer_is_worked_out_on_the_event_loop(monkeypatch, size, on_the_loop):
    sink, seen, summarise = filled([recent() for _ in range(size)]), [], query.summarise

    def watched(rows):
        seen.append(threading.current_thread() is threading.main_thread())
        return summarise(rows)

    monkeypatch.setattr(query, "summarise", watched)
    assert run(sink.get_summary()).count == size
    assert seen == [on_the_loop]


def test_no_record_is_lost_between_threads_that_write_and_ask():
    sink = InMemoryMetricsSink(max_size=100_000)
    rows = [[recent(input_tokens=1) for _ in range(2000)] for _ in range(4)]
    start = threading.Barrier(5)

    def write(mine):
        start.wait()
        for row in mine:
            sink.write(row)

    threads = [threading.Thread(target=write, args=(mine,)) for mine in rows]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for thread in threads:
            thread.start()
        start.wait()
        while any(thread.is_alive() for thread in threads):
            stats = sink.get_stats()
            assert stats["total_requests"] == stats["stored_metrics"] == stats["total_tokens"]
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert sink.get_stats()["total_requests"] == 8000
    assert {row.id for row in run(sink.get_metrics(limit=10_000))} == {row.id for mine in rows for row in mine}


def test_a_write_never_waits_for_a_reader():
    sink = InMemoryMetricsSink(max_size=10)
    with sink._lock:  # as a reader, or a finalizer that records in the middle of a fold
        for n in range(300):
            sink.write(record(n))
    assert sink.get_stats()["total_requests"] == 300


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("told", [True, False])
def test_a_child_forked_while_the_lock_is_held_can_write_and_ask(told):
    code = f"""
import os
from tellmeter.sinks.in_memory import InMemoryMetricsSink
from tests.unit.sinks.made import recent, run
sink = InMemoryMetricsSink()
sink.write(recent())
sink._lock.acquire()
child = os.fork()
if child == 0:
    if {told}:
        sink.after_fork()
    sink.write(recent())
    os._exit(len(run(sink.get_metrics())))
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert python(code, timeout=60).stdout.strip() == "2"


def test_the_guides_rough_estimate_of_memory_works():
    stats = filled([record()]).get_stats()
    assert f"~{stats['stored_metrics'] * 200} bytes" == "~200 bytes"


@pytest.mark.parametrize("options", [{"max_size": 0}, {"max_size": 1.5}, {"ttl_seconds": 0}, {"ttl_seconds": math.nan}])
def test_bad_arguments_are_refused(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        InMemoryMetricsSink(**options)


def test_a_url_sets_its_bounds():
    sink = InMemoryMetricsSink.from_url("memory:?max_size=5&ttl_seconds=1.5")
    assert (sink.max_size, sink.ttl_seconds) == (5, 1.5)
    with pytest.raises(ConfigError, match="has no place"):
        InMemoryMetricsSink.from_url("memory:///tmp/x")


def test_writing_imports_no_asyncio():
    code = """
import sys
from tellmeter.records import AgentMetrics
from tellmeter.sinks.in_memory import InMemoryMetricsSink
sink = InMemoryMetricsSink()
sink.write(AgentMetrics(model="m"))
sink.get_stats()
print("asyncio" in sys.modules)
"""
    assert python(code).stdout.strip() == "False"


@given(st.lists(made.records, max_size=30), st.integers(1, 10))
@settings(deadline=None, max_examples=50)
def test_it_keeps_the_last_of_what_was_written(rows, size):
    sink = filled(rows, max_size=size)
    kept = asyncio.run(sink.get_metrics())
    assert {row.id for row in kept} == {row.id for row in rows[-size:]}
    assert kept == sorted(kept, key=lambda row: row.timestamp, reverse=True)
