"""Totals in the end, through collectors: Datadog's API as it is documented, an Agent, and a real VictoriaMetrics."""

from __future__ import annotations

import contextlib
import math
import subprocess
import sys
import threading

import pytest

from tellmeter import DatadogMetricsSink, DogStatsDMetricsSink, MetricsCollector, MetricsConfig
from tellmeter.registry.registry import MetricsRegistry
from tellmeter.testing import Answer, Dribble, Hang, Reset, SinkContract
from tests.support.datadog import KEY, Agent, Intake, VictoriaMetrics, totals
from tests.support.datadog_records import MEASURES, expected, varied
from tests.unit.sinks.made import PATHS, ROOT

NAMES, CONSTANT = ["feature"], ["team:search"]


@pytest.fixture
def intake():
    with Intake() as one:
        yield one


@pytest.fixture(scope="module")
def victoria():
    with VictoriaMetrics() as one:
        yield one


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "dsd.socket")


def api(url, **options):
    return DatadogMetricsSink(KEY, url=url, hostname="host-1", tags=CONSTANT, tag_names=NAMES, **options)


def deliver(sink, records, **settings):
    """Through a collector, to the last record."""
    collector = MetricsCollector(
        MetricsConfig(flush_timeout_seconds=60.0, max_queue=20_000, **settings),
        sinks=[sink],
        registry=MetricsRegistry(),
    )
    for record in records:
        collector.record(record)
    report = collector.shutdown_sync()
    (account,) = collector.stats().sinks.values()
    assert report.complete and account.delivered == len(records), account


def assert_all_there(kept, records, *, constant=CONSTANT):
    """Every metric with every set of tags, every sum, and of what is measured every value."""
    assert not kept.unclean and not kept.late
    found, wanted = kept.values(), expected(records, NAMES, constant)
    assert found.keys() == wanted.keys()
    for key, values in wanted.items():
        if key[0].removeprefix("llm.") in MEASURES:
            assert sorted(found[key]) == sorted(values)
        else:
            assert math.isclose(math.fsum(found[key]), math.fsum(values), rel_tol=1e-12), key


@pytest.mark.heavy
@pytest.mark.parametrize("counts", ["distributions", "series"])
def test_ten_thousand_records_are_there_in_full(intake, counts):
    records = varied(10_000)
    deliver(api(intake.url, counts=counts), records, batch_size=500)
    assert_all_there(intake, records)
    assert totals(intake)["calls"] == 10_000


@pytest.mark.heavy
def test_ten_thousand_records_over_a_unix_socket_are_there_in_full(path):
    records = varied(10_000)
    with Agent(path) as agent:
        sink = DogStatsDMetricsSink(socket_path=path, tags=CONSTANT, tag_names=NAMES)
        deliver(sink, records, batch_size=500)
        agent.wait(lambda: totals(agent)["calls"] == 10_000, 60.0)
        assert_all_there(agent, records)
        assert max(map(len, agent.datagrams)) <= 8192


@pytest.mark.heavy
def test_ten_thousand_records_in_victoria_metrics_add_up(victoria):
    """It keeps numbers in decimal, to about 15 digits: extremes are compared above."""
    records = varied(10_000, extremes=False)
    deliver(api(f"{victoria.url}", counts="series-v1", namespace="vm.llm"), records, batch_size=500)
    victoria.wait_for("vm.llm.requests", 10_000)
    wanted: dict = {}
    for (name, tags), values in expected(records, NAMES, CONSTANT).items():
        parts = {".sum": math.fsum(values), ".count": len(values)}
        if name.removeprefix("llm.") not in MEASURES:
            parts = {"": math.fsum(values)}
        for ending, value in parts.items():
            wanted.setdefault(f"vm.{name}{ending}", {})[tags] = value
    for name, by_tags in wanted.items():
        found = victoria.by_tags(name)
        assert found.keys() == by_tags.keys(), name
        for tags, value in by_tags.items():
            assert math.isclose(found[tags], value, rel_tol=1e-9), (name, tags)
    assert totals(victoria, "vm.llm") == {
        "calls": 10_000,
        "tokens": sum(record.total_tokens for record in records),
        "dollars": pytest.approx(sum(record.cost_usd or 0.0 for record in records)),
        "errors": sum(record.failed for record in records),
    }


