"""What CloudWatch takes, by AWS's documents.

PutMetricData: docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_PutMetricData.html, API_MetricDatum.html and
API_Dimension.html. EMF: docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/ and there
CloudWatch_Embedded_Metric_Format_Specification.html.
"""

from __future__ import annotations

import re

from ...errors import ConfigError

REQUEST_BYTES = 1_000_000
"""Of one PutMetricData request ("1 MB"); ours keep to it before they are packed."""
REQUEST_DATA = 1000
DATUM_VALUES = 150
"""Different values of one datum, each with its count."""
DIMENSIONS = 30
NAME_LENGTH = 255
"""Of a namespace, a metric's and a dimension's name."""
VALUE_LENGTH = 1024
"""Of a dimension's value."""
LARGEST_VALUE = 2.0**360
SMALLEST_VALUE = 2.0**-360
"""Closer to zero counts as zero: earlier documents name it as a bound, and it is 4e-109."""
OLDEST_SECONDS = 14 * 86_400.0
NEWEST_SECONDS = 2 * 3600.0
MARGIN_SECONDS = 60.0
"""For the way, and for clocks that differ."""

EMF_EVENT_BYTES = 1024 * 1024 - 26
"""Of one event of CloudWatch Logs: 1 MiB with its 26 bytes of overhead (API_PutLogEvents.html)."""
EMF_DIMENSION_LENGTH = 250
"""Of a dimension's name in the schema of the specification."""
UDP_BYTES = 65_507
"""The largest UDP datagram over IPv4."""

_NAME = re.compile(r"(?!:)(?=.*[!-~])[ -~]+")


def check_namespace(namespace: object) -> str:
    """A namespace that a program may write to.

    Raises:
        ConfigError: one that CloudWatch refuses.
    """
    if (
        not isinstance(namespace, str)
        or not re.fullmatch(r"[A-Za-z0-9.\-_/#:][ A-Za-z0-9.\-_/#:]*", namespace)
        or len(namespace) > NAME_LENGTH
        or namespace.startswith((":", "AWS/"))
    ):
        raise ConfigError(
            f"namespace = {str(namespace)[:40]!r}: letters, digits and .-_/#: up to 255, not beginning with AWS/ or :"
        )
    return namespace


def check_dimension_name(name: object) -> str:
    """A name that a dimension can have.

    Raises:
        ConfigError: one that CloudWatch refuses.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name) or len(name) > EMF_DIMENSION_LENGTH:
        raise ConfigError(
            f"dimensions: {str(name)[:40]!r} is no name of a dimension: printable ASCII up to 250, not beginning with :"
        )
    return name


def refused_time(timestamp: float, now: float) -> str | None:
    """Why CloudWatch does not take a time, or None; both in Unix seconds."""
    if timestamp < now - OLDEST_SECONDS + MARGIN_SECONDS:
        return "too_old"
    return "in_future" if timestamp > now + NEWEST_SECONDS - MARGIN_SECONDS else None
