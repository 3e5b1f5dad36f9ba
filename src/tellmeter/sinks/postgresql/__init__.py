"""Records in PostgreSQL."""

from .sink import PostgreSQLMetricsSink

__all__ = ["PostgreSQLMetricsSink"]
