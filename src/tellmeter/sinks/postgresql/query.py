"""The questions of a store as PostgreSQL's SQL: the server works, and few rows come back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Context, Decimal
from functools import reduce
from typing import TYPE_CHECKING, Any

from ...cleaning import MAX_INT
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
    may_be_in_a_record,
    ranks,
    tally,
    view,
)
from . import schema

if TYPE_CHECKING:
    from .connection import TimedConnection

# Two of the largest whole numbers do not add up in 64 bits.
_METRICS = {
    "latency_ms": "latency_ms",
    "ttft_ms": "time_to_first_token_ms",
    "tokens": "input_tokens::numeric + output_tokens",
    "input_tokens": "input_tokens",
    "output_tokens": "output_tokens",
    "cost_usd": "cost_usd",
}
# Floats lose digits when they are added up one by one, and two of the largest are an error. Decimals do neither; by way
# of text, for the cast from float to numeric keeps 15 digits only.
_SUMS = f"""
    count(*), count(*) FILTER (WHERE {FAILED}), sum(latency_ms::text::numeric),
    count(time_to_first_token_ms), coalesce(sum(time_to_first_token_ms::text::numeric), 0),
    count(cost_usd), coalesce(sum(cost_usd), 0),
    {", ".join(f"sum({name})" for name in WHOLE)}
