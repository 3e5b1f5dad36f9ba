"""Records into ClickHouse's engine over HTTP: our sink, and clickhouse-connect with the same columns."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tellmeter import AgentMetrics, ClickHouseMetricsSink, Delivered, StreamMetrics
from tellmeter.sinks.clickhouse.rows import COLUMNS

from . import Row

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT))  # the server is that of the tests

RECORDS, BATCH = 50_000, 5_000
_OF_STREAM = ("time_to_first_chunk_ms", "time_to_first_token_ms", "max_gap_ms", "stalls", "tokens_per_second")


def run() -> list[Row]:
    """Both, one after the other, against one server; nothing where chDB is not installed."""
    from tests.support.clickhouse import ClickHouse

    python = ROOT / ".venv-servers" / "bin" / "python"
    if not python.exists():
        return []
    server = ClickHouse(str(python))
    server.start()
    try:
        return [_ours(server.url), *_theirs(server.url)]
    finally:
        server.close()


def made() -> list[AgentMetrics]:
    """Half of them streams, all with tags."""
    return [
        AgentMetrics(
            model=f"model-{index % 12}",
            provider="openai",
            timestamp=1.76e9 + index,
            latency_ms=100.0 + index % 977,
            input_tokens=index % 5000,
            output_tokens=index % 800,
            cost_usd=index % 1000 / 10_000,
            tags={"feature": f"f{index % 8}", "tenant": f"t{index % 100}"},
            stream=StreamMetrics(time_to_first_token_ms=50.0 + index % 97, status="completed") if index % 2 else None,
        )
        for index in range(RECORDS)
    ]


def _ours(url: str) -> Row:
    sink = ClickHouseMetricsSink(url, table="ours")
    sink.check()

    def send(batch: Sequence[AgentMetrics]) -> None:
        outcome = sink.send(batch, time.monotonic() + 60)
        assert outcome == Delivered(), outcome

    row = _measured("ClickHouseMetricsSink", send)
    sink.close()
    return row


def _theirs(url: str) -> list[Row]:
    import clickhouse_connect
    import msgspec

    columns = [name for name in COLUMNS if name != "timestamp"]
    ClickHouseMetricsSink(url, table="theirs").check()
    client = clickhouse_connect.get_client(dsn=url.replace("http", "clickhouse", 1))
    encode = msgspec.json.Encoder().encode

    def values(record: AgentMetrics, number: int) -> list[object]:
        stream = record.stream
        special = {
            "unix_seconds": record.timestamp,
            "precedence": 2**63 - 1 - number,
            "stream": None if stream is None else encode(stream).decode(),
            **{name: None if stream is None else getattr(stream, name) for name in _OF_STREAM},
        }
        return [special[name] if name in special else getattr(record, name) for name in columns]

    def send(batch: Sequence[AgentMetrics]) -> None:
        client.insert("theirs", [values(record, number) for number, record in enumerate(batch)], column_names=columns)

    try:
        return [_measured("clickhouse-connect", send)]
    finally:
        client.close()


def _measured(what: str, send: Callable[[Sequence[AgentMetrics]], None]) -> Row:
    records = made()
    send(made()[:BATCH])  # connections, caches, modules
    started, spent = time.perf_counter(), time.process_time()
    for first in range(0, RECORDS, BATCH):
        send(records[first : first + BATCH])
    seconds, cpu = time.perf_counter() - started, time.process_time() - spent
    return Row(what, RECORDS / seconds, cpu / RECORDS * 1e6)


if __name__ == "__main__":
    for line in run():
        print(line)
