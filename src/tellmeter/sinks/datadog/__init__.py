"""Datadog: records as metrics, to its API (`DatadogMetricsSink`) or to an Agent beside (`DogStatsDMetricsSink`)."""

from .dogstatsd import DogStatsDMetricsSink
from .sink import DatadogMetricsSink

__all__ = ["DatadogMetricsSink", "DogStatsDMetricsSink"]
