"""Kafka, and what speaks its protocol: one message per call."""

from .sink import KafkaMetricsSink

__all__ = ["KafkaMetricsSink"]
