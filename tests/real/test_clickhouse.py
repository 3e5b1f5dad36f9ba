"""The ClickHouse sink before ClickHouse's real engine: every field there and back, faults in between, going away."""

from __future__ import annotations

import contextlib
import http.client
import os
import subprocess
import sys
import threading

import clickhouse_connect
import msgspec
import pytest

from tellmeter import ClickHouseMetricsSink, MetricsCollector, StreamMetrics
from tellmeter.cleaning import MAX_INT
from tellmeter.errors import StoreError
from tellmeter.pipeline.outcome import Delivered, RetryLater
from tellmeter.records import STATUSES
from tellmeter.registry.registry import MetricsRegistry
from tellmeter.testing import Answer, Dribble, FaultServer, Hang, Reset, SinkContract
from tests.support.clickhouse import PASSWORD, USER, ClickHouse, shared, table, totals
from tests.support.servers import require_python
from tests.unit.sinks import made
from tests.unit.sinks.made import T0, deadline, record, run

TEXTS = (
    "plain",
    'it\'s "quoted"',
    "a,b=c d",
    "back\\slash \\N \\t",
    "new\nline\r\ttab\0",
    "😀 日本",
    "{}[]",
    "x" * 1024,
)


@pytest.fixture
def server():
    return shared()


@pytest.fixture
def own_server():
    require_python("lib/python3*/site-packages/chdb")
    server = ClickHouse(require_python())
    server.start()
    yield server
    server.close()


@pytest.fixture
def sink(server):
    sink = ClickHouseMetricsSink(server.url, table=table())
    yield sink
    sink.close()


def varied(number):
    """The same records every time, of every status, with and without everything."""
    statuses = sorted(STATUSES)
    rows = []
    for index in range(number):
        text = TEXTS[index % len(TEXTS)]
        tokens = MAX_INT if index % 997 == 0 else index * 7 % 5000
        rows.append(
            record(
                index // 2,  # pairs at the same time
                model=f"model-{index % 13}" if index % 5 else text,
                provider=("openai", "anthropic", text)[index % 3],
                response_model=None if index % 4 else text,
                operation="chat" if index % 7 else "embeddings",
                method="stream" if index % 2 else "generate",
                latency_ms=(0.0, 1e308, 0.1 + index)[index % 3] if index % 50 == 0 else index / 7,
                status=statuses[index % len(statuses)],
                error_class=None if statuses[index % len(statuses)] == "success" else f"E{index % 9}{text[:5]}",
                status_code=(None, 200, 429, 500)[index % 4],
                input_tokens=tokens,
                output_tokens=index % 300,
                cached_tokens=tokens // 3,
                cache_write_tokens=tokens // 4,
                reasoning_tokens=index % 300 // 2,
                tokens_estimated=index % 11 == 0,
                cost_usd=(None, 0.0, index / 1_000_003, 5e-324)[index % 4],
                price_version=None if index % 3 else "2026-11",
                retries=index % 4,
                retry_delay_ms=index % 4 * 0.1,
                finish_reason=(None, "stop", text)[index % 3],
                tools_used=(text, "search")[: index % 3],
                request_id=None if index % 2 else f"req_{index}",
                trace_id=f"{index:032x}",
                span_id=f"{index:016x}",
                stream=None
                if index % 2
                else StreamMetrics(
                    model=text,
                    time_to_first_chunk_ms=index / 3,
                    time_to_first_token_ms=None if index % 6 else index / 2,
                    max_gap_ms=index / 9,
                    stalls=index % 5,
                    bytes_received=tokens,
                    last_error=None if index % 10 else text,
                    raw_chunks=(b"\x00\xff",) if index % 100 == 0 else None,
                    status="completed",
                ),
                tags={"feature": text, text[:60]: f"v{index % 17}"} if index % 3 else {},
                sample_rate=1.0 if index % 2 else 0.1,
            )
        )
    return rows


