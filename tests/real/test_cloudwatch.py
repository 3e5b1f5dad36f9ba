"""What moto's server gets of the sinks, read back with boto3; and what happens when CloudWatch fails."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import json
import math
import time
from collections import Counter
from operator import attrgetter

import msgspec
import pytest

from tellmeter import MetricsCollector
from tellmeter.cleaning import MAX_INT
from tellmeter.pipeline.outcome import Delivered, Partial
from tellmeter.registry.registry import MetricsRegistry
from tellmeter.sinks.cloudwatch import CloudWatchMetricsSink, EMFMetricsSink
from tellmeter.sinks.cloudwatch import metrics as kinds
from tellmeter.testing import Answer, Dribble, FaultServer, Hang, Reset, SinkContract
from tests.support import cloudwatch
from tests.support.cloudwatch import SECRET, Statistics, Watched, client, emf_faults, sent, session
from tests.support.varied import varied
from tests.unit.sinks.cloudwatch.test_encoder import expected
from tests.unit.sinks.made import deadline, recent


@pytest.fixture
def moto():
    server = cloudwatch.shared()
    server.reset()
    return server


def this_hour(records, seconds):
    """The records within the last hour, over so many seconds from a whole minute on."""
    start = time.time() // 60 * 60 - 3000
    step = seconds / len(records)
    return [msgspec.structs.replace(one, timestamp=start + index * step) for index, one in enumerate(records)]


def all_sent(sink, records, **lane):
    """The account of a collector that brought them all."""
    collector = MetricsCollector(registry=MetricsRegistry())
    collector.add_sink(sink, **{"max_queue": 20_000, **lane})
    for one in records:
        collector.record(one)
    assert collector.flush_sync(timeout=100).complete
    collector.shutdown_sync()
    stats = collector.stats()
    assert stats.balanced
    (ledger,) = stats.sinks.values()
    return ledger


@pytest.mark.heavy
def test_ten_thousand_varied_records_are_there_to_the_last_count(moto):
    records = this_hour(varied(10_000), 120)
    watched, space = Watched(), cloudwatch.namespace()
    sets = [["provider"]]
    sink = CloudWatchMetricsSink(space, session=watched.session, endpoint_url=moto.url, dimensions=sets)
    assert all_sent(sink, records, spool=None).delivered == 10_000
    # What was sent is exactly what the records come to, and no request broke a limit (Watched would have raised).
    wanted = expected(records, sets)
    assert sent(watched.requests) == wanted
    # And what is there is what was sent. moto adds up all series that have a query's dimensions and more.
    names = sorted(
        {series for series, _ in wanted if len(series[1]) > 1 or "Provider" in dict(series[1]) or not series[1]}
    )
    minutes = sorted({minute for _, minute in wanted})
    found = cloudwatch.statistics_of(moto, space, names, minutes[0], minutes[-1] + 60)
    by_name = {}
    for (series, minute), statistics in wanted.items():
        by_name.setdefault((series[0], minute), []).append((set(series[1]), statistics))
    for (name, dimensions), minute in ((series, minute) for series in names for minute in minutes):
        total = Statistics()
        for has, one in by_name.get((name, minute), ()):
            if has >= set(dimensions):
                total.count += one.count
                total.sum += one.sum
                total.minimum, total.maximum = min(total.minimum, one.minimum), max(total.maximum, one.maximum)
        there = found.pop(((name, dimensions), minute), None)
        if not total.count:
            assert there is None
            continue
        count, added, least, most = there
        assert (count, least, most) == (total.count, total.minimum, total.maximum)
        assert math.isclose(added, float(total.sum), rel_tol=1e-9)
    assert not found


@pytest.mark.heavy
def test_each_series_alone_and_the_totals(moto):
    records = this_hour(varied(200), 120)
    sink = CloudWatchMetricsSink(session=session(), endpoint_url=moto.url, batch_size=100)
    assert all_sent(sink, records).delivered == 200
    wanted = Counter()
    for (series, _), statistics in expected(records).items():
        wanted[series] += statistics.sum
    some = [series for series in wanted if series[1]]  # moto adds all of a name up for a query without dimensions
    found = cloudwatch.sums_of(moto, "LLM/Metrics", some)
    for series in some:
        assert math.isclose(found[series], float(wanted[series]), rel_tol=1e-9), series
    for name in ("Requests", "TokenUsage", "Errors"):
        assert cloudwatch.series_in(moto, "LLM/Metrics", name) == sorted(one for one in wanted if one[0] == name)
    assert cloudwatch.totals(moto) == {
        "calls": 200,
        "tokens": pytest.approx(sum(one.total_tokens for one in records)),
        "dollars": pytest.approx(sum(one.cost_usd or 0 for one in records)),
        "errors": sum(one.failed for one in records),
    }


def test_numbers_at_the_edge_of_what_is_held(moto):
    space, watched = cloudwatch.namespace(), Watched()
    sink = CloudWatchMetricsSink(space, session=watched.session, endpoint_url=moto.url, dimensions=[["model"]])
    edges = [0.0, 5e-324, 2.0**-360, 1e15, 2.0**360, 1e308]
    batch = [recent(latency_ms=one, input_tokens=MAX_INT, cost_usd=0.0) for one in edges]
    assert sink.send(batch, deadline()) == Delivered()
    (latency,) = [one for one in watched.requests[0]["MetricData"] if one["MetricName"] == "RequestLatency"]
    assert dict(zip(latency["Values"], latency["Counts"], strict=True)) == {
        0.0: 2.0,
        2.0**-360: 1.0,
        1e15: 1.0,
        2.0**360: 2.0,
    }
    (tokens,) = [one for one in watched.requests[0]["MetricData"] if one["MetricName"] == "InputTokens"]
    assert (tokens["Values"], tokens["Counts"]) == ([2.0**63], [6.0])
    sink.close()


def test_old_records_of_a_spool_are_refused_and_counted(moto):
    rows = [recent(), recent(timestamp=time.time() - 15 * 86_400), recent(timestamp=time.time() + 3 * 3600)]
    sink = CloudWatchMetricsSink(cloudwatch.namespace(), session=session(), endpoint_url=moto.url)
    ledger = all_sent(sink, rows)
    assert (ledger.delivered, ledger.dropped) == (1, {"too_old": 1, "in_future": 1})


# ---------------------------------------------------------------------- when it fails


class Proxy:
    """Before moto: hands on what comes, or fails."""

    def __init__(self, moto):
        self._port = moto.port
        self.server = FaultServer(self.hand_on)

    def hand_on(self, request):
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        headers = {name: value for name, value in request.headers.items() if name not in ("host", "content-length")}
        connection.request(request.method, request.path, request.body, headers)
        answer = connection.getresponse()
        body = answer.read()
        headers = {name: value for name, value in answer.getheaders() if name.lower() == "content-type"}
        connection.close()
        return Answer(answer.status, body, headers)

    def hand_on_ten(self, request):
        return Answer(413) if request.content.count(b"MetricName") > 10 else self.hand_on(request)

    @contextlib.contextmanager
    def fails(self, kind):
        if kind == "down":
            self.server.stop_listening()
            yield
            self.server.start_listening()
            return
        self.server.default = {
            "error": Answer(503),
            "reset": Reset(),
            "hang": Hang(),
            "dribble": Dribble(1.0),
            "retry_after": Answer(503, headers={"Retry-After": "120"}),
            "too_large": self.hand_on_ten,
            "reject": refusal("InvalidParameterValueException", 400),
            "unauthorized": refusal("UnrecognizedClientException", 403),
        }[kind]
        yield 120
        self.server.default = self.hand_on


def refusal(code, status):
    body = json.dumps({"__type": code, "message": "no"}).encode()
    return Answer(status, body, {"Content-Type": "application/x-amz-json-1.0"})


class TestContract(SinkContract):
    """By a dimension for each record's id, which no user can have, so that moto knows who arrived, and how often."""

    secrets = (SECRET,)

    @pytest.fixture(autouse=True)
    def backend(self, moto, monkeypatch):
        monkeypatch.setitem(kinds.FIELDS, "id", "Id")
        monkeypatch.setattr(kinds, "attrgetter", attrgetter)
        self.moto, self.space = moto, cloudwatch.namespace()
        self.proxy = Proxy(moto)
        with self.proxy.server:
            yield

    def make_sink(self):
        return CloudWatchMetricsSink(
            self.space,
            session=session(),
            endpoint_url=self.proxy.server.url,
            dimensions=[["id"]],
            metrics=["Requests"],
        )

    def read_back(self):
        series = cloudwatch.series_in(self.moto, self.space, "Requests")
        counts = cloudwatch.sums_of(self.moto, self.space, series)
        return [dict(one[1])["Id"] for one, count in counts.items() for _ in range(int(count))]

    def fault(self, kind):
        return super().fault(kind) if kind == "partial" else self.proxy.fails(kind)


