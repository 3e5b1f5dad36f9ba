"""The questions of a store as SQL: SQLite works while the interpreter's lock is free, and few rows come back."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any

from ...cleaning import MAX_INT
from ...records import AgentMetrics, MetricsSummary
from ..query import (
    FAILED,
    MAX_POINTS,
    PERCENTILES,
    WHOLE,
    Query,
    SeriesPoint,
    check_points,
    interpolate,
    may_be_in_a_record,
    ranks,
    tally,
    total,
    view,
)
from . import schema

_METRICS = {
    "latency_ms": "latency_ms",
    "ttft_ms": "time_to_first_token_ms",
    "tokens": "input_tokens + output_tokens",
    "input_tokens": "input_tokens",
    "output_tokens": "output_tokens",
    "cost_usd": "cost_usd",
}

# Sums of 64-bit numbers overflow in SQLite: the upper and lower 32 bits are added up apart. So are the whole 2**-20ths
# of dollars and the rest, because adding floats one by one loses the last digits.
_SUMS = f"""
    count(*), total({FAILED}), sum(latency_ms),
    count(time_to_first_token_ms), total(time_to_first_token_ms),
    count(cost_usd), total(CAST(cost_usd * 1048576 AS INTEGER) * 1.0),
    total(cost_usd * 1048576 - CAST(cost_usd * 1048576 AS INTEGER)),
    {", ".join(f"sum({name} >> 32), sum({name} & 4294967295)" for name in WHOLE)}
"""

_Row = tuple[Any, ...]


class Rows:
    """The rows that a question is about, each with the key `k` of its group; all in one group without a key."""

    def __init__(self, query: Query, key: str = "1", arguments: Sequence[object] = ()) -> None:
        condition, values = where(query)
        self._with = f"WITH keyed AS (SELECT {key} AS k, * FROM llm_metrics WHERE {condition})"  # noqa: S608
        self._source = "(SELECT * FROM keyed WHERE k IS NOT NULL)"
        self._arguments: tuple[object, ...] = (*arguments, *values)

    def only(self, keys: Iterable[str]) -> None:
        """Leave out the groups with other keys."""
        self._source = "(SELECT * FROM keyed WHERE k IN (SELECT value FROM json_each(?)))"
        self._arguments = (*self._arguments, json.dumps(list(keys)))

    def select(self, connection: sqlite3.Connection, columns: str, then: str = "", *arguments: object) -> list[_Row]:
        """`SELECT columns FROM the rows then`. Arguments are those of `then`."""
        return self.ask(connection, f"SELECT {columns} FROM {self._source} {then}", *arguments)  # noqa: S608

    def at_ranks(self, connection: sqlite3.Connection, column: str, wanted: list[tuple[Any, int]]) -> dict[_Row, Any]:
        """`(k, rank)` -> the value at that rank of the sorted values of the group."""
        sql = f"""
            SELECT k, r, v FROM (
                SELECT k, v, row_number() OVER (PARTITION BY k ORDER BY v) - 1 AS r
                FROM (SELECT k, {column} AS v FROM {self._source}) WHERE v IS NOT NULL
            ) WHERE (k, r) IN (SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(?))
        """  # noqa: S608
        return {(k, r): v for k, r, v in self.ask(connection, sql, json.dumps(wanted))}

    def ask(self, connection: sqlite3.Connection, sql: str, *arguments: object) -> list[_Row]:
        """The answer to SQL that names the rows' source once."""
        return connection.execute(f"{self._with} {sql}", (*self._arguments, *arguments)).fetchall()


def where(query: Query) -> tuple[str, list[object]]:
    """The condition of a query and its arguments."""
    clauses, arguments = ["1"], list[object]()
    given = {
        "timestamp >= ?": query.start_time,
        "timestamp < ?": query.end_time,
        "provider = ?": query.provider,
        "model = ?": query.model,
        "request_id = ?": query.request_id,
        "status = ?": query.status,
    }
    pairs: list[tuple[str, tuple[Any, ...]]] = [(sql, (value,)) for sql, value in given.items() if value is not None]
    # json_each takes any name; a path for json_extract cannot hold every one.
    pairs += [("EXISTS (SELECT 1 FROM json_each(tags) WHERE key = ? AND value = ?)", one) for one in query.tags.items()]
    for clause, values in pairs:
        possible = all(map(may_be_in_a_record, values))
        clauses.append(clause if possible else "0")
        arguments += values if possible else ()
    return " AND ".join(clauses), arguments


