"""Records in ClickHouse."""

from .sink import ClickHouseMetricsSink

__all__ = ["ClickHouseMetricsSink"]
