"""The ClickHouse store's tables: their statements for one node and for a cluster, and their versions."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field

from ...errors import SchemaTooNew, StoreError
from ...guard import note
from .client import Client
from .errors import Failure
from .rows import COLUMNS

# Sorted by time, so that a window reads what lies in it and nothing else; with the id in the key, rows that came twice
# are one. `timestamp` is for people and their tools; what lies beyond 2299, which DateTime64 does not know, is its end.
# Partitions by day where days are thrown away whole, else by month. The window of deduplication is for batches whose
# answer was lost: they make no part at all.
_TABLE = (
    "CREATE TABLE IF NOT EXISTS {local}{on_cluster} (\n    "
    + ",\n    ".join(f"{name} {kind}" for name, kind in COLUMNS.items())
    + """
) ENGINE = {replacing}
PARTITION BY {partition}(timestamp)
PRIMARY KEY unix_seconds
ORDER BY (unix_seconds, id)
{ttl}SETTINGS non_replicated_deduplication_window = 1000, ttl_only_drop_parts = {only_drop_parts}
COMMENT 'tellmeter schema 0: not ready yet'"""
)
# An approximation for long ranges: rows are counted as they come in, also those that come twice, which `distinct_calls`
# tells. No question of ours reads it.
_MINUTES = """
CREATE TABLE IF NOT EXISTS {minutes_local}{on_cluster} (
    minute DateTime('UTC'),
    provider LowCardinality(String),
    model LowCardinality(String),
    status LowCardinality(String),
    calls SimpleAggregateFunction(sum, UInt64),
    distinct_calls AggregateFunction(uniqCombined64, String),
    input_tokens SimpleAggregateFunction(sum, Int64),
    output_tokens SimpleAggregateFunction(sum, Int64),
    cost_usd SimpleAggregateFunction(sum, Float64),
    latency_ms AggregateFunction(quantilesTDigest(0.5, 0.95, 0.99), Float64),
    time_to_first_token_ms AggregateFunction(quantilesTDigest(0.5, 0.95, 0.99), Nullable(Float64))
) ENGINE = {aggregating}
PARTITION BY toYYYYMM(minute)
ORDER BY (minute, provider, model, status)
{ttl_minutes}SETTINGS non_replicated_deduplication_window = 1000
COMMENT 'tellmeter: calls per minute, an approximation'"""
_TO_MINUTES = """
CREATE MATERIALIZED VIEW IF NOT EXISTS {to_minutes}{on_cluster} TO {minutes_local} AS
SELECT
    toStartOfMinute(toDateTime(least(unix_seconds, 4294967295.), 'UTC')) AS minute,
    provider,
    model,
    status,
    count() AS calls,
    uniqCombined64State(id) AS distinct_calls,
    sum(r.input_tokens) AS input_tokens,
    sum(r.output_tokens) AS output_tokens,
    sum(ifNull(r.cost_usd, 0)) AS cost_usd,
    quantilesTDigestState(0.5, 0.95, 0.99)(r.latency_ms) AS latency_ms,
    quantilesTDigestState(0.5, 0.95, 0.99)(r.time_to_first_token_ms) AS time_to_first_token_ms
FROM {local} AS r
GROUP BY minute, provider, model, status"""
_DISTRIBUTED = (
    """
CREATE TABLE IF NOT EXISTS {minutes}{on_cluster} AS {minutes_local}
ENGINE = Distributed('{cluster}', '{database}', '{minutes_local_name}')
COMMENT 'tellmeter: all shards'""",
    # By the id, so that rows that come twice meet on one shard, where they become one.
    """
