from __future__ import annotations

import json

import msgspec
from hypothesis import given

from tellmeter.records import AgentMetrics, StreamMetrics
from tellmeter.sinks.json_record import columns, encode
from tests.unit.sinks.made import record, records


@given(records)
def test_a_record_comes_back(one):
    assert msgspec.json.decode(encode(columns(one)), type=AgentMetrics) == one


def test_zeros_are_written_and_nothing_empty_is():
    fields = json.loads(encode(columns(record(stream=StreamMetrics()))))
    assert (fields["status"], fields["retries"], fields["cached_tokens"], fields["stream"]["stalls"]) == (
        "success",
        0,
        0,
        0,
    )
    assert not {"cost_usd", "tags", "tools_used", "error_class"} & set(fields)
