from __future__ import annotations

import stat
import time
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tellmeter import AgentMetrics, ConfigError, Delivered, MetricsCollector, StreamMetrics
from tellmeter.pipeline.outcome import Rejected
from tellmeter.sinks import parquet
from tellmeter.sinks.parquet import ParquetMetricsSink, partition, table
from tellmeter.sinks.urls import sink_from_url
from tellmeter.testing import SinkContract
from tests.unit.sinks import made
from tests.unit.sinks.made import T0, deadline, record


def read(folder: Path) -> list[AgentMetrics]:
    """Every record of a folder, each field as it was written."""
    found = []
    for file in sorted(folder.rglob("*.parquet")):
        for row in pq.read_table(file, partitioning=None).to_pylist():
            row["timestamp"] = row.pop("unix_seconds")
            row["tags"] = dict(row["tags"])
            row["tools_used"] = tuple(row["tools_used"])
            if row["stream"] is not None:
                chunks = row["stream"]["raw_chunks"]
                row["stream"] = StreamMetrics(
                    **{**row["stream"], "raw_chunks": None if chunks is None else tuple(chunks)}
                )
            found.append(AgentMetrics(**row))
    return found


class TestContract(SinkContract):
    keeps_fields = True

    @pytest.fixture(autouse=True)
    def folder(self, tmp_path: Path) -> None:
        self.path = tmp_path / "calls"

    def make_sink(self) -> ParquetMetricsSink:
        return ParquetMetricsSink(self.path, batch_size=100, batch_timeout_seconds=0.05)

    def read_back(self) -> list[AgentMetrics]:
        return read(self.path)


def test_a_batch_is_a_file_in_the_folder_of_its_hour(tmp_path: Path) -> None:
    sink = ParquetMetricsSink(tmp_path / "calls")
    batch = [record(0), record(10), record(3600)]
    assert sink.send(batch, deadline()) == Delivered()
    places = sorted(str(file.parent.relative_to(sink.folder)) for file in sink.folder.rglob("*.parquet"))
    assert places == ["date=2023-11-14/hour=22", "date=2023-11-14/hour=23"]
    assert sorted(one.id for one in read(sink.folder)) == sorted(one.id for one in batch)


def test_the_same_batch_again_adds_nothing(tmp_path: Path) -> None:
    sink = ParquetMetricsSink(tmp_path)
    batch = [record(number) for number in range(20)]
    for _ in range(3):
        assert sink.send(batch, deadline()) == Delivered()
    assert len(read(tmp_path)) == 20


def test_duckdb_asks_it_as_a_table(tmp_path: Path) -> None:
    sink = ParquetMetricsSink(tmp_path)
    stream = StreamMetrics(model="m", time_to_first_token_ms=250.0)
    sink.send(
        [record(0, cost_usd=0.25, tags={"team": "search"}), record(1, cost_usd=0.5, stream=stream), record(2)],
        deadline(),
    )
    files = f"read_parquet('{tmp_path}/*/*/*.parquet', hive_partitioning = true)"
    (row,) = duckdb.sql(
        f"SELECT count(*), sum(cost_usd), max(stream.time_to_first_token_ms), max(tags['team']) "
        f"FROM {files} WHERE date = '2023-11-14' AND timestamp >= '2023-11-14 22:00:00+00'"
    ).fetchall()
    assert row == (3, 0.75, 250.0, "search")


def test_files_are_ours_alone_and_no_half_one_is_left(tmp_path: Path) -> None:
    sink = ParquetMetricsSink(tmp_path / "calls")
    sink.send([record()], deadline())
    (file,) = (path for path in sink.folder.rglob("*") if path.is_file())
    assert stat.S_IMODE(file.stat().st_mode) == 0o600 and stat.S_IMODE(sink.folder.stat().st_mode) == 0o700


def test_a_write_that_fails_leaves_nothing_and_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sink = ParquetMetricsSink(tmp_path)

    def full(*arguments: Any, **options: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(pq, "write_table", full)
        assert getattr(sink.send([record()], deadline()), "reason", None) == "disk_full"
        assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert sink.send([record()], deadline()) == Delivered()


def test_a_folder_under_a_file_is_refused_for_good(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert ParquetMetricsSink(tmp_path / "file").send([record()], deadline()) == Rejected("no_such_folder")


def test_through_a_collector_files_are_large(tmp_path: Path) -> None:
    sink = ParquetMetricsSink(tmp_path)
    collector = MetricsCollector(sinks=[sink])
    now = time.time()
    for _ in range(5000):
        collector.record(record(timestamp=now))
    assert collector.shutdown_sync(30).complete
    assert len(list(tmp_path.rglob("*.parquet"))) <= 2 and len(read(tmp_path)) == 5000


def test_the_url_and_what_cannot_be(tmp_path: Path) -> None:
    sink = sink_from_url(f"parquet:///{tmp_path}?compression=snappy&batch_size=7")
    assert (sink.folder, sink.compression, sink.lane_options["batch_size"]) == (tmp_path, "snappy", 7)
    assert sink.lane_options["batch_timeout_seconds"] == 60.0
    for url in ("parquet:", "parquet://host/x", "parquet:///x?compression=zip", "parquet:///x?nonsense=1"):
        with pytest.raises(ConfigError):
            sink_from_url(url)


@pytest.mark.parametrize(
    ("timestamp", "place"),
    [
        (0.0, "date=1970-01-01/hour=00"),
        (T0, "date=2023-11-14/hour=22"),
        (1e12, "date=9999-12-31/hour=23"),
        (1e300, "date=9999-12-31/hour=23"),
    ],
)
def test_every_time_has_a_place(timestamp: float, place: str) -> None:
    assert partition(timestamp) == place


@settings(max_examples=60)
@given(st.lists(made.records, max_size=8))
def test_every_record_comes_back_as_it_was(records: list[AgentMetrics]) -> None:
    rows = table(records).to_pylist()
    back = []
    for row in rows:
        row["timestamp"] = row.pop("unix_seconds")
        stream = row["stream"]
        if stream is not None:
            chunks = stream["raw_chunks"]
            stream = StreamMetrics(**{**stream, "raw_chunks": None if chunks is None else tuple(chunks)})
        back.append(
            AgentMetrics(**{**row, "tags": dict(row["tags"]), "tools_used": tuple(row["tools_used"]), "stream": stream})
        )
    assert back == records


def test_every_field_has_a_column() -> None:
    names = set(parquet.schema().names)
    assert {field for field in AgentMetrics.__struct_fields__ if field != "stream"} <= names
    assert set(StreamMetrics.__struct_fields__) == {field.name for field in parquet.schema().field("stream").type}
