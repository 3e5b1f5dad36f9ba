"""The InfluxDB sink beside influxdb-client's batching write API, both to VictoriaMetrics, which takes the API of 2."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.request

from influxdb_client import InfluxDBClient, Point, WriteOptions

from tellmeter import AgentMetrics, InfluxDBMetricsSink

from . import Row

RECORDS = 20_000
BATCH = 1000


@contextlib.contextmanager
def server():
    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        port = chosen.getsockname()[1]
    folder = tempfile.mkdtemp(prefix="tellmeter-bench-")
    program = shutil.which("victoria-metrics") or "victoria-metrics"
    arguments = [f"-storageDataPath={folder}", f"-httpListenAddr=127.0.0.1:{port}", "-retentionPeriod=100y"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen([program, *arguments], **quiet)
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
        yield url
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
            timestamp=now - number + index,
            latency_ms=100.0 + index,
            input_tokens=index,
            output_tokens=index // 2,
            cost_usd=index / 1000,
            tags={"feature": f"f{index % 3}"},
        )
        for index in range(number)
    ]


def point(record):
    """The same numbers and texts by the vendor's own class, as its documentation has it."""
    found = Point("theirs").time(int(record.timestamp * 1e9))
    for name in ("provider", "model", "status", "operation", "method"):
        found.tag(name, getattr(record, name))
    for name in ("latency_ms", "retry_delay_ms", "cost_usd", "sample_rate", "tokens_estimated", "id"):
        found.field(name, getattr(record, name))
    found.field("unix_seconds", record.timestamp).field("tags", str(record.tags))
    for name in ("input_tokens", "output_tokens", "cached_tokens", "cache_write_tokens", "reasoning_tokens", "retries"):
        found.field(name, getattr(record, name))
    found.field("total_tokens", record.total_tokens)
    found.field("prompt_tokens", record.input_tokens).field("completion_tokens", record.output_tokens)
    return found


def measured(what, records, write):
    """The better of three, and the CPU time of this process."""
    rows = []
    for _ in range(3):
        started, cpu = time.perf_counter(), time.process_time()
        write(records)
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
        rows.append(Row(what, len(records) / seconds, cpu / len(records) * 1e6))
    return max(rows, key=lambda row: row.records_per_second)


def run() -> list[Row]:
    records = made(RECORDS)
    with server() as url:
        sink = InfluxDBMetricsSink(url, "token", "org", "bucket")

        def ours(batch):
            for start in range(0, len(batch), BATCH):
                outcome = sink.send(batch[start : start + BATCH], time.monotonic() + 10)
                assert type(outcome).__name__ == "Delivered", outcome

        def theirs(batch):
            with (
                InfluxDBClient(url, "token", org="org", enable_gzip=True) as client,
                client.write_api(write_options=WriteOptions(batch_size=BATCH)) as writing,
            ):
                for record in batch:
                    writing.write("bucket", "org", point(record))

        rows = [
            measured("tellmeter, InfluxDB 2 API", records, ours),
            measured("influxdb-client, batching", records, theirs),
        ]
        sink.close()
    return rows


if __name__ == "__main__":
    for row in run():
        print(f"{row.what:32} {row.records_per_second:10,.0f} records/s {row.cpu_us_per_record:8.1f} us CPU/record")
