"""Records in a SQLite file."""

from .sink import SQLiteMetricsSink

__all__ = ["SQLiteMetricsSink"]
