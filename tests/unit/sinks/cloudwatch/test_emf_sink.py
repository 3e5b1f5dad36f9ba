import io
import json
import os
import socket
import subprocess
import sys
import time

import pytest

from tellmeter import MetricsCollector
from tellmeter.errors import ConfigError
from tellmeter.pipeline.outcome import Delivered, Partial, Rejected, RetryLater
from tellmeter.registry.registry import MetricsRegistry
from tellmeter.sinks.cloudwatch import EMFMetricsSink
from tellmeter.sinks.urls import sink_from_url
from tellmeter.testing import SinkContract
from tests.support.cloudwatch import emf_faults
from tests.unit.sinks import made
from tests.unit.sinks.made import deadline, python, recent


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in ("NAMESPACE", "LOG_GROUP_NAME", "LOG_STREAM_NAME", "AGENT_ENDPOINT"):
        monkeypatch.delenv(f"AWS_EMF_{name}", raising=False)
    monkeypatch.delenv("AWS_LAMBDA_FUNCTION_NAME", raising=False)


class TestContract(SinkContract):
    """To a file, which another process may write to as well."""

    @pytest.fixture(autouse=True)
    def backend(self, tmp_path):
        self.path = tmp_path / "emf.log"

    def make_sink(self):
        return EMFMetricsSink(self.path)

    def read_back(self):
        lines = self.path.read_bytes().splitlines() if self.path.exists() else []
        assert not [fault for line in lines for fault in emf_faults(line)]
        return [json.loads(line)["id"] for line in lines]

    def fault(self, kind):
        import contextlib

        if kind != "down":
            return super().fault(kind)

        @contextlib.contextmanager
        def full():
            kept = self.path.read_bytes() if self.path.exists() else None
            self.path.unlink(missing_ok=True)
            self.path.symlink_to("/dev/full")
            yield
            self.path.unlink()
            if kept is not None:
                self.path.write_bytes(kept)

        return full()


def test_lines_go_to_standard_output():
    code = """
import tellmeter
collector = tellmeter.MetricsCollector(sinks=["emf:?namespace=App"])
collector.record(tellmeter.AgentMetrics(model="m"))
collector.shutdown_sync()
"""
    (line,) = python(code).stdout.splitlines()
    assert not emf_faults(line)
    assert json.loads(line)["_aws"]["CloudWatchMetrics"][0]["Namespace"] == "App"


def test_it_needs_no_package():
    code = """
import sys
sys.modules["boto3"] = sys.modules["botocore"] = None
import tellmeter
tellmeter.EMFMetricsSink().send([tellmeter.AgentMetrics(model="m")], 1e9)
print("boto3 is not loaded")
"""
    assert python(code).stdout.count("\n") == 2


@pytest.mark.parametrize(
    ("url", "destination"),
    [
        ("emf:", "emf:stdout"),
        ("emf://", "emf:stdout"),
        ("emf:////var/log/emf.log", "emf:/var/log/emf.log"),
        ("emf:///emf.log", f"emf:{os.getcwd()}/emf.log"),
        ("emf+tcp://127.0.0.1", "emf:tcp://127.0.0.1:25888"),
        ("emf+udp://agent:1234", "emf:udp://agent:1234"),
    ],
)
def test_urls(url, destination):
    sink = sink_from_url(url)
    assert type(sink) is EMFMetricsSink
    assert sink.destination == destination


def test_a_url_has_options():
    sink = sink_from_url(
        "emf:////x?namespace=A&dimensions=feature;&metrics=Cost&high_resolution=1&properties=no&log_group=g&log_stream=s"
        "&batch_size=7"
    )
    one = recent(cost_usd=1.0, tags={"feature": "f"})
    root = json.loads(sink._encoder.line(one))
    metrics = [{"Name": "Cost", "Unit": "None", "StorageResolution": 1}]
    about = [{"Namespace": "A", "Dimensions": [["feature"], []], "Metrics": metrics}]
    assert root.pop("_aws")["CloudWatchMetrics"] == about
    assert root == {"feature": "f", "Cost": 1.0, "id": one.id, "log_group_name": "g", "log_stream_name": "s"}
    assert sink.lane_options == {"batch_size": 7}


def test_the_environment_says_what_was_not_said(monkeypatch):
    monkeypatch.setenv("AWS_EMF_NAMESPACE", "App")
    monkeypatch.setenv("AWS_EMF_LOG_GROUP_NAME", "group")
    monkeypatch.setenv("AWS_EMF_LOG_STREAM_NAME", "stream")
    monkeypatch.setenv("AWS_EMF_AGENT_ENDPOINT", "tcp://agent:1234")
    sink = EMFMetricsSink()
    assert (sink.namespace, sink.destination) == ("App", "emf:tcp://agent:1234")
    root = json.loads(sink._encoder.line(recent()))
    assert (root["log_group_name"], root["log_stream_name"]) == ("group", "stream")
    other = EMFMetricsSink("udp://h:1", namespace="Mine", log_group="g")
    assert (other.namespace, other.destination) == ("Mine", "emf:udp://h:1")
    assert json.loads(other._encoder.line(recent()))["log_group_name"] == "g"
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "f")
    assert EMFMetricsSink().destination == "emf:stdout"