@pytest.mark.heavy
def test_what_some_requests_of_a_batch_brought_is_not_sent_again(moto):
    """Of 400 records in several requests, the second fails: what the first brought arrives once."""
    proxy, space = Proxy(moto), cloudwatch.namespace()
    sets = [["provider", "model", "feature"], ["provider"]]
    sink = CloudWatchMetricsSink(space, session=session(), endpoint_url=proxy.server.url, dimensions=sets)
    rows = this_hour(
        [recent(provider=f"p{n % 200}", tags={"feature": "f"}, latency_ms=float(n), cost_usd=0.5) for n in range(400)],
        60,
    )
    with proxy.server:
        proxy.server.script(proxy.hand_on, Answer(503))
        outcome = sink.send(rows, deadline())
        assert isinstance(outcome, Partial)
        assert 0 < len(outcome.retry) < 400
        assert outcome == Partial(retry=tuple(range(400 - len(outcome.retry), 400)), reason="server_error")
        assert sink.send([rows[index] for index in outcome.retry], deadline()) == Delivered()
    wanted = expected(rows, sets)
    series = sorted({one for one, _ in wanted if one[0] in ("Requests", "RequestLatency")})
    found = cloudwatch.sums_of(moto, space, series)
    for one in series:
        total = sum(statistics.sum for (other, _), statistics in wanted.items() if other == one)
        assert math.isclose(found[one], float(total), rel_tol=1e-9)
    sink.close()


