"""How records become rows of the ClickHouse store, and rows records."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import Any

import msgspec

from ...records import AgentMetrics, StreamMetrics

# Column -> its type there, and here.
_PLAIN: dict[str, tuple[str, Any]] = {
    "id": ("String CODEC(ZSTD(1))", str),
    "unix_seconds": ("Float64 CODEC(ZSTD(1))", float),
    "provider": ("LowCardinality(String)", str),
    "model": ("LowCardinality(String)", str),
    "response_model": ("LowCardinality(Nullable(String))", str | None),
    "operation": ("LowCardinality(String)", str),
    "method": ("LowCardinality(String)", str),
    "latency_ms": ("Float64", float),
    "status": ("LowCardinality(String)", str),
    "error_class": ("LowCardinality(Nullable(String))", str | None),
    "error_category": ("LowCardinality(Nullable(String))", str | None),
    "status_code": ("Nullable(UInt16)", int | None),
    "input_tokens": ("Int64", int),
    "output_tokens": ("Int64", int),
    "cached_tokens": ("Int64", int),
    "cache_write_tokens": ("Int64", int),
    "reasoning_tokens": ("Int64", int),
    "tokens_estimated": ("Bool", bool),
    "cost_usd": ("Nullable(Float64)", float | None),
    "price_version": ("LowCardinality(Nullable(String))", str | None),
    "retries": ("Int64", int),
    "retry_delay_ms": ("Float64", float),
    "finish_reason": ("LowCardinality(Nullable(String))", str | None),
    "request_id": ("Nullable(String)", str | None),
    "trace_id": ("Nullable(String)", str | None),
    "span_id": ("Nullable(String)", str | None),
    "parent_id": ("Nullable(String)", str | None),
    "sample_rate": ("Float64", float),
}
_OF_STREAM = {
    "time_to_first_chunk_ms": "Nullable(Float64)",
    "time_to_first_token_ms": "Nullable(Float64)",
    "max_gap_ms": "Nullable(Float64)",
    "stalls": "Nullable(Int64)",
    "tokens_per_second": "Nullable(Float64)",
}
_DOCUMENTS: dict[str, tuple[str, Any]] = {
    "tools_used": ("Array(LowCardinality(String))", tuple[str, ...]),
    "tags": ("Map(LowCardinality(String), String)", dict[str, str]),
    "stream": ("Nullable(String) CODEC(ZSTD(3))", str | None),
}
# Of two rows with the same id the one with the higher `precedence` stays: the one that came first.
COLUMNS: dict[str, str] = {
    "timestamp": "DateTime64(6, 'UTC') DEFAULT toDateTime64(least(unix_seconds, 10413791999.), 6, 'UTC')",
    **{name: kind for name, (kind, _) in _PLAIN.items()},
    **{name: kind for name, (kind, _) in _DOCUMENTS.items()},
    **_OF_STREAM,
    "precedence": "UInt64 CODEC(Delta, ZSTD(1))",
}
SELECTED = ", ".join((*_PLAIN, *_DOCUMENTS))
Row: Any = tuple[tuple(kind for _, kind in (*_PLAIN.values(), *_DOCUMENTS.values()))]  # type: ignore[misc]

_plain_of = operator.attrgetter(*("timestamp" if name == "unix_seconds" else name for name in _PLAIN))
_stream_of = operator.attrgetter(*_OF_STREAM)
_encode = msgspec.json.Encoder().encode
_decode_stream = msgspec.json.Decoder(StreamMetrics).decode


def lines_of(records: Iterable[AgentMetrics], precedence: int) -> list[bytes]:
    """Each record as a line of JSONEachRow; the first has this `precedence`, each other one less than the one before.

    What is not there is left out, and is then the column's default.
    """
    lines = []
    for number, record in enumerate(records):
        row: dict[str, object] = dict(zip(_PLAIN, _plain_of(record), strict=True))
        row["precedence"] = precedence - number
        if record.tools_used:
            row["tools_used"] = record.tools_used
        if record.tags:
            row["tags"] = record.tags
        if record.stream is not None:
            row.update(zip(_OF_STREAM, _stream_of(record.stream), strict=True))
            row["stream"] = _encode(record.stream).decode()
        lines.append(_encode(row))
    return lines


def record_of(row: tuple[Any, ...]) -> AgentMetrics:
    """The record that a row of `SELECTED` was made from.

    Raises:
        msgspec.DecodeError: a row that was changed by hand.
    """
    *plain, tools, tags, stream = row
    fields = {"timestamp" if name == "unix_seconds" else name: value for name, value in zip(_PLAIN, plain, strict=True)}
    return AgentMetrics(
        **fields, tools_used=tools, tags=tags, stream=None if stream is None else _decode_stream(stream)
    )