@pytest.mark.parametrize(
    ("argument", "options", "told"),
    [
        ("http://h:1", {}, "target"),
        ("tcp://h:99999", {}, "target"),
        ("tcp://:5", {}, "target"),
        ("tcp://me:canary@h:1", {}, "target"),
        ("tcp://h:1/path", {}, "target"),
        (5, {}, "target"),
        ("", {}, "path"),
        (None, {"namespace": "AWS/x"}, "namespace"),
        (None, {"dimensions": [["id"]]}, "dimensions"),
        (None, {"metrics": "Cost"}, "metrics"),
        (None, {"batchsize": 5}, "batchsize"),
    ],
)
def test_arguments_that_cannot_work(argument, options, told):
    with pytest.raises(ConfigError, match=told) as caught:
        EMFMetricsSink(argument, **options)
    assert "canary" not in str(caught.value)


def test_a_bad_endpoint_of_the_environment_is_named(monkeypatch):
    monkeypatch.setenv("AWS_EMF_AGENT_ENDPOINT", "agent:25888")
    with pytest.raises(ConfigError, match="AWS_EMF_AGENT_ENDPOINT"):
        EMFMetricsSink()


def test_times_and_sizes_that_are_not_taken_are_refused_by_reason(tmp_path):
    now = time.time()
    sink = EMFMetricsSink(tmp_path / "a")
    rows = [recent(timestamp=at) for at in (now - 20 * 86_400, now, now + 86_400)]
    assert sink.send(rows, deadline()) == Partial(retry=(2,), rejected=(0,), reason="too_old")
    assert sink.send(rows[2:], deadline()) == Partial(rejected=(0,), reason="in_future")
    assert len((tmp_path / "a").read_bytes().splitlines()) == 1
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as agent:
        agent.bind(("127.0.0.1", 0))
        udp = EMFMetricsSink(f"udp://127.0.0.1:{agent.getsockname()[1]}")
        huge = recent(tags={f"t{n}": "é" * 256 for n in range(32)}, tools_used=["é" * 256] * 64, model="é" * 2048)
        huger = [huge, recent()]
        assert len(udp._encoder.line(huge)) > 50_000
        udp._most = 50_000
        assert udp.send(huger, deadline()) == Partial(rejected=(0,), reason="too_large")
        udp.close()


def test_a_stream_that_is_closed_rejects():
    closed = io.StringIO()
    closed.close()
    assert EMFMetricsSink(closed).send([recent()], deadline()) == Rejected("stream_closed")


def test_a_full_disk_is_tried_again():
    assert EMFMetricsSink("/dev/full").send([recent()], deadline()) == RetryLater(reason="disk_full")


def test_a_pipe_that_nobody_reads_holds_it_no_longer_than_the_deadline():
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as stream:
        sink = EMFMetricsSink(stream)
        rows = [recent(tags={"t": "x" * 256}) for _ in range(200)]
        assert sink.send(rows, deadline(0.3)) == RetryLater(reason="timeout")
        assert sink.send(rows, deadline(0.1)) == RetryLater(reason="timeout")  # the first is still at it
        with os.fdopen(reading, "rb") as pipe:
            # Once it is read again, the first write ends, and the next one may begin.
            import threading

            read = []
            reader = threading.Thread(target=lambda: read.append(pipe.read()))
            reader.start()
            assert sink.send(rows[:1], deadline(30)) == Delivered()
            stream.close()
            reader.join(30)
    assert len(read[0].splitlines()) == 201


def test_an_agent_that_refuses_is_tried_again(tmp_path):
    from tests.support.ports import free_port

    sink = EMFMetricsSink(f"tcp://127.0.0.1:{free_port()}")
    assert sink.send([recent()], deadline()) == RetryLater(reason="unreachable")
    sink.close()


def test_an_agent_gets_every_line():
    with socket.create_server(("127.0.0.1", 0)) as agent:
        sink = EMFMetricsSink(f"tcp://127.0.0.1:{agent.getsockname()[1]}", log_group="group", batch_size=10)
        collector = MetricsCollector(sinks=[sink], registry=MetricsRegistry())
        rows = [recent() for _ in range(500)]
        for one in rows:
            collector.record(one)
        assert collector.flush_sync().complete
        collector.shutdown_sync()
        connection, _ = agent.accept()
        with connection, connection.makefile("rb") as lines:
            got = list(lines)
    assert not [fault for line in got for fault in emf_faults(line)]
    assert [json.loads(line)["id"] for line in got] == [one.id for one in rows]


def test_a_forked_child_has_a_connection_of_its_own():
    with socket.create_server(("127.0.0.1", 0)) as agent:
        sink = EMFMetricsSink(f"tcp://127.0.0.1:{agent.getsockname()[1]}")
        assert sink.send([recent()], deadline()) == Delivered()
        sink.after_fork()
        assert sink.send([recent()], deadline()) == Delivered()
        first, _ = agent.accept()
        second, _ = agent.accept()
        first.close()
        second.close()
        sink.close()


def test_nothing_is_printed_elsewhere():
    code = "import tellmeter; tellmeter.EMFMetricsSink().send([tellmeter.AgentMetrics(model='m')], 1e9)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, env={**os.environ, **made.PATHS}, check=True
    )
    assert done.stderr == b""
    assert done.stdout.count(b"\n") == 1