def test_many_batches_a_second_in_victoria_metrics_add_up(victoria):
    records = varied(300, extremes=False)
    deliver(api(victoria.url, counts="series-v1", namespace="quick.llm"), records, batch_size=7)
    victoria.wait_for("quick.llm.requests", 300)
    assert totals(victoria, "quick.llm")["tokens"] == sum(record.total_tokens for record in records)


_PROCESS = """
import sys
from tests.real.test_datadog import api, deliver, DogStatsDMetricsSink
from tests.support.datadog_records import varied
kind, place = sys.argv[1:]
sink = api(place) if kind == "api" else DogStatsDMetricsSink(socket_path=place)
deliver(sink, varied(200, extremes=False), batch_size=10)
"""


@pytest.mark.heavy
@pytest.mark.parametrize("kind", ["api", "agent"])
def test_several_processes_of_one_host_at_once_add_up(kind, path):
    """With the same host, tags and seconds: of counts sent to the API all but one process's would be lost."""
    with Intake() if kind == "api" else Agent(path) as kept:
        place = kept.url if kind == "api" else path
        children = [
            subprocess.Popen(
                [sys.executable, "-c", _PROCESS, kind, place],
                env={**PATHS, "PATH": ""},
                cwd=ROOT,
            )
            for _ in range(3)
        ]
        assert [child.wait(100) for child in children] == [0, 0, 0]
        records = varied(200, extremes=False) * 3
        if kind == "agent":
            kept.wait(lambda: totals(kept)["calls"] == 600)
        assert totals(kept)["calls"] == 600
        found = kept.total("llm.request.latency")
        assert math.isclose(found, math.fsum(record.latency_ms for record in records), rel_tol=1e-9)
        assert kept.total("llm.retries") == sum(record.retries for record in records)


def test_two_threads_of_sinks_for_one_account_add_up(intake):
    records = varied(400)
    threads = [
        threading.Thread(target=deliver, args=(api(intake.url), records[start::2]), kwargs={"batch_size": 10})
        for start in (0, 1)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert_all_there(intake, records)


_WEATHER = {
    "error": Answer(503),
    "reset": Reset(),
    "hang": Hang(),
    "dribble": Dribble(2),
    "reject": Answer(400),
    "unauthorized": Answer(403),
}


class _Contract(SinkContract):
    """Metrics have no ids: what arrived is compared as the values of every metric with its tags."""

    secrets = (KEY,)

    @pytest.fixture(autouse=True)
    def backend(self, intake):
        self.intake = intake

    def read_back(self):
        raise AssertionError("metrics have no ids")

    def assert_arrived(self, records, *, more_often=False):
        assert not more_often or self.intake.total("llm.requests") >= len(records)
        if not more_often:
            assert_all_there(self.intake, records, constant=())

    @contextlib.contextmanager
    def fault(self, kind):
        server = self.intake.server
        if kind == "down":
            server.stop_listening()
        elif kind == "retry_after":
            server.default = Answer(429, headers={"Retry-After": "40"})
        elif kind == "too_large":
            server.default = lambda request: Answer(413) if len(request.body) > 1000 else self.intake.take(request)
        elif kind == "partial":
            pytest.skip("which of the records were refused, Datadog does not say")
        else:
            server.default = _WEATHER[kind]
        try:
            yield 40
        finally:
            server.default = self.intake.take
            server.start_listening()


class TestDistributions(_Contract):
    def make_sink(self):
        return DatadogMetricsSink(KEY, url=self.intake.url, tag_names=NAMES)


class TestSeries(_Contract):
    """One process for one host: a forked child's counts would overwrite its parent's."""

    across_processes = False

    def make_sink(self):
        return DatadogMetricsSink(KEY, url=self.intake.url, tag_names=NAMES, counts="series", interval_seconds=1)


class TestDogStatsD(SinkContract):
    @pytest.fixture(autouse=True)
    def backend(self, path):
        self.path = path
        self.agent = Agent(path)
        yield
        self.agent.close()

    def make_sink(self):
        return DogStatsDMetricsSink(socket_path=self.path, tag_names=NAMES)

    def assert_arrived(self, records, *, more_often=False):
        self.agent.wait(lambda: self.agent.total("llm.requests") >= len(records))
        assert_all_there(self.agent, records, constant=())