def test_ten_thousand_records_come_back_with_every_field(sink, server):
    rows = varied(10_000)
    collector = MetricsCollector(registry=MetricsRegistry())
    collector.add_sink(sink, batch_size=500, max_queue=20_000, max_queue_bytes=2**30)
    for row in rows:
        collector.record(row)
    collector.flush_sync(timeout=60)
    found = run(sink.get_metrics(limit=20_000))
    assert found == rows[::-1]
    for row in rows[:3000]:  # as another process that finds them in its spool
        collector.record(row)
    report = collector.shutdown_sync(timeout=60)
    assert report.complete
    assert collector.stats().balanced
    assert run(sink.get_metrics(limit=20_000)) == rows[::-1]
    every = totals(server, sink.table)
    assert (every["calls"], every["errors"]) == (10_000, sum(row.failed for row in rows))
    summary = run(sink.get_summary(None))
    assert summary.total_tokens == sum(row.total_tokens for row in rows)
    assert every["dollars"] == pytest.approx(summary.total_cost, rel=1e-15)


def test_the_vendors_client_reads_every_field(sink, server):
    rows = varied(300)
    assert sink.send(rows, deadline()) == Delivered()
    client = clickhouse_connect.get_client(host="127.0.0.1", port=server.port, username=USER, password=PASSWORD)
    result = client.query(f"SELECT * FROM {sink.table} FINAL ORDER BY unix_seconds, precedence DESC")
    client.close()
    found = [dict(zip(result.column_names, row, strict=True)) for row in result.result_rows]
    assert len(found) == len(rows)
    for row, columns in zip(rows, found, strict=True):
        stream = columns.pop("stream")
        assert columns.pop("timestamp").timestamp() == pytest.approx(row.timestamp, abs=1e-6)
        assert (None if stream is None else msgspec.json.decode(stream, type=StreamMetrics)) == row.stream
        for name in ("time_to_first_chunk_ms", "time_to_first_token_ms", "max_gap_ms", "stalls", "tokens_per_second"):
            assert columns.pop(name) == (None if row.stream is None else getattr(row.stream, name))
        del columns["precedence"]
        assert columns.pop("unix_seconds") == row.timestamp
        assert tuple(columns.pop("tools_used")) == row.tools_used
        for name, value in columns.items():
            assert value == getattr(row, name), name


# ---------------------------------------------------------------------- faults in between


class Between:
    """A server that fails on demand and else hands over to the real one."""

    def __init__(self, real):
        self.server = FaultServer(self.hand_over)
        self._real = real

    def hand_over(self, request):
        connection = http.client.HTTPConnection("127.0.0.1", self._real.port, timeout=60)
        try:
            connection.request(request.method, request.path, request.body, dict(request.headers))
            answer = connection.getresponse()
            headers = {name: value for name, value in answer.getheaders() if name.lower().startswith("x-clickhouse")}
            return Answer(answer.status, answer.read(), headers=headers)
        finally:
            connection.close()

    def ten_at_most(self, request):
        too_many = "query=INSERT" in request.path and request.content.count(b"\n") >= 10
        return Answer(413) if too_many else self.hand_over(request)

    @contextlib.contextmanager
    def fails(self, kind):
        if kind == "down":
            self.server.stop_listening()
            yield
            self.server.start_listening()
            return
        self.server.default = {
            "error": Answer(500, b"Code: 241. DB::Exception", headers={"X-ClickHouse-Exception-Code": "241"}),
            "reset": Reset(),
            "hang": Hang(),
            "dribble": Dribble(1.0),
            "retry_after": Answer(503, headers={"Retry-After": "120"}),
            "too_large": self.ten_at_most,
            "reject": Answer(400),
            "unauthorized": Answer(403, b"Code: 516.", headers={"X-ClickHouse-Exception-Code": "516"}),
        }[kind]
        yield 120
        self.server.default = self.hand_over


class TestContract(SinkContract):
    idempotent = True
    keeps_fields = True
    secrets = (PASSWORD,)

    @pytest.fixture(autouse=True)
    def backend(self):
        self.table = table()
        self.between = Between(shared())
        with self.between.server:
            yield

    def make_sink(self):
        return ClickHouseMetricsSink(self.between.server.url, user=USER, password=PASSWORD, table=self.table)

    def read_back(self):
        return run(ClickHouseMetricsSink(shared().url, table=self.table).get_metrics(limit=100_000))

    def fault(self, kind):
        if kind == "partial":
            return super().fault(kind)
        return self.between.fails(kind)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (Answer(429, headers={"Retry-After": "7"}), RetryLater(7.0, "http_429")),
        (Answer(502), RetryLater(None, "http_502")),
        (Answer(404, b"default backend - 404"), RetryLater(60.0, "not_clickhouse")),
        (Answer(200, b"\nCode: 241. DB::Exception: Memory limit exceeded"), RetryLater(None, "no_memory")),
        (Answer(500, b"Code: 202. DB::Exception: Too many"), RetryLater(None, "too_many_queries")),
    ],
)
def test_answers_of_what_is_in_between(sink, server, answer, expected):
    between = Between(server)
    with between.server:
        behind = ClickHouseMetricsSink(between.server.url, table=sink.table)
        behind.check()
        between.server.script(answer)
        behind._ready = True
        assert behind.send([record()], deadline()) == expected
        assert behind.send([record()], deadline()) == Delivered()
        behind.close()


