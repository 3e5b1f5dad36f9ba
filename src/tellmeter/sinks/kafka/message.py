"""A record as a Kafka message, and the JSON Schema of its value."""

from __future__ import annotations

from typing import Any

import msgspec

from ...records import AgentMetrics
from ..json_record import columns, encode

SCHEMA_VERSION = 1
"""Grows when a consumer of older messages could misread newer ones. New fields alone do not change it."""

HEADERS: list[tuple[str, str | bytes | None]] = [
    ("content-type", b"application/json"),
    ("schema", f"tellmeter.call/{SCHEMA_VERSION}".encode()),
]


def key(record: AgentMetrics) -> bytes:
    """What is the same for the same call, and decides on its partition."""
    return record.id.encode()


def value(record: AgentMetrics) -> bytes:
    """The record as JSON; what is None or empty is not there."""
    return encode({"schema_version": SCHEMA_VERSION, **columns(record)})


def schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of the values."""
    _, parts = msgspec.json.schema_components((AgentMetrics,), ref_template="#/$defs/{name}")
    call, stream = parts.pop("AgentMetrics"), parts["StreamMetrics"]
    for one in (call, stream):
        # Texts of this library's own code; the defaults are not what a missing field means to a consumer.
        one.pop("description", None)
        for field in one["properties"].values():
            field.pop("default", None)
    names = AgentMetrics.__annotations__
    there = [name for name in call["properties"] if "None" not in names[name] and name not in ("tags", "tools_used")]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"tellmeter.call/{SCHEMA_VERSION}",
        "description": "One LLM call, as tellmeter's Kafka sink writes it. Unknown fields are to be ignored.",
        "type": "object",
        "properties": {"schema_version": {"const": SCHEMA_VERSION}, **call["properties"]},
        "required": ["schema_version", *there],
        "$defs": parts,
    }
