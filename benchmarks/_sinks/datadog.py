"""The Datadog sinks beside the vendor's `datadog` package: DogStatsD to a socket, series to VictoriaMetrics.

All subjects send the same metrics of the same records. The vendor's client gets its tags ready made.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import datadog
from datadog.dogstatsd import DogStatsd

from tellmeter import AgentMetrics, DatadogMetricsSink, DogStatsDMetricsSink
from tellmeter.testing import Answer, FaultServer

from . import Row

RECORDS = 20_000
BATCH = 500
SUMS = {"llm.tokens.input": "input_tokens", "llm.tokens.output": "output_tokens", "llm.cost": "cost_usd"}
# Reads datagrams until it is ended, in a process of its own.
READER = """
import socket, sys
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as agent:
    agent.bind(sys.argv[1])
    print(flush=True)
    while True:
        agent.recv(8192)
"""


@contextlib.contextmanager
def agent():
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "dsd.socket")
        process = subprocess.Popen([sys.executable, "-c", READER, path], stdout=subprocess.PIPE)
        try:
            process.stdout.readline()
            yield path
        finally:
            process.kill()
            process.communicate(timeout=30)


@contextlib.contextmanager
def victoria_metrics():
    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        port = chosen.getsockname()[1]
    folder = tempfile.mkdtemp(prefix="tellmeter-bench-")
    program = shutil.which("victoria-metrics") or "victoria-metrics"
    arguments = [f"-storageDataPath={folder}", f"-httpListenAddr=127.0.0.1:{port}", "-retentionPeriod=1"]
    process = subprocess.Popen([program, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                urllib.request.urlopen(f"{url}/health", timeout=1).close()
                break
            except OSError:
                assert time.monotonic() < deadline and process.poll() is None
                time.sleep(0.05)
        yield f"{url}/datadog"
    finally:
        process.kill()
        process.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


def made(number):
    now = time.time()
    return [
        AgentMetrics(
            model=f"gpt-4o-{index % 5}",
            provider="openai",
            timestamp=now - 60 * index / number,
            latency_ms=100.0 + index,
            input_tokens=index + 1,
            output_tokens=index // 2 + 1,
            cost_usd=(index + 1) / 1000,
        )
        for index in range(number)
    ]


def tags_of(record):
    return [
        f"provider:{record.provider}",
        f"model:{record.model}",
        f"operation:{record.operation}",
        f"status:{record.status}",
    ]


def measured(what, records, write):
    """The best of three, and the CPU time of this process."""
    rows = []
    for _ in range(3):
        started, cpu = time.perf_counter(), time.process_time()
        write(records)
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
        rows.append(Row(what, len(records) / seconds, cpu / len(records) * 1e6))
    return max(rows, key=lambda row: row.records_per_second)


def batches(records):
    return (records[start : start + BATCH] for start in range(0, len(records), BATCH))


def by(sink):
    def write(records):
        for batch in batches(records):
            outcome = sink.send(batch, time.monotonic() + 10)
            assert type(outcome).__name__ == "Delivered", outcome

    return write


def by_statsd(client):
    def write(records):
        for record in records:
            tags = tags_of(record)
            client.increment("llm.requests", 1, tags=tags)
            for name, field in SUMS.items():
                client.increment(name, getattr(record, field), tags=tags)
            client.distribution("llm.request.latency", record.latency_ms, tags=tags)
        client.flush()

    return write


def by_api(records):
    """One point for each value, as its documentation has it; what shares a second and tags is overwritten there."""
    for batch in batches(records):
        series = []
        for record in batch:
            tags, values = tags_of(record), {"llm.requests": 1, "llm.request.latency.sum": record.latency_ms}
            values |= {name: getattr(record, field) for name, field in SUMS.items()}
            series += [
                {"metric": name, "points": [(record.timestamp, value)], "tags": tags, "type": "count"}
                for name, value in values.items()
            ]
        datadog.api.Metric.send(series)


def run() -> list[Row]:
    records, rows = made(RECORDS), []
    with agent() as path:
        ours = DogStatsDMetricsSink(socket_path=path, tags=[])
        rows.append(measured("tellmeter, DogStatsD", records, by(ours)))
        ours.close()
        theirs = DogStatsd(socket_path=path, disable_buffering=False, disable_aggregation=True)
        row = measured("datadog, DogStatsD, buffered", records, by_statsd(theirs))
        lost = f"{theirs.packets_dropped} of {theirs.packets_dropped + theirs.packets_sent} packets lost"
        rows.append(row._replace(what=f"{row.what} ({lost})"))  # where the reader is behind, it drops
        theirs.close_socket()
        theirs.stop()
    with victoria_metrics() as url:
        ours = DatadogMetricsSink("key", url=url, counts="series-v1", tags=[], hostname="bench")
        rows.append(measured("tellmeter, series v1, counts", records, by(ours)))
        ours.close()
        datadog.initialize(api_key="key", app_key="key", api_host=url, host_name="bench", mute=False)
        rows.append(measured("datadog, series v1, counts", records, by_api))
    with FaultServer(Answer(202, b'{"status":"ok"}')) as server:
        ours = DatadogMetricsSink("key", url=server.url, tags=[], hostname="bench")
        rows.append(measured("tellmeter, distributions, server in process", records, by(ours)))
        ours.close()
    return rows


if __name__ == "__main__":
    for row in run():
        print(f"{row.what:60} {row.records_per_second:10,.0f} records/s {row.cpu_us_per_record:7.1f} us of CPU each")
