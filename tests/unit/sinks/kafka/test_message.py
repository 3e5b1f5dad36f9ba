from __future__ import annotations

import json

import msgspec
from hypothesis import given

from tellmeter.records import AgentMetrics, StreamMetrics
from tellmeter.sinks.kafka.message import HEADERS, SCHEMA_VERSION, key, schema, value
from tests.unit.sinks import made
from tests.unit.sinks.made import record

SCHEMA = schema()
_TYPES = {"string": str, "integer": int, "number": (int, float), "boolean": bool, "array": list, "object": dict}


def check(found, part):
    """The part of JSON Schema that ours needs."""
    if "$ref" in part:
        part = SCHEMA["$defs"][part["$ref"].rpartition("/")[2]]
    if "anyOf" in part:
        right = []
        for one in part["anyOf"]:
            try:
                check(found, one)
                right.append(one)
            except AssertionError:
                pass
        assert right, (found, part)
        return
    if "const" in part:
        assert found == part["const"]
    if part.get("type") == "null":
        assert found is None
    elif "type" in part:
        assert isinstance(found, _TYPES[part["type"]]), (found, part)
        assert isinstance(found, bool) == (part["type"] == "boolean")
    if part.get("type") == "object" and "properties" in part:
        assert set(part.get("required", ())) <= found.keys() <= part["properties"].keys()
        for name, one in found.items():
            check(one, part["properties"][name])
    if part.get("type") == "array" and "items" in part:
        for one in found:
            check(one, part["items"])


@given(made.records)
def test_any_record_comes_back_and_is_as_the_schema_says(one):
    text = value(one)
    assert msgspec.json.decode(text, type=AgentMetrics) == one
    found = json.loads(text)
    assert found["schema_version"] == SCHEMA_VERSION
    check(found, SCHEMA)
    assert key(one) == one.id.encode()


def test_an_ordinary_message():
    found = json.loads(value(record(input_tokens=3, stream=StreamMetrics(status="completed"))))
    assert (found["model"], found["input_tokens"], found["retries"]) == ("gpt-4o", 3, 0)
    assert found["stream"]["status"] == "completed"
    assert "cost_usd" not in found
    assert dict(HEADERS) == {"content-type": b"application/json", "schema": b"tellmeter.call/1"}


def test_the_schema_has_every_field():
    assert SCHEMA["properties"].keys() == {*AgentMetrics.__struct_fields__, "schema_version"}
    assert SCHEMA["$defs"]["StreamMetrics"]["properties"].keys() == set(StreamMetrics.__struct_fields__)
    assert "id" in SCHEMA["required"]
    assert "cost_usd" not in SCHEMA["required"]
