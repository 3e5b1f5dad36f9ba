"""Numbers in Amazon CloudWatch: by its API, and as lines of its Embedded Metric Format."""

from .emf_sink import EMFMetricsSink
from .sink import CloudWatchMetricsSink

__all__ = ["CloudWatchMetricsSink", "EMFMetricsSink"]
