"""The sink's contract, with the id of each record as an attribute; and receivers of OTLP that fail.

What a record is delivered to is memory: a receiver that fails neither holds records up nor loses them.
"""

import os
import signal
import time

import msgspec
import pytest

from tellmeter.collector import MetricsCollector
from tellmeter.registry.registry import MetricsRegistry
from tellmeter.sinks.otel import OTelMetricsSink
from tellmeter.testing import Answer, Dribble, Hang, SinkContract
from tests.support.otlp import Receiver, settled, totals
from tests.unit.sinks.made import python, record

CANARY = "canary-7d1f"


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.4")


@pytest.fixture
def receiver():
    with Receiver() as one:
        yield one


class Identified(OTelMetricsSink):
    """Its series are the single records."""

    def send(self, batch, deadline):
        return super().send([msgspec.structs.replace(one, tags={"id": one.id}) for one in batch], deadline)


class TestContract(SinkContract):
    secrets = (CANARY,)

    @pytest.fixture(autouse=True)
    def backend(self, receiver):
        self.receiver = receiver

    def make_sink(self):
        return Identified("svc", endpoint=self.receiver.url, headers={"x-api-key": CANARY}, tag_names=["id"])

    def read_back(self):
        counted = {
            dict(attributes)["id"]: round(value)
            for (name, attributes), value in settled(self.receiver.points()).items()
            if name == "llm_requests"
        }
        return [one for one, number in counted.items() for _ in range(number)]


def collector_to(receiver, **options):
    sink = OTelMetricsSink(endpoint=receiver.url, **options)
    return MetricsCollector(sinks=[sink], registry=MetricsRegistry())


@pytest.mark.parametrize("answer", [Answer(503, headers={"Retry-After": "1"}), Answer(429), Answer(401), Hang(), None])
def test_an_outage_loses_nothing_and_the_ledger_says_delivered(receiver, answer, caplog):
    caplog.set_level(0)
    collector = collector_to(receiver, headers={"x-api-key": CANARY})
    if answer is None:
        receiver.stop_listening()
    else:
        receiver.default = answer
    for number in range(50):
        collector.record(record(number, input_tokens=1))
    collector.flush_sync()
    (stats,) = collector.stats().sinks.values()
    assert (stats.delivered, stats.waiting, stats.dropped) == (50, 0, {})
    assert collector.stats().counts["otlp_exports"]["failed"]
    receiver.start_listening()
    receiver.default = Answer()
    before = receiver.received
    for number in range(50):
        collector.record(record(number, input_tokens=1))
    assert collector.shutdown_sync().complete
    assert receiver.received > before
    assert totals(receiver)["calls"] == 100
    assert receiver.requests[-1].headers["x-api-key"] == CANARY
    assert CANARY not in caplog.text


@pytest.mark.parametrize("fault", [Hang(), Dribble(bytes_per_second=20, answer=Answer(200, b"\0" * 4000))], ids=str)
def test_a_flush_with_a_deadline_does_not_wait_for_the_receiver(monkeypatch, receiver, fault):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "20")
    receiver.default = fault
    collector = collector_to(receiver)
    collector.record(record())
    collector.flush_sync(0.3)
    receiver.wait_for(1)
    # Measuring goes on, whatever the export does.
    receiver.default = Answer()
    receiver.drop_connections()
    assert collector.shutdown_sync(20).complete
    assert totals(receiver)["calls"] == 1


def test_an_exit_does_not_wait_for_a_receiver_that_hangs(receiver):
    receiver.default = Hang()
    python(
        """
import sys
import tellmeter
tellmeter.configure(sinks=[sys.argv[1]])
with tellmeter.meter_call(provider="openai", model="gpt-4o"):
    pass
""",
        f"otlp://127.0.0.1:{receiver.port}",
        timeout=60,
    )
    assert receiver.received >= 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_exports_its_own_numbers_alone_and_by_itself(receiver):
    done = python(
        """
import os, sys, warnings
import tellmeter
warnings.simplefilter("ignore", DeprecationWarning)
sink = tellmeter.OTelMetricsSink(endpoint=sys.argv[1], export_interval_seconds=0.05)
collector = tellmeter.configure(sinks=[sink])
def call(number):
    for _ in range(number):
        with tellmeter.meter_call(provider="openai", model="gpt-4o"):
            pass
    assert collector.flush_sync().complete
call(100)
child = os.fork()
call(10 if child else 1)
if child:
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
collector.shutdown_sync()
if not child:
    os._exit(0)
""",
        receiver.url,
        timeout=60,
    )
    assert done.stderr == ""
    by_instance = {}
    for point in receiver.points():
        if point.name == "llm_requests":
            by_instance[point.resource["service.instance.id"]] = point.value
    assert sorted(by_instance.values()) == [1, 110]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_forks_while_exports_run_leave_no_child_hanging(receiver):
    receiver.default = Answer(delay=0.01)
    done = python(
        """
import os, sys, warnings
import tellmeter
warnings.simplefilter("ignore", DeprecationWarning)
sink = tellmeter.OTelMetricsSink(endpoint=sys.argv[1], export_interval_seconds=0.001)
collector = tellmeter.configure(sinks=[sink])
def call():
    with tellmeter.meter_call(provider="openai", model="gpt-4o"):
        pass
children = []
for _ in range(10):
    call()
    collector.flush_sync()
    child = os.fork()
    if not child:
        call()
        done = collector.flush_sync().complete
        collector.shutdown_sync()
        os._exit(0 if done else 1)
    children.append(child)
print([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children])
""",
        receiver.url,
        timeout=100,
    )
    assert done.stdout.strip() == str([0] * 10)
    assert totals(receiver)["calls"] == 20


def test_records_measured_before_a_kill_were_exported_by_the_interval(receiver):
    import subprocess
    import sys

    from tests.unit.sinks.made import PATHS

    child = subprocess.Popen(
        [
            sys.executable,
            "-c",
            """
import sys, time
import tellmeter
sink = tellmeter.OTelMetricsSink(endpoint=sys.argv[1], export_interval_seconds=0.05, batch_timeout_seconds=0.01)
tellmeter.configure(sinks=[sink])
for _ in range(7):
    with tellmeter.meter_call(provider="openai", model="gpt-4o"):
        pass
time.sleep(100)
""",
            receiver.url,
        ],
        env={**os.environ, **PATHS},
    )
    try:
        deadline = time.monotonic() + 60
        while totals(receiver)["calls"] < 7 and time.monotonic() < deadline:
            receiver.wait_for(receiver.received + 1, 60)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait(30)
    assert totals(receiver)["calls"] == 7
