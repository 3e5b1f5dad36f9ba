"""The CloudWatch sink beside boto3's put_metric_data, a datum a record and 20 a call (the seed guide's shape); EMF lines.

Both talk to the same moto server, whose time is in the records per second; the CPU time is this process's alone.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request
from datetime import UTC, datetime
from pathlib import Path

import boto3

from tellmeter import AgentMetrics, CloudWatchMetricsSink, Delivered, EMFMetricsSink

from . import Row

RECORDS = 5000
BATCH = 1000
_MOTO = Path(__file__).parents[2] / ".venv-servers" / "bin" / "moto_server"


@contextlib.contextmanager
def server():
    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        port = chosen.getsockname()[1]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen([_MOTO, "-H", "127.0.0.1", "-p", str(port)], start_new_session=True, **quiet)
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(f"{url}/moto-api/data.json", timeout=1).close()
                break
            except OSError:
                assert time.monotonic() < deadline and process.poll() is None
                time.sleep(0.05)
        yield url
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)


def made(number):
    now = time.time()
    return [
        AgentMetrics(
            model=f"gpt-4o-{index % 5}",
            provider="openai",
            timestamp=now - number / 100 + index / 100,
            latency_ms=100.0 + index * 1.37,
            input_tokens=100 + index % 2000,
            output_tokens=index % 700,
            cost_usd=index % 997 / 1000,
            tags={"feature": f"f{index % 3}"},
        )
        for index in range(number)
    ]


def session():
    return boto3.Session(aws_access_key_id="testing", aws_secret_access_key="testing", region_name="us-east-1")


def timed(what, work, number):
    started, cpu = time.perf_counter(), time.process_time()
    work()
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    return Row(what, number / seconds, cpu / number * 1e6)


def batches(sink, records):
    def work():
        for at in range(0, len(records), BATCH):
            outcome = sink.send(records[at : at + BATCH], time.monotonic() + 60)
            assert outcome == Delivered(), outcome

    return work


def theirs(client, records):
    """The guide's own: latency and tokens of each record by Model, 20 data a call."""

    def work():
        buffer = []
        for record in records:
            dimensions = [{"Name": "Model", "Value": record.model}, {"Name": "Provider", "Value": record.provider}]
            at = datetime.fromtimestamp(record.timestamp, UTC)
            latency = {"MetricName": "RequestLatency", "Value": record.latency_ms, "Unit": "Milliseconds"}
            tokens = {"MetricName": "TokenUsage", "Value": record.total_tokens, "Unit": "Count"}
            buffer += [{**one, "Timestamp": at, "Dimensions": dimensions} for one in (latency, tokens)]
            if len(buffer) >= 20:
                client.put_metric_data(Namespace="Theirs", MetricData=buffer[:20])
                buffer = buffer[20:]
        if buffer:
            client.put_metric_data(Namespace="Theirs", MetricData=buffer)

    return work


def run() -> list[Row]:
    records = made(RECORDS)
    few = records[:1000]
    with server() as url, tempfile.TemporaryDirectory() as folder:
        ours = CloudWatchMetricsSink("Ours", session=session(), endpoint_url=url)
        same = CloudWatchMetricsSink(
            "Same",
            session=session(),
            endpoint_url=url,
            dimensions=[["provider", "model"]],
            metrics=["RequestLatency", "TokenUsage"],
        )
        client = session().client("cloudwatch", endpoint_url=url)
        emf = EMFMetricsSink(f"{folder}/emf.log")
        for sink in (ours, same):
            sink.send(records[:1], time.monotonic() + 60)
        client.put_metric_data(Namespace="Theirs", MetricData=[{"MetricName": "m", "Value": 1.0}])
        rows = [
            timed("boto3, 20 data a call: latency and tokens", theirs(client, few), len(few)),
            timed("tellmeter, the same two metrics", batches(same, records), RECORDS),
            timed("tellmeter, all metrics, three dimension sets", batches(ours, records), RECORDS),
            timed("tellmeter, EMF to a file", batches(emf, records), RECORDS),
        ]
        ours.close()
        same.close()
    return rows
