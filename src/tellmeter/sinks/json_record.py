"""A record as JSON: what files of lines and HTTP payloads have in common."""

from __future__ import annotations

from typing import Any

import msgspec

from ..records import AgentMetrics

encode = msgspec.json.Encoder().encode


def columns(record: AgentMetrics) -> dict[str, Any]:
    """A record's fields. Zeros and defaults are there, so that every tool sees the same columns; what is empty is not.

    `msgspec.json.decode(encode(columns(record)), type=AgentMetrics)` gives the record back.
    """
    fields = _known(record)
    if not record.tags:
        del fields["tags"]
    if not record.tools_used:
        del fields["tools_used"]
    if record.stream is not None:
        fields["stream"] = _known(record.stream)
    return fields


def _known(facts: msgspec.Struct) -> dict[str, Any]:
    return {name: value for name, value in msgspec.structs.asdict(facts).items() if value is not None}
