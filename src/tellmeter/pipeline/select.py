"""Which records are kept: filters, then sampling. Counters have seen every call before."""

from __future__ import annotations

import zlib
from collections.abc import Callable

from msgspec.structs import force_setattr

from ..config import MetricsConfig, MetricsFilter
from ..guard import note
from ..records import AgentMetrics

Test = Callable[[AgentMetrics], object]


class Selection:
    """The filters and sampling rates of one configuration."""

    def __init__(self, config: MetricsConfig) -> None:
        self._tests: list[Test] = [
            one.should_collect if isinstance(one, MetricsFilter) else one for one in config.filters
        ]
        self._request = config.request_sampling_rate
        self._stream = config.streaming_sampling_rate
        self._error = config.error_sampling_rate
        self.everything = not self._tests and self._request == self._stream == self._error == 1.0

    def reason_to_drop(self, record: AgentMetrics) -> str | None:
        """`filtered`, `sampled_out`, or None for a record to keep; sets its `sample_rate`."""
        for test in self._tests:
            try:
                if not test(record):
                    return "filtered"
            except BaseException as error:  # a broken filter keeps the record: losing data silently is the worse fault
                note("filter", error)
        streamed = record.stream is not None or record.method == "stream"
        rate = self._error if record.failed else self._stream if streamed else self._request
        if rate >= 1.0:
            return None
        if draw(record.id) >= rate:
            return "sampled_out"
        force_setattr(record, "sample_rate", rate)  # nobody else has the record yet
        return None


def draw(record_id: str) -> float:
    """A number in [0, 1) that depends on the id only, so that every process decides the same way about one call."""
    try:
        digits = int(record_id[-8:], 16)  # the random end of a UUIDv7
    except ValueError:
        digits = zlib.crc32(record_id.encode("utf-8", "replace"))
    return digits / 0x1_0000_0000