"""
# From the largest float to the smallest there are about 640 digits, and as many as it takes to add up 2**63 of them.
_EXACT = Context(prec=1200)

_Row = tuple[Any, ...]


class Rows:
    """The rows that a question is about, each with the key `k` of its group; all in one group without a key."""

    def __init__(
        self, connection: TimedConnection, table: str, query: Query, key: str = "''", arguments: Sequence[object] = ()
    ) -> None:
        condition, values = where(query)
        self._connection = connection
        self._with = f"WITH keyed AS (SELECT {key} AS k, * FROM {table} WHERE {condition})"  # noqa: S608
        self._condition = "k IS NOT NULL"
        self._arguments: tuple[object, ...] = (*arguments, *values)
        self._only: tuple[object, ...] = ()

    def only(self, keys: Iterable[str]) -> None:
        """Leave out the groups with other keys."""
        self._condition, self._only = "k = ANY(%s)", (list(keys),)

    def select(self, columns: str, then: str = "", *arguments: object) -> list[_Row]:
        """`SELECT columns FROM the rows then`. Arguments are those of `then`."""
        sql = f"{self._with} SELECT {columns} FROM keyed WHERE {self._condition} {then}"  # noqa: S608
        return self._connection.execute(sql, (*self._arguments, *self._only, *arguments)).fetchall()

    def at_ranks(self, column: str, wanted: dict[str, tuple[int, list[int]]]) -> dict[str, list[Any]]:
        """Group -> the values at those ranks of its sorted values, given how many there are: `{k: (count, ranks)}`.

        The value at a rank is the first one at or above a fraction in the middle of it, whatever the last digits are.
        """
        fractions = [[(rank + 0.5) / count for rank in found] for count, found in wanted.values()]
        columns = [list(column) for column in zip(*fractions, strict=True)]
        names = [f"f{number}" for number in range(len(columns))]
        sql = f"""
            {self._with}, wanted AS (
                SELECT * FROM unnest(%s::text[], {", ".join(["%s::float8[]"] * len(columns))}) AS w (k, {", ".join(names)})
            )
            SELECT k, percentile_disc(ARRAY[{", ".join(names)}]) WITHIN GROUP (ORDER BY {column})
            FROM keyed JOIN wanted USING (k) GROUP BY k, {", ".join(names)}
        """  # noqa: E501, S608
        return dict(self._connection.execute(sql, (*self._arguments, list(wanted), *columns)).fetchall())


def where(query: Query) -> tuple[str, list[object]]:
    """The condition of a query and its arguments."""
    clauses, arguments = ["true"], list[object]()
    given = {
        "unix_seconds >= %s::float8": query.start_time,
        "unix_seconds < %s::float8": query.end_time,
        "provider = %s": query.provider,
        "model = %s": query.model,
        "request_id = %s": query.request_id,
        "status = %s": query.status,
    }
    pairs: list[tuple[str, tuple[Any, ...]]] = [(sql, (value,)) for sql, value in given.items() if value is not None]
    pairs += [("tags ->> %s::text = %s", pair) for pair in query.tags.items()]
    for clause, values in pairs:
        possible = all(map(may_be_in_a_record, values))
        clauses.append(clause if possible else "false")
        arguments += values if possible else ()
    return " AND ".join(clauses), arguments


def records(connection: TimedConnection, table: str, query: Query, limit: int) -> list[AgentMetrics]:
    """At most `limit` records, newest first."""
    condition, arguments = where(query)
    sql = f"{schema.select(table)} WHERE {condition} ORDER BY unix_seconds DESC, arrival DESC LIMIT %s"
    return [schema.record_of(row) for row in connection.execute(sql, (*arguments, limit)).fetchall()]


def summary(connection: TimedConnection, table: str, query: Query) -> MetricsSummary:
    """One view over all rows of a query."""
    return _summaries(Rows(connection, table, query)).get("", MetricsSummary())


def breakdown(connection: TimedConnection, table: str, query: Query, by: str, limit: int) -> dict[str, MetricsSummary]:
    """One view per value of a column or tag, for the `limit` values with the most calls."""
    if by.startswith("tag:"):
        if not may_be_in_a_record(by):
            return {}
        rows = Rows(connection, table, query, "tags ->> %s::text", (by[4:],))
    else:
        rows = Rows(connection, table, query, by)
    # One more than asked tells whether there are others, which the next questions need to leave out.
    order = 'GROUP BY k ORDER BY 2 DESC, k COLLATE "C" LIMIT %s'
    most = [k for k, _ in rows.select("k, count(*)", order, min(limit, MAX_INT - 1) + 1)]
    if len(most) > limit:
        del most[limit:]
        rows.only(most)
    found = _summaries(rows)
    return {k: found[k] for k in most}


def series(connection: TimedConnection, table: str, query: Query, step: float) -> list[SeriesPoint]:
    """One view per `step` seconds that has calls, oldest first."""
    # Not simply divided: what overflows a float, or underflows it, is an error in PostgreSQL.
    key = f"""
        (CASE WHEN unix_seconds < %s::float8 THEN 0 WHEN unix_seconds >= %s::float8 THEN {float(MAX_INT)!r}::float8
        ELSE floor(unix_seconds / %s::float8) END)::text
    """
    rows = Rows(connection, table, query, key, (step, step * float(MAX_INT), step))
    check_points(len(rows.select("DISTINCT k", "LIMIT %s", MAX_POINTS + 1)), step)
    found = {int(float(k)): one for k, one in _summaries(rows).items()}
    return [SeriesPoint(timestamp=number * step, step=step, summary=found[number]) for number in sorted(found)]


def percentile(connection: TimedConnection, table: str, query: Query, metric: str, p: float) -> float:
    """The `p`-th percentile (0..100) of a metric; 0.0 where no row has it."""
    rows, column = Rows(connection, table, query), _METRICS[metric]
    ((count,),) = rows.select(f"count({column})")
    return float(_percentiles(rows, column, {"": count}, (p,))[""][0]) if count else 0.0


def _percentiles(rows: Rows, column: str, counts: dict[str, int], wanted: tuple[float, ...]) -> dict[str, list[float]]:
    """The wanted percentiles of each group that has so many values."""
    places = {k: [ranks(count, p) for p in wanted] for k, count in counts.items() if count}
    if not places:
        return {}
    asked = {k: (counts[k], [rank for place in found for rank in place[:2]]) for k, found in places.items()}
    kind = float if column.endswith(("_ms", "_usd")) else int
    values = {k: [kind(value) for value in found] for k, found in rows.at_ranks(column, asked).items()}
    return {
        k: [
            interpolate(low, high, share)
            for low, high, (_, _, share) in zip(values[k][::2], values[k][1::2], found, strict=True)
        ]
        for k, found in places.items()
    }


def _summaries(rows: Rows) -> dict[str, MetricsSummary]:
    """One view per group."""
    parts: dict[str, list[_Row]] = {}
    columns = f"k, provider, model, CASE WHEN {FAILED} THEN error_class END AS error, {_SUMS}"
    for k, *part in rows.select(columns, "GROUP BY k, provider, model, error"):
        parts.setdefault(k, []).append(tuple(part))
    latencies, firsts = (
        _percentiles(rows, column, {k: sum(part[place] for part in found) for k, found in parts.items()}, PERCENTILES)
        for column, place in (("latency_ms", 3), ("time_to_first_token_ms", 6))
    )
    return {k: _merged(found, latencies[k], firsts.get(k)) for k, found in parts.items()}


def _merged(parts: list[_Row], latencies: list[float], firsts: list[float] | None) -> MetricsSummary:
    """One view from the sums of each provider, model and error class."""
    counts, failed, latency, streams, first, priced, cost, *sums = list(zip(*parts, strict=True))[3:]
    return view(
        count=sum(counts),
        failed=sum(failed),
        latency=_total(latency),
        latencies=latencies,
        streams=sum(streams),
        first=_total(first),
        firsts=firsts or (),
        priced=sum(priced),
        cost=_total(cost),
        whole={name: sum(map(int, values)) for name, values in zip(WHOLE, sums, strict=True)},
        **tally(part[:4] for part in parts),
    )


def _total(values: Iterable[Decimal]) -> float:
    """The exact sum, rounded once; the largest float where it is larger than that."""
    return min(float(reduce(_EXACT.add, values)), MAX_FLOAT)