def test_a_lost_answer_counts_twice(moto):
    """CloudWatch knows no ids: what docs/cloudwatch.md says of it is so."""
    proxy, space = Proxy(moto), cloudwatch.namespace()
    sink = CloudWatchMetricsSink(
        space, session=session(), endpoint_url=proxy.server.url, dimensions=[["model"]], metrics=["Requests"]
    )

    def lost(request):
        proxy.hand_on(request)
        return Reset()

    with proxy.server:
        proxy.server.script(lost)
        rows = [recent()]
        sink.send(rows, deadline())
        assert sink.send(rows, deadline()) == Delivered()
    (series,) = cloudwatch.series_in(moto, space, "Requests")
    assert cloudwatch.sums_of(moto, space, [series]) == {series: 2.0}
    sink.close()


def test_large_requests_are_packed(moto):
    proxy = Proxy(moto)
    sink = CloudWatchMetricsSink(cloudwatch.namespace(), session=session(), endpoint_url=proxy.server.url)
    with proxy.server:
        assert sink.send(this_hour(varied(300), 60), deadline(60)) == Delivered()
        request = max(proxy.server.requests, key=lambda one: len(one.content))
    assert request.headers["content-encoding"] == "gzip"
    assert len(request.body) < len(gzip.decompress(request.body)) / 5
    sink.close()


# ---------------------------------------------------------------------- the Embedded Metric Format


def test_lines_go_through_cloudwatch_logs_as_they_are(moto, tmp_path):
    records = this_hour(varied(1000), 300)
    sink = EMFMetricsSink(tmp_path / "emf.log", namespace="App", dimensions=[["provider", "model"], ["feature"], []])
    assert all_sent(sink, records).delivered == 1000
    lines = (tmp_path / "emf.log").read_text("utf-8").split("\n")[:-1]
    logs = client(moto, "logs")
    logs.create_log_group(logGroupName="group")
    logs.create_log_stream(logGroupName="group", logStreamName="stream")
    for at in range(0, 1000, 250):
        events = [
            {"timestamp": json.loads(line)["_aws"]["Timestamp"], "message": line} for line in lines[at : at + 250]
        ]
        logs.put_log_events(logGroupName="group", logStreamName="stream", logEvents=events)
    back, token = [], {}
    while True:
        page = logs.get_log_events(logGroupName="group", logStreamName="stream", startFromHead=True, **token)
        if not page["events"]:
            break
        back += [event["message"] for event in page["events"]]
        token = {"nextToken": page["nextForwardToken"]}
    assert back == lines
    assert not [fault for line in back for fault in emf_faults(line)]
    assert cloudwatch.metrics_in(back) == expected(records, [["provider", "model"], ["feature"], []])