def test_an_answer_that_was_lost_costs_nothing_and_adds_nothing(sink, server):
    between = Between(server)
    with between.server:
        behind = ClickHouseMetricsSink(between.server.url, table=sink.table)
        behind.check()

        def take_and_hang_up(request):
            between.hand_over(request)
            return Reset()

        between.server.script(take_and_hang_up)
        rows = [record(number) for number in range(30)]
        assert behind.send(rows, deadline()) == RetryLater(None, "reset")
        assert behind.send(rows, deadline()) == Delivered()
        assert behind.send(rows, deadline()) == Delivered()
        behind.close()
    assert run(sink.get_metrics()) == rows[::-1]
    (parts,) = server.run("SELECT sum(rows) AS n FROM system.parts WHERE active AND table = {t:String}", t=sink.table)
    assert int(parts["n"]) == 30


# ---------------------------------------------------------------------- going away


def test_a_server_that_goes_down_and_comes_back_loses_nothing(own_server):
    sink = ClickHouseMetricsSink(own_server.url)
    rows = [record(number) for number in range(30)]
    assert sink.send(rows[:10], deadline()) == Delivered()
    own_server.stop()
    for _ in range(2):
        assert sink.send(rows[10:20], deadline()) == RetryLater(reason="unreachable")
    with pytest.raises(StoreError, match="check host, port and network"):
        run(sink.get_summary())
    own_server.start()
    assert sink.send(rows[10:20], deadline()) == Delivered()
    assert sink.send(rows[20:], deadline()) == Delivered()
    assert run(sink.get_metrics()) == rows[::-1]
    sink.close()


def test_the_same_records_from_two_at_once_count_once(sink, server):
    other = ClickHouseMetricsSink(server.url, table=sink.table)
    rows, outcomes = [record(number) for number in range(2000)], []
    threads = [
        threading.Thread(target=lambda one=one, given=given: outcomes.append(one.send(given, deadline(60))))
        for one, given in ((sink, rows), (other, rows[::-1]))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(90)
    assert outcomes == [Delivered(), Delivered()]
    assert run(sink.get_summary(None)).count == 2000
    other.close()


WRITER = """
import sys
from tellmeter.pipeline.outcome import Delivered
from tellmeter.sinks.clickhouse import ClickHouseMetricsSink
from tests.unit.sinks.made import deadline, recent
sink = ClickHouseMetricsSink(sys.argv[1], table=sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
for _ in range(10):
    assert sink.send([recent(provider=sys.argv[3]) for _ in range(50)], deadline(60)) == Delivered()
sink.close()
"""


def test_processes_that_start_at_once_make_one_table_and_lose_nothing(sink, server):
    children = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, server.url, sink.table, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **made.PATHS},
        )
        for name in "abc"
    ]
    for child in children:
        child.stdout.readline()
    for child in children:
        child.stdin.write("go\n")
        child.stdin.flush()
    for child in children:
        _, errors = child.communicate(timeout=90)
        assert (child.returncode, errors) == (0, "")
    assert run(sink.get_summary(None)).providers == dict.fromkeys("abc", 500)


def test_the_page_queries_are_the_engines(sink, server):
    """The SQL of docs/clickhouse.md."""
    page = (made.ROOT / "docs" / "clickhouse.md").read_text("utf-8")
    sink.send([record(number, tags={"feature": "chat"}, cost_usd=0.5) for number in range(5)], deadline())
    queries = [block.partition("```")[0] for block in page.split("```sql\n")[1:]]
    asked = [query for query in queries if query.startswith("SELECT")]
    assert len(asked) >= 3
    for query in asked:
        moved = query.replace("llm_metrics", sink.table).replace("now()", f"toDateTime({int(T0) + 60})").strip()
        assert server.run(moved.rstrip(";")), query
