"""The Kafka sink beside plain confluent-kafka with the same JSON, both to librdkafka's mock cluster in another process."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time

import msgspec
from confluent_kafka import Producer

from tellmeter import AgentMetrics, KafkaMetricsSink

from . import Row

RECORDS = 20_000
BATCH = 1000
# The cluster lives as long as its standard input.
_CLUSTER = """
import sys
from confluent_kafka import Producer
producer = Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "none", "log_level": 0})
(broker,) = producer.list_topics(timeout=10).brokers.values()
print(f"{broker.host}:{broker.port}", flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def cluster():
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", _CLUSTER], text=True, **pipes) as process:
        try:
            yield process.stdout.readline().strip()
        finally:
            process.stdin.close()


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
    encode = msgspec.json.Encoder().encode
    with cluster() as servers:
        sink = KafkaMetricsSink(servers, "ours")
        settings = {"enable.idempotence": True, "acks": "all", "compression.type": "lz4", "log_level": 0}
        producer = Producer({"bootstrap.servers": servers, **settings})

        def ours(batch):
            for start in range(0, len(batch), BATCH):
                outcome = sink.send(batch[start : start + BATCH], time.monotonic() + 10)
                assert type(outcome).__name__ == "Delivered", outcome

        def theirs(batch):
            failed = []
            for record in batch:
                value = encode({"schema_version": 1, **msgspec.to_builtins(record)})
                producer.produce(
                    "theirs",
                    value,
                    record.id,
                    on_delivery=lambda error, _: error and failed.append(error),
                    headers=[("content-type", b"application/json"), ("schema", b"tellmeter.call/1")],
                )
                producer.poll(0)
            assert producer.flush(30) == 0 and not failed, failed[:1]

        ours(records[:BATCH])
        theirs(records[:BATCH])
        rows = [
            measured("tellmeter, each batch acknowledged", records, ours),
            measured("confluent-kafka, one flush", records, theirs),
        ]
        sink.close()
    return rows


if __name__ == "__main__":
    for row in run():
        print(f"{row.what:36} {row.records_per_second:10,.0f} records/s {row.cpu_us_per_record:8.1f} us CPU/record")
