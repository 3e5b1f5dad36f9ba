"""Calls in a real InfluxDB 1, and in VictoriaMetrics, which takes the API of InfluxDB 2."""

from __future__ import annotations

import contextlib
import logging
import math
import time
import urllib.request
import uuid

import msgspec
import pytest
from influxdb_client import InfluxDBClient, Point
from influxdb_client.client.write_api import SYNCHRONOUS

from tellmeter import InfluxDBMetricsSink, MetricsCollector, MetricsConfig
from tellmeter.pipeline.outcome import Delivered, Partial, Rejected, RetryLater, TooLarge
from tellmeter.registry.registry import MetricsRegistry
from tellmeter.sinks.influxdb.lines import Lines
from tellmeter.sinks.query import summarise
from tellmeter.testing import SinkContract
from tests.support.influxdb import PASSWORD, InfluxDB, VictoriaMetrics, totals
from tests.support.line_protocol import points
from tests.support.varied import varied
from tests.unit.sinks.influxdb.test_lines import as_kept
from tests.unit.sinks.made import T0, deadline, record


@pytest.fixture(scope="module")
def server():
    one = InfluxDB()
    one.start()
    yield one
    one.close()


@pytest.fixture
def database(server):
    name = f"calls-{uuid.uuid4().hex[:8]}"
    server.query(f'CREATE DATABASE "{name}"')
    return name


@pytest.fixture
def sink(server, database):
    one = InfluxDBMetricsSink(server.url, database=database)
    yield one
    one.close()


def collect(records, sink, **settings):
    """Through a collector, all delivered."""
    config = MetricsConfig(max_queue=len(records), flush_timeout_seconds=60.0)
    collector = MetricsCollector(config, registry=MetricsRegistry())
    collector.add_sink(sink, **settings)
    for one in records:
        collector.record(one)
    assert collector.shutdown_sync().complete
    stats = collector.stats()
    assert stats.balanced
    return next(iter(stats.sinks.values()))


class TestContract(SinkContract):
    idempotent = True

    @pytest.fixture(autouse=True)
    def backend(self, server, database):
        self.server, self.database = server, database

    def make_sink(self):
        return InfluxDBMetricsSink(self.server.url, database=self.database)

    def read_back(self):
        return [row["id"] for row in self.server.query('SELECT "id" FROM "llm_request"', self.database)]

    @contextlib.contextmanager
    def fault(self, kind):
        if kind != "down":
            pytest.skip("tests/unit/sinks/influxdb/test_sink.py has it")
        self.server.stop()
        yield
        self.server.start()


def by_id(records):
    return sorted(records, key=lambda one: one.id)


@pytest.mark.heavy
def test_ten_thousand_varied_calls_come_back_and_come_twice(server, database):
    records = varied(10_000)
    for _ in range(2):
        ledger = collect(records, InfluxDBMetricsSink(server.url, database=database), batch_size=1000)
        assert (ledger.delivered, ledger.dropped) == (10_000, {})
        found = by_id(server.records(database))
        assert len(found) == 10_000
        for ours, theirs in zip(by_id(map(as_kept, records)), found, strict=True):
            assert ours == theirs


def test_totals_are_those_of_the_records(server, database):
    records = [record(number, input_tokens=number, cost_usd=number / 7) for number in range(500)]
    records += [record(status=status, cost_usd=None) for status in ("error", "timeout", "rejected", "cancelled")]
    assert totals(server, database)["calls"] == 0
    collect(records, InfluxDBMetricsSink(server.url, database=database))
    expected, found = summarise(records), totals(server, database)
    assert (found["calls"], found["tokens"], found["errors"]) == (504, expected.total_tokens, 3)
    assert math.isclose(found["dollars"], expected.total_cost)


def test_ten_thousand_calls_of_one_moment_are_all_there(server, database, sink):
    records = [record(id=f"call-{number}") for number in range(10_000)]
    for _ in range(2):
        assert sink.send(records, deadline(60)) == Delivered()
    assert len(server.records(database)) == 10_000


def test_the_queries_of_older_dashboards_run(server, database, sink):
    sink.send(
        [record(input_tokens=3, output_tokens=4, latency_ms=10.0), record(1, error_class="E", retries=2)], deadline()
    )
    text = 'SELECT sum("prompt_tokens"), mean("latency_ms") FROM "llm_request" WHERE "status" = \'success\''
    (row,) = server.query(text, database)
    assert (row["sum"], row["mean"]) == (3, 10)
    rows = server.query('SELECT sum("retries") FROM "llm_request" GROUP BY "error"', database)
    assert {row["error"]: row["sum"] for row in rows} == {"": 0, "E": 2}


def test_the_largest_texts_fit(server, database, sink):
    big = record(
        model="😀" * 2048,
        tools_used=['"' * 256] * 64,
        tags={f"{number:02}" + "😀" * 62: '"' * 256 for number in range(32)},
        latency_ms=1e308,
        input_tokens=2**63 - 1,
        output_tokens=2**63 - 1,
        timestamp=1e15,
    )
    chosen = InfluxDBMetricsSink(server.url, database=database, tags=list(big.tags))
    assert sink.send([big], deadline()) == Delivered()
    assert server.records(database) == [big]
    assert chosen.send([big], deadline()) == Delivered()
    chosen.close()


def test_a_type_that_somebody_else_wrote_costs_only_the_records_that_have_it(server, database, sink):
    # A type is that of a shard, which holds a week.
    write(server, database, f"llm_request status_code=1.5 {int(T0) * 10**9}")
    records = [
        record(number, **({"status": "error", "status_code": 429} if number in (2, 5) else {})) for number in range(8)
    ]
    assert sink.send(records, deadline()) == Partial((), (2, 5), "type_conflict")
    expected = {one.id for number, one in enumerate(records) if number not in (2, 5)}
    found = server.query('SELECT "id", "retries" FROM llm_request WHERE "retries" >= 0', database)
    assert {row["id"] for row in found} == expected


