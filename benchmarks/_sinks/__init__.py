"""What each sink delivers beside its vendor's own client: one file a sink, each with `run()`."""

from __future__ import annotations

from typing import NamedTuple


class Row(NamedTuple):
    what: str
    records_per_second: float
    cpu_us_per_record: float
