"""The questions of a store as ClickHouse's SQL: one statement each, so that its numbers belong together."""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from typing import Any

from ...cleaning import MAX_INT, MAX_TAGS, MODEL_LENGTH
from ...records import AgentMetrics, MetricsSummary
from ..query import (
    FAILED,
    MAX_FLOAT,
    MAX_POINTS,
    PERCENTILES,
    WHOLE,
    Query,
    SeriesPoint,
    check_points,
    interpolate,
    ranks,
    view,
)
from . import rows
from .client import Client

_SETTINGS = {
    "readonly": "2",
    # Rows with the same key have the same time, hence the same partition.
    "do_not_merge_across_partitions_select_final": "1",
    "max_execution_time": "25",
    "max_result_bytes": str(256 * 1024 * 1024),
}
_UNCLEAN = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
# Two of the largest whole numbers do not add up in Int64.
_METRICS = {
    "latency_ms": "latency_ms",
    "ttft_ms": "time_to_first_token_ms",
    "tokens": "toUInt64(input_tokens) + toUInt64(output_tokens)",
    "input_tokens": "input_tokens",
    "output_tokens": "output_tokens",
    "cost_usd": "cost_usd",
}
_P = "[{}]".format(", ".join(map(str, PERCENTILES)))


def _at_ranks(values: str, percentiles: str) -> str:
    """SQL for the values at the two ranks of each percentile, as `ranks` has them."""
    rank = f"(greatest(length({values}), 1) - 1) * p / 100"
    return (
        f"arrayMap(p -> ({values}[1 + toUInt64(floor({rank}))], {values}[1 + toUInt64(ceil({rank}))]), {percentiles})"
    )


# Kahan's sums are within two units in the last place of the exact ones, whatever the order; all values are positive.
# Percentiles are exact: their values are picked from all, sorted.
_SUMMARY = f"""
    count() AS n, countIf({FAILED}), sumKahan(latency_ms), count(time_to_first_token_ms),
    sumKahan(ifNull(time_to_first_token_ms, 0)), count(cost_usd), sumKahan(ifNull(cost_usd, 0)),
    [{", ".join(f"toString(sum(toInt128({name})))" for name in WHOLE)}],
    sumMap(map(provider, 1)), sumMap(map(model, 1)),
    sumMapIf(map(assumeNotNull(error_class), 1), {FAILED} AND error_class IS NOT NULL),
    arraySort(groupArray(latency_ms)) AS latencies, arraySort(groupArray(time_to_first_token_ms)) AS firsts
"""
_ANSWERED = f"""
    n, * EXCEPT (k, n, latencies, firsts), {_at_ranks("latencies", _P)}, {_at_ranks("firsts", _P)}
"""
_Pairs = list[tuple[float, float]]
_Summary: Any = (
    int, int, float | None, int, float | None, int, float | None,
    list[str], dict[str, int], dict[str, int], dict[str, int], _Pairs, _Pairs,
)  # fmt: skip

Values = dict[str, str | int]


def where(query: Query) -> tuple[str, Values]:
    """The condition of a query, and the values of its parameters."""
    values: Values = {}
    clauses = ["1"]
    for name, sign, bound in (("start", ">=", query.start_time), ("end", "<", query.end_time)):
        if bound is not None:
            clauses.append(f"unix_seconds {sign} {_float(name)}" if bound == bound else "0")
            values[name] = _bits(bound)
    for column in ("provider", "model", "request_id", "status"):
        value = getattr(query, column)
        if value is not None:
            clauses.append(f"{column} = {{{column}:String}}" if _is_storable(value) else "0")
            values[column] = value
    if len(query.tags) > MAX_TAGS or not all(_is_storable(text) for pair in query.tags.items() for text in pair):
        return "0", {}
    for number, (name, value) in enumerate(query.tags.items()):
        clauses.append(f"mapContains(tags, {{t{number}:String}}) AND tags[{{t{number}:String}}] = {{v{number}:String}}")
        values |= {f"t{number}": name, f"v{number}": value}
    return ("0", {}) if "0" in clauses else (" AND ".join(clauses), values)


def _is_storable(text: str) -> bool:
    """Whether a record may hold a text, which is also one that fits a URL."""
    return len(text) <= MODEL_LENGTH and not _UNCLEAN.search(text)


def _bits(number: float) -> int:
    # Reading decimals, ClickHouse may be off by the last digit.
    return int(struct.unpack("<Q", struct.pack("<d", number))[0])


def _float(name: str) -> str:
    return f"reinterpretAsFloat64({{{name}:UInt64}})"


