"""Records as Parquet files in a folder, by day and hour: for DuckDB, Spark, pandas and warehouses."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from msgspec.structs import asdict

from ..errors import ConfigError, MissingExtra
from ..guard import note
from ..pipeline.outcome import Delivered, Outcome, Partial, Rejected, RetryLater
from ..records import AgentMetrics, StreamMetrics
from .address import LANE_PARSERS, file_path, parse
from .base import BatchingMetricsSink, LaneOptions, file_reason, lane_options_in

if TYPE_CHECKING:
    import pyarrow as pa

_COMPRESSIONS = ("zstd", "snappy", "gzip", "none")
_HOPELESS = {"is_a_directory", "no_such_folder"}
# One file a batch, so batches are large. What waits meanwhile is only as safe as memory is, or as a spool.
_LANE: LaneOptions = {"batch_size": 10_000, "batch_timeout_seconds": 60.0, "max_queue": 50_000}
_LAST_MICROSECOND = 253_402_300_799_999_999  # of the year 9999, beyond which readers' calendars do not go


class ParquetMetricsSink(BatchingMetricsSink):
    """Writes each batch to a file of its own, `<folder>/date=2026-11-21/hour=20/<digest>.parquet` (UTC, Hive style).

    A file is there whole or not at all. Its name is made from the records' ids, so the same batch is the same file
    however often it is sent; delivery is at least once all the same (another process may send the same records in other
    batches): tell duplicates by `id`. A batch is 10,000 records or what came within 60 s, unless `lane` says otherwise.

    Args:
        folder: made where it is missing (0700; files 0600).
        compression: zstd, snappy, gzip or none.
        lane: settings for this sink alone, as `spool="folder"`; see `LaneOptions`.

    Raises:
        ConfigError: an argument that cannot work.
        MissingExtra: pyarrow is not installed.
    """

    def __init__(
        self, folder: str | os.PathLike[str], *, compression: str = "zstd", **lane: Unpack[LaneOptions]
    ) -> None:
        super().__init__(**lane_options_in(_LANE, lane))
        if compression not in _COMPRESSIONS:
            raise ConfigError(f"compression = {compression!r}: it must be one of {', '.join(_COMPRESSIONS)}")
        try:
            import pyarrow.parquet  # noqa: F401
        except ImportError:
            raise MissingExtra("pyarrow", "parquet") from None
        text = os.fspath(folder)
        if not isinstance(text, str):
            raise ConfigError(f"folder = {text!r}: it must be a text or a path")
        self.folder: Path = file_path(text)
        self.compression = compression
        self.destination = str(self.folder)

    @classmethod
    def from_url(cls, url: str) -> ParquetMetricsSink:
        """`parquet:///relative` or `parquet:////absolute`, with the options `compression` and the lane's."""
        address = parse(url)
        return cls(address.file(), **address.read(compression=str, **LANE_PARSERS))

    def send(self, batch: Sequence[AgentMetrics], deadline: float) -> Outcome:
        """Write a file for each hour that the batch has calls of."""
        hours: dict[str, list[int]] = {}
        for index, record in enumerate(batch):
            hours.setdefault(partition(record.timestamp), []).append(index)
        rejected: list[int] = []
        for place, indexes in hours.items():
            records = [batch[index] for index in indexes]
            try:
                self._write(place, records)
            except OSError as error:
                reason = file_reason(error)
                return Rejected(reason) if reason in _HOPELESS else RetryLater(reason=reason)
            except Exception as error:  # pyarrow could not hold a value: which should not be
                note("parquet", error)
                rejected += indexes
        return Partial(rejected=tuple(rejected), reason="invalid_record") if rejected else Delivered()

    def _write(self, place: str, records: Sequence[AgentMetrics]) -> None:
        import pyarrow.parquet as pq

        made = table(records)
        folder = self.folder / place
        for one in (self.folder, folder.parent, folder):  # the mode is only the last one's
            one.mkdir(mode=0o700, parents=True, exist_ok=True)
        name = hashlib.sha256("\n".join(record.id for record in records).encode()).hexdigest()[:32]
        # Readers leave out names that begin with a dot.
        temporary = folder / f".{name}.tmp"
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_CLOEXEC", 0), 0o600)
            with os.fdopen(descriptor, "wb") as file:
                pq.write_table(made, file, compression=self.compression)
                file.flush()
                os.fsync(descriptor)
            temporary.replace(folder / f"{name}.parquet")
        finally:
            temporary.unlink(missing_ok=True)


def partition(timestamp: float) -> str:
    """The folder of a call: `date=2026-11-21/hour=20`, UTC; the last hour of 9999 for what is later."""
    moment = datetime.fromtimestamp(_microseconds(timestamp) // 1_000_000, UTC)
    return f"date={moment:%Y-%m-%d}/hour={moment:%H}"


def table(records: Sequence[AgentMetrics]) -> pa.Table:
    """Records as columns: every field of `AgentMetrics` with its type, the stream as a struct.

    `timestamp` is a time in UTC, `unix_seconds` the same as the record has it.
    """
    import pyarrow as pa

    rows = [_row(record) for record in records]
    return pa.Table.from_pylist(rows, schema=schema())


def schema() -> pa.Schema:
    """The columns of every file."""
    import pyarrow as pa

    named: dict[str, pa.DataType] = {
        "str": pa.string(),
        "int": pa.int64(),
        "float": pa.float64(),
        "bool": pa.bool_(),
        "tuple[str, ...]": pa.list_(pa.string()),
        "tuple[bytes, ...]": pa.list_(pa.binary()),
        "dict[str, str]": pa.map_(pa.string(), pa.string()),
    }

    def columns(of: Any) -> dict[str, pa.DataType]:
        kinds = {name: kind.removesuffix(" | None") for name, kind in of.__annotations__.items()}
        return {name: named[kind] for name, kind in kinds.items() if kind in named}

    found = columns(AgentMetrics)
    found |= {"timestamp": pa.timestamp("us", tz="UTC"), "unix_seconds": pa.float64()}
    found["stream"] = pa.struct(list(columns(StreamMetrics).items()))
    return pa.schema(list(found.items()))


def _row(record: AgentMetrics) -> dict[str, Any]:
    fields = asdict(record)
    fields["unix_seconds"] = record.timestamp
    fields["timestamp"] = _microseconds(record.timestamp)
    fields["tags"] = list(record.tags.items())
    fields["stream"] = None if record.stream is None else asdict(record.stream)
    return fields


def _microseconds(timestamp: float) -> int:
    return min(int(min(timestamp, 1e15) * 1e6), _LAST_MICROSECOND)
