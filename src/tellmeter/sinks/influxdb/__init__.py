"""InfluxDB 1, 2 and 3, and what takes its line protocol: one point per call."""

from .sink import InfluxDBMetricsSink

__all__ = ["InfluxDBMetricsSink"]