def records(connection: sqlite3.Connection, query: Query, limit: int) -> list[AgentMetrics]:
    """At most `limit` records, newest first."""
    condition, arguments = where(query)
    sql = f"{schema.SELECT} WHERE {condition} ORDER BY timestamp DESC, rowid DESC LIMIT ?"
    return [schema.record_of(row) for row in connection.execute(sql, (*arguments, limit))]


def summary(connection: sqlite3.Connection, query: Query) -> MetricsSummary:
    """One view over all rows of a query."""
    return _summaries(connection, Rows(query)).get(1, MetricsSummary())


def breakdown(connection: sqlite3.Connection, query: Query, by: str, limit: int) -> dict[str, MetricsSummary]:
    """One view per value of a column or tag, for the `limit` values with the most calls."""
    if by.startswith("tag:"):
        if not may_be_in_a_record(by):
            return {}
        rows = Rows(query, "(SELECT value FROM json_each(tags) WHERE key = ?)", (by[4:],))
    else:
        rows = Rows(query, by)
    # One more than asked tells whether there are others, which the next questions need to leave out.
    order = "GROUP BY k ORDER BY 2 DESC, k LIMIT ?"
    most = [k for k, _ in rows.select(connection, "k, count(*)", order, min(limit, MAX_INT - 1) + 1)]
    if len(most) > limit:
        del most[limit:]
        rows.only(most)
    found = _summaries(connection, rows)
    return {k: found[k] for k in most}


def series(connection: sqlite3.Connection, query: Query, step: float) -> list[SeriesPoint]:
    """One view per `step` seconds that has calls, oldest first."""
    rows = Rows(query, f"CAST(min(timestamp / ?, {float(MAX_INT)!r}) AS INTEGER)", (step,))
    check_points(len(rows.select(connection, "DISTINCT k", "LIMIT ?", MAX_POINTS + 1)), step)
    found = _summaries(connection, rows)
    return [SeriesPoint(timestamp=number * step, step=step, summary=found[number]) for number in sorted(found)]


def percentile(connection: sqlite3.Connection, query: Query, metric: str, p: float) -> float:
    """The `p`-th percentile (0..100) of a metric; 0.0 where no row has it."""
    rows, column = Rows(query), _METRICS[metric]
    ((count,),) = rows.select(connection, f"count({column})")
    return float(_percentiles(connection, rows, column, {1: count}, (p,))[1][0]) if count else 0.0


def _percentiles(
    connection: sqlite3.Connection, rows: Rows, column: str, counts: dict[Any, int], wanted: tuple[float, ...]
) -> dict[Any, list[float]]:
    """The wanted percentiles of each group that has so many values."""
    places = {k: [ranks(count, p) for p in wanted] for k, count in counts.items() if count}
    at = rows.at_ranks(
        connection, column, [(k, rank) for k, found in places.items() for place in found for rank in place[:2]]
    )
    return {
        k: [interpolate(at[k, low], at[k, high], share) for low, high, share in found] for k, found in places.items()
    }


def _summaries(connection: sqlite3.Connection, rows: Rows) -> dict[Any, MetricsSummary]:
    """One view per group."""
    parts: dict[Any, list[_Row]] = {}
    columns = f"k, provider, model, CASE WHEN {FAILED} THEN error_class END AS error, {_SUMS}"
    for k, *part in rows.select(connection, columns, "GROUP BY k, provider, model, error"):
        parts.setdefault(k, []).append(tuple(part))
    latencies = _percentiles(
        connection, rows, "latency_ms", {k: sum(part[3] for part in found) for k, found in parts.items()}, PERCENTILES
    )
    firsts = _percentiles(
        connection,
        rows,
        "time_to_first_token_ms",
        {k: sum(part[6] for part in found) for k, found in parts.items()},
        PERCENTILES,
    )
    return {k: _merged(found, latencies[k], firsts.get(k)) for k, found in parts.items()}


def _merged(parts: list[_Row], latencies: list[float], firsts: list[float] | None) -> MetricsSummary:
    """One view from the sums of each provider, model and error class."""
    counts, failed, latency, streams, first, priced, cost, cost_rest, *halves = list(zip(*parts, strict=True))[3:]
    return view(
        count=sum(counts),
        failed=int(sum(failed)),
        latency=total(latency),
        latencies=latencies,
        streams=sum(streams),
        first=total(first),
        firsts=firsts or (),
        priced=sum(priced),
        cost=total(part / 1048576 for part in (*cost, *cost_rest)),
        whole={
            name: (sum(upper) << 32) + sum(lower)
            for name, upper, lower in zip(WHOLE, halves[::2], halves[1::2], strict=True)
        },
        **tally(part[:4] for part in parts),
    )