CREATE TABLE IF NOT EXISTS {name}{on_cluster} AS {local}
ENGINE = Distributed('{cluster}', '{database}', '{local_name}', cityHash64(id))
COMMENT 'tellmeter: all shards'""",
)
# The statements that lead from each version to the next one; each may run again, for several processes may be at it.
# What was released is never changed, only added to. The second part is for clusters only.
MIGRATIONS: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (((_TABLE, _MINUTES, _TO_MINUTES), _DISTRIBUTED),)

_COMMENT = "tellmeter schema {version}: one row per LLM call"
_VERSION = re.compile(r"tellmeter schema (\d{1,9})\b")
_TTL = re.compile(r"least\(unix_seconds \+ (\d+)")
_STATE = """
SELECT name, comment, engine_full FROM system.tables
WHERE database = {d:String} AND name IN ({t:String}, {l:String})"""
_BY_DAY_UP_TO = 93  # days of retention
_DDL_SECONDS = 8  # how long all nodes of a cluster may take


@dataclass(frozen=True, kw_only=True)
class Tables:
    """The names of a store, all checked, and what its tables are made with."""

    database: str
    table: str
    cluster: str | None = None
    retention_days: float | None = None
    name: str = field(init=False)
    local_name: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", f"`{self.database}`.`{self.table}`")
        object.__setattr__(self, "local_name", self.table if self.cluster is None else f"{self.table}_local")

    @property
    def retention_seconds(self) -> int | None:
        """Whole seconds, one at least."""
        return None if self.retention_days is None else max(1, round(self.retention_days * 86_400))

    def statements(self, version: int) -> list[str]:
        """What leads from a version to the newest one."""
        return [
            statement.format(**self._words()).strip()
            for everywhere, on_clusters in MIGRATIONS[version:]
            for statement in (*everywhere, *(on_clusters if self.cluster is not None else ()))
        ] + [self.comment()]

    def comment(self) -> str:
        """The statement that says that the tables have the newest version."""
        words = self._words()
        told = _COMMENT.format(version=len(MIGRATIONS))
        return f"ALTER TABLE {words['local']}{words['on_cluster']} MODIFY COMMENT '{told}'"

    def retention(self) -> list[str]:
        """The statements that change how long rows are kept."""
        words = self._words()
        return [
            f"ALTER TABLE {words['local']}{words['on_cluster']} MODIFY {words['ttl'].strip()}",
            f"ALTER TABLE {words['minutes_local']}{words['on_cluster']} MODIFY {words['ttl_minutes'].strip()}",
        ]

    def _words(self) -> dict[str, str]:
        database, local, seconds = self.database, self.local_name, self.retention_seconds
        minutes = f"{self.table}_minutes"
        minutes_local = minutes if self.cluster is None else f"{minutes}_local"
        by_day = self.retention_days is not None and self.retention_days <= _BY_DAY_UP_TO
        replicated = "'/clickhouse/tables/{uuid}/{shard}', '{replica}'"
        ttl = "TTL toDateTime(least({} + {}, 4294967295.))\n"
        return {
            "database": database,
            "name": self.name,
            "local": f"`{database}`.`{local}`",
            "local_name": local,
            "minutes": f"`{database}`.`{minutes}`",
            "minutes_local": f"`{database}`.`{minutes_local}`",
            "minutes_local_name": minutes_local,
            "to_minutes": f"`{database}`.`{self.table}_to_minutes`",
            "cluster": self.cluster or "",
            "on_cluster": "" if self.cluster is None else f" ON CLUSTER '{self.cluster}'",
            "replacing": "ReplacingMergeTree(precedence)"
            if self.cluster is None
            else f"ReplicatedReplacingMergeTree({replicated}, precedence)",
            "aggregating": "AggregatingMergeTree"
            if self.cluster is None
            else f"ReplicatedAggregatingMergeTree({replicated})",
            "partition": "toYYYYMMDD" if by_day else "toYYYYMM",
            "only_drop_parts": str(int(by_day)),
            "ttl": "" if seconds is None else ttl.format("unix_seconds", seconds),
            "ttl_minutes": "" if seconds is None else ttl.format("toFloat64(toUnixTimestamp(minute))", seconds),
        }


def prepare(client: Client, where: str, tables: Tables, deadline: float, *, create: bool) -> None:
    """Bring the tables to the newest version; `create`: make them where they are missing.

    Raises:
        SchemaTooNew: a newer tellmeter made them.
        StoreError: they are missing, or another program's.
        Failure: anything else.
    """
    found = _state(client, where, tables, deadline)
    version, kept = found or (0, None)
    if found is None and not create:
        raise StoreError(f"{where}: there is no such table; it is made when the first call is recorded")
    if version < len(MIGRATIONS):
        for statement in tables.statements(version):
            _change(client, tables, statement, deadline)
        # Made by another program in the meantime, or with another retention.
        version, kept = _state(client, where, tables, deadline) or (0, None)
    if tables.retention_seconds not in (None, kept) and create:
        try:
            for statement in tables.retention():
                _change(client, tables, statement, deadline)
        except Failure as error:  # only their owner may: what is recorded is written all the same
            note("clickhouse retention", error)


def _change(client: Client, tables: Tables, statement: str, deadline: float) -> None:
    patience = max(1, min(_DDL_SECONDS, int(deadline - time.monotonic())))
    settings = {} if tables.cluster is None else {"distributed_ddl_task_timeout": str(patience)}
    client.run(statement, deadline, settings=settings)


def _state(client: Client, where: str, tables: Tables, deadline: float) -> tuple[int, int | None] | None:
    """The version of the tables, and for how many seconds their rows are kept; None where there are none."""
    values = {"d": tables.database, "t": tables.table, "l": tables.local_name}
    found = {name: told for name, *told in client.rows(_STATE, deadline, tuple[str, str, str], values=values)}
    if any(not comment.startswith("tellmeter") for comment, _ in found.values()):
        raise StoreError(
            f"{where}: there is a table of that name that tellmeter did not make; name another one, as ?table=llm_calls"
        )
    if tables.local_name not in found or tables.table not in found:
        return None
    comment, engine = found[tables.local_name]
    version = int(known[1]) if (known := _VERSION.match(comment)) else 0
    if version > len(MIGRATIONS):
        raise SchemaTooNew(
            f"{where}: it was made by a newer tellmeter (version {version} of the table, this one knows "
            f"{len(MIGRATIONS)}); upgrade tellmeter, or name another table"
        )
    ttl = _TTL.search(engine)
    return version, int(ttl[1]) if ttl else None