def records(client: Client, deadline: float, table: str, query: Query, limit: int) -> list[AgentMetrics]:
    """At most `limit` records, newest first."""
    condition, values = where(query)
    sql = (
        f"SELECT {rows.SELECTED} FROM {table} FINAL WHERE {condition} "  # noqa: S608
        f"ORDER BY unix_seconds DESC, precedence LIMIT {limit:d}"
    )
    found = client.rows(sql, deadline, rows.Row, settings=_SETTINGS, values=values)
    return [rows.record_of(row) for row in found]


def summary(client: Client, deadline: float, table: str, query: Query) -> MetricsSummary:
    """One view over all rows of a query."""
    found = _summaries(client, deadline, table, query, "''", str)
    return found.get("", MetricsSummary())


def breakdown(
    client: Client, deadline: float, table: str, query: Query, by: str, limit: int
) -> dict[str, MetricsSummary]:
    """One view per value of a column or tag, for the `limit` values with the most calls."""
    if not by.startswith("tag:"):
        return _summaries(client, deadline, table, query, by, str, f"ORDER BY n DESC, k LIMIT {limit:d}")
    if not _is_storable(by):
        return {}
    key = "if(mapContains(tags, {tag:String}), tags[{tag:String}], NULL)"
    order = f"ORDER BY n DESC, k LIMIT {limit:d}"
    return _summaries(client, deadline, table, query, key, str, order, {"tag": by[4:]})


def series(client: Client, deadline: float, table: str, query: Query, step: float) -> list[SeriesPoint]:
    """One view per `step` seconds that has calls, oldest first."""
    key = f"floor(least(unix_seconds / {_float('step')}, {float(MAX_INT)!r}))"
    order = f"ORDER BY k LIMIT {MAX_POINTS + 1}"
    found = _summaries(client, deadline, table, query, key, float, order, {"step": _bits(step)})
    check_points(len(found), step)
    return [SeriesPoint(timestamp=int(number) * step, step=step, summary=one) for number, one in found.items()]


def percentile(client: Client, deadline: float, table: str, query: Query, metric: str, p: float) -> float:
    """The `p`-th percentile (0..100) of a metric; 0.0 where no row has it."""
    condition, values = where(query)
    picked = _at_ranks("found", "[" + _float("p") + "]")
    sql = (
        f"SELECT length(found), {picked} "  # noqa: S608
        f"FROM (SELECT arraySort(groupArray({_METRICS[metric]})) AS found FROM {table} FINAL WHERE {condition})"
    )
    kind: Any = float if metric.endswith(("_ms", "_usd")) else int
    ((count, ((low, high),)),) = client.rows(
        sql,
        deadline,
        tuple[int, list[tuple[kind, kind]]],
        settings=_SETTINGS,
        values={**values, "p": _bits(p)},
    )
    return float(interpolate(low, high, ranks(count, p)[2])) if count else 0.0


def _summaries(
    client: Client,
    deadline: float,
    table: str,
    query: Query,
    key: str,
    kind: Any,
    order: str = "",
    more: Mapping[str, str | int] | None = None,
) -> dict[Any, MetricsSummary]:
    """One view per group, in the order asked for."""
    condition, values = where(query)
    sql = (
        f"SELECT k, {_ANSWERED} FROM (SELECT {key} AS k, {_SUMMARY} FROM {table} FINAL "  # noqa: S608
        f"WHERE {condition} AND ({key}) IS NOT NULL GROUP BY k {order}) {order}"
    )
    found = client.rows(sql, deadline, tuple[kind, *_Summary], settings=_SETTINGS, values={**values, **(more or {})})
    return {k: _view(*facts) for k, *facts in found}


def _view(
    count: int,
    failed: int,
    latency: float | None,
    streams: int,
    first: float | None,
    priced: int,
    cost: float | None,
    sums: list[str],
    providers: dict[str, int],
    models: dict[str, int],
    errors: dict[str, int],
    latencies: _Pairs,
    firsts: _Pairs,
) -> MetricsSummary:
    return view(
        count=count,
        failed=failed,
        latency=_total(latency),
        latencies=_percentiles(count, latencies),
        streams=streams,
        first=_total(first),
        firsts=_percentiles(streams, firsts) if streams else (),
        priced=priced,
        cost=_total(cost),
        whole=dict(zip(WHOLE, map(int, sums), strict=True)),
        providers=providers,
        models=models,
        errors=errors,
    )


def _percentiles(count: int, pairs: _Pairs) -> list[float]:
    return [interpolate(*pair, ranks(count, p)[2]) for p, pair in zip(PERCENTILES, pairs, strict=True)]


def _total(found: float | None) -> float:
    """A sum; the largest float where it is larger than that, which JSON has no number for."""
    return MAX_FLOAT if found is None else min(found, MAX_FLOAT)