def test_what_is_older_than_the_retention_policy_is_refused(server, database):
    server.query(f'CREATE RETENTION POLICY "short" ON "{database}" DURATION 1h REPLICATION 1')
    sink = InfluxDBMetricsSink(server.url, database=database, retention_policy="short")
    assert sink.send([record(), record()], deadline()) == Rejected("beyond_retention")
    now = record(timestamp=time.time())
    assert sink.send([record(), now], deadline()) == Partial((), (0,), "beyond_retention")
    rows = server.query('SELECT "id" FROM "short"."llm_request"', database)
    assert [row["id"] for row in rows] == [now.id]
    sink.close()


def test_a_missing_database_or_policy_is_waited_for(server, caplog):
    name = f"calls-{uuid.uuid4().hex[:8]}"
    sink = InfluxDBMetricsSink(server.url, database=name, retention_policy="week")
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert sink.send([record()], deadline()) == RetryLater(60.0, "not_found")
        server.query(f'CREATE DATABASE "{name}"')
        assert sink.send([record()], deadline()) == RetryLater(60.0, "not_found")
    assert len(caplog.records) == 1
    server.query(f'CREATE RETENTION POLICY "week" ON "{name}" DURATION 0s REPLICATION 1')
    assert sink.send([record()], deadline()) == Delivered()
    sink.close()


def test_a_missing_database_is_made_when_asked(server):
    name = f'my "calls" {uuid.uuid4().hex[:8]}'
    sink = InfluxDBMetricsSink(server.url, database=name, create_database=True)
    assert sink.send([record()], deadline()) == Delivered()
    assert len(server.records(name)) == 1
    sink.close()


def test_users_and_passwords():
    server = InfluxDB(auth=True, max_body_bytes=2000)
    server.start()
    try:
        server.make_users()
        server.query("CREATE DATABASE calls")
        for user, password, outcome in [
            (None, None, RetryLater(60.0, "unauthorized")),
            ("admin", "wrong", RetryLater(60.0, "unauthorized")),
            ("guest", PASSWORD, RetryLater(60.0, "forbidden")),
            ("admin", PASSWORD, Delivered()),
        ]:
            sink = InfluxDBMetricsSink(server.url, database="calls", username=user, password=password, compress=None)
            assert sink.send([record()], deadline()) == outcome
            assert PASSWORD not in repr(outcome) + repr(vars(sink))
            if user == "admin" and password == PASSWORD:
                assert sink.send([record(number) for number in range(50)], deadline()) == TooLarge()
                ledger = collect([record(number) for number in range(50)], sink, batch_size=50)
                assert ledger.delivered == 50
            sink.close()
        assert totals(server)["calls"] == 51
    finally:
        server.close()


def write(server, database, line):
    """As somebody else writes to InfluxDB."""
    with urllib.request.urlopen(f"{server.url}/write?db={database}", line.encode(), timeout=30):
        pass


@pytest.fixture(scope="module")
def victoria():
    one = VictoriaMetrics()
    one.start()
    yield one
    one.close()


@pytest.mark.heavy
def test_version_2_writes_what_the_vendors_client_writes(victoria):
    """Every number of many calls, once by us and once by influxdb-client from the same points.

    VictoriaMetrics keeps about 15 digits of the numbers of a series together, so the extremes are left out.
    """
    records = [one for one in varied(3000) if is_ordinary(one)]
    assert len(records) > 2000
    ours = InfluxDBMetricsSink(victoria.url, "token", "org", "bucket", measurement="ours")
    ledger = collect(records, ours, batch_size=1000)
    assert (ledger.delivered, ledger.dropped) == (len(records), {})
    lines = Lines("theirs", ()).encode(records)
    with InfluxDBClient(victoria.url, "token", org="org") as client:
        writing = client.write_api(write_options=SYNCHRONOUS)
        for start in range(0, len(lines), 1000):
            writing.write("bucket", "org", [point_of(line) for line in lines[start : start + 1000]])

    def found(name):
        series = victoria.samples(f'{{__name__=~"{name}_.*"}}')
        return {
            (
                dict(labels)["__name__"].removeprefix(f"{name}_"),
                *[pair for pair in labels if pair[0] != "__name__"],
            ): values
            for labels, values in series.items()
        }

    mine, others = found("ours"), found("theirs")
    assert mine.keys() == others.keys()
    for key, samples in mine.items():
        assert [time for time, _ in samples] == [time for time, _ in others[key]]
        assert [value for _, value in samples] == pytest.approx([value for _, value in others[key]], rel=1e-12)
    latencies = [value for key, samples in mine.items() if key[0] == "latency_ms" for _, value in samples]
    assert len(latencies) == len(records)


def is_ordinary(one):
    def numbers(facts):
        return [value for value in msgspec.structs.asdict(facts).values() if isinstance(value, (int, float))]

    found = [*numbers(one), *(numbers(one.stream) if one.stream is not None else ())]
    return all(number == 0 or 1e-9 < number < 1e16 for number in found)


def point_of(line):
    """A line as a Point of influxdb-client, from what a parser of ours finds in it."""
    (found,) = points(line)
    point = Point(found.measurement).time(found.time)
    for name, value in found.tags.items():
        point.tag(name, value)
    for name, value in found.fields.items():
        point.field(name, value)
    return point
