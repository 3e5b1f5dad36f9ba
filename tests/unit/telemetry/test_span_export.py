"""SpanExport: spans come to the exporter in batches, in time, and what is lost is counted."""

import threading
import time

import pytest
from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY, get_value
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import SpanContext, TraceFlags

from tellmeter import counts
from tellmeter.context import suppression
from tellmeter.telemetry.span_export import SpanExport

SECONDS = 20.0  # far more than anything here takes


class Kept(SpanExporter):
    """Keeps what it gets; `hold` keeps it waiting."""

    def __init__(self, result=SpanExportResult.SUCCESS):
        self.batches, self.result = [], result
        self.hold, self.at_work, self.ended = threading.Event(), threading.Event(), threading.Event()
        self.hold.set()
        self.suppressed = set()

    def export(self, spans):
        self.suppressed.add((suppression.get(), get_value(_SUPPRESS_INSTRUMENTATION_KEY)))
        self.at_work.set()
        assert self.hold.wait(SECONDS)
        self.batches.append([span.name for span in spans])
        if isinstance(self.result, Exception):
            raise self.result
        return self.result

    def shutdown(self):
        self.ended.set()
        self.hold.set()


class Answer:
    def __init__(self, status_code, content=b""):
        self.status_code, self.content = status_code, content


def exporting(exporter, max_spans=100, batch_size=10, delay=3600.0):
    seen = []
    made = SpanExport(lambda see: seen.append(see) or exporter, max_spans, batch_size, delay)
    return made, seen[0]


def spans(number):
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("t")
    found = [tracer.start_span(str(index)) for index in range(number)]
    for span in found:
        span.end()
    return found


@pytest.fixture
def counted():
    before = counts.snapshot()

    def since(name):
        now, then = counts.snapshot().get(name, {}), before.get(name, {})
        return {key: number - then.get(key, 0) for key, number in now.items() if number > then.get(key, 0)}

    return since


def test_what_has_ended_comes_in_batches_in_order(counted):
    exporter = Kept()
    export, _ = exporting(exporter)
    for span in spans(9):
        export.take(span)
    assert exporter.batches == []
    assert export.flush(SECONDS)
    assert exporter.batches == [[str(index) for index in range(9)]]
    assert exporter.suppressed == {(True, True)}
    assert counted("span_exports") == {"delivered": 1}
    export.close(SECONDS)


def test_a_full_batch_wakes_the_thread():
    exporter = Kept()
    export, _ = exporting(exporter, batch_size=3)
    for span in spans(3):
        export.take(span)
    assert exporter.at_work.wait(SECONDS)
    export.close(SECONDS)
    assert [len(batch) for batch in exporter.batches] == [3]


def test_after_the_delay_it_exports_by_itself():
    exporter = Kept()
    export, _ = exporting(exporter, delay=0.01)
    export.take(*spans(1))
    assert exporter.at_work.wait(SECONDS)
    export.close(SECONDS)


def test_what_is_not_sampled_is_not_exported():
    exporter = Kept()
    export, _ = exporting(exporter)
    (span,) = spans(1)
    span._context = SpanContext(
        1, 2, is_remote=False, trace_flags=TraceFlags(0)
    )  # recorded for others, as by a processor
    export.take(span)
    assert export.flush(SECONDS)
    assert exporter.batches == []
    export.close(SECONDS)


def test_a_full_queue_drops_what_comes_and_counts_it(counted):
    exporter = Kept()
    exporter.hold.clear()
    export, _ = exporting(exporter, max_spans=5, batch_size=2)
    made = spans(12)
    for span in made[:2]:
        export.take(span)
    assert exporter.at_work.wait(SECONDS)
    for span in made[2:]:
        export.take(span)
    exporter.hold.set()
    export.close(SECONDS)
    assert [name for batch in exporter.batches for name in batch] == [str(index) for index in range(7)]
    assert counted("spans_dropped") == {"queue_full": 5}


@pytest.mark.parametrize("result", [SpanExportResult.FAILURE, RuntimeError("canary")])
def test_what_the_exporter_could_not_deliver_is_counted(result, counted, caplog):
    exporter = Kept(result)
    export, _ = exporting(exporter, batch_size=2)
    for span in spans(3):
        export.take(span)
    assert export.flush(SECONDS)
    assert counted("spans_dropped") == {"export_failed": 3}
    assert counted("span_exports")["failed"] >= 1
    assert "canary" not in caplog.text
    export.close(SECONDS)


@pytest.mark.parametrize(
    ("answer", "refused"), [(Answer(200, b"\x0a\x02\x08\x02"), 2), (Answer(302), 4), (Answer(200), 0)]
)
def test_what_the_receiver_refused_is_counted(answer, refused, counted):
    exporter = Kept()
    export, see = exporting(exporter)
    take = exporter.export
    exporter.export = lambda spans: see(answer) or take(spans)
    for span in spans(4):
        export.take(span)
    assert export.flush(SECONDS)
    assert counted("spans_dropped") == ({"refused": refused} if refused else {})
    assert counted("span_exports") == {"partial" if refused else "delivered": 1}
    export.close(SECONDS)


def test_a_flush_of_an_exporter_that_hangs_ends(counted):
    exporter = Kept()
    exporter.hold.clear()
    export, _ = exporting(exporter, batch_size=1)
    for span in spans(3):
        export.take(span)
    assert not export.flush(0.01)
    export.close(0.01)
    assert exporter.ended.is_set()
    assert counted("spans_dropped") == {"shutdown": 2}
    export._timer.stop(time.monotonic() + SECONDS)


def test_after_the_end_spans_are_counted_and_a_second_end_does_nothing(counted):
    exporter = Kept()
    export, _ = exporting(exporter)
    export.close(SECONDS)
    export.close(SECONDS)
    export.take(*spans(1))
    assert counted("spans_dropped") == {"shutdown": 1}
    assert exporter.batches == []


def test_at_the_exit_where_no_thread_starts_it_exports_on_the_callers(monkeypatch):
    def refuse(thread):
        raise RuntimeError("can't create new thread at interpreter shutdown")

    (span,) = spans(1)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    exporter = Kept()
    export, _ = exporting(exporter)
    export.take(span)
    assert export.flush(SECONDS)
    assert exporter.batches == [["0"]]


def test_a_forked_child_has_an_exporter_of_its_own_and_none_of_the_parents_spans():
    made = []

    def make(see):
        made.append(Kept())
        return made[-1]

    export = SpanExport(make, 100, 10, 3600.0)
    export.take(*spans(1))
    export.before_fork()
    parents = export._timer
    export.after_fork()  # what runs in the child
    export.take(spans(2)[1])
    assert export.flush(SECONDS)
    assert [one.batches for one in made] == [[], [["1"]]]
    export.close(SECONDS)
    assert not made[0].ended.is_set()
    parents.stop(time.monotonic() + SECONDS)


def test_a_fork_waits_for_an_export_but_not_for_ever():
    exporter = Kept()
    exporter.hold.clear()
    export, _ = exporting(exporter, batch_size=1)
    export.take(*spans(1))
    assert exporter.at_work.wait(SECONDS)
    export.before_fork()
    export.after_fork_in_parent()
    exporter.hold.set()
    export.close(SECONDS)
    assert exporter.batches == [["0"]]
