"""Which metrics a record becomes."""

from __future__ import annotations

import math
import re
import sys

from hypothesis import given
from hypothesis import strategies as st

from tellmeter.records import StreamMetrics
from tellmeter.sinks.datadog.labels import Labels
from tellmeter.sinks.datadog.schema import METRICS, added_up, facts, in_sums, plus
from tests.support.datadog import NAME
from tests.support.datadog_records import MEASURES, SUMS, expected
from tests.unit.sinks.made import ROOT, record, records

LABELS = Labels([], ["a"], ("", "", ""))


def test_the_names_of_the_guide_are_there_and_all_are_metric_names():
    names = {f"llm.{metric.name}" for metric in METRICS}
    assert names >= {"llm.request.latency", "llm.tokens.input", "llm.tokens.output", "llm.retries"}
    assert len(names) == len(METRICS)
    assert all(NAME.fullmatch(name) for name in names)
    assert {metric.name for metric in METRICS if metric.adds_up} == {*SUMS}
    assert {metric.name for metric in METRICS if not metric.adds_up} == {*MEASURES}


def test_the_documents_table_is_the_one_of_the_code():
    rows = re.findall(
        r"^\| `llm\.([a-z0-9_.]+)` \| (yes|no) \| (\w+) \|", (ROOT / "docs/datadog.md").read_text("utf-8"), re.MULTILINE
    )
    assert rows == [(metric.name, "yes" if metric.adds_up else "no", metric.unit) for metric in METRICS]


@given(st.lists(records, max_size=6))
def test_any_batch_says_what_its_fields_say(batch):
    found: dict = {}
    for one in batch:
        for metric, value in facts(one):
            found.setdefault((f"llm.{metric.name}", frozenset(LABELS.of(one))), []).append(float(value))
    assert found == expected(batch, ["a"])


def test_what_is_zero_is_not_added_and_not_unknown():
    said = {metric.name: value for metric, value in facts(record(cost_usd=0.0, stream=StreamMetrics()))}
    assert said["requests"] == 1
    assert said["request.latency"] == 0.0
    assert said["stream.duration"] == 0.0
    assert not said.keys() & {"cost", "requests.unpriced", "tokens.input", "errors", "stream.ttft", "stream.stalls"}
    assert {metric.name: value for metric, value in facts(record())}["requests.unpriced"] == 1


def test_sums_stay_finite():
    batch = [record(input_tokens=2**63 - 1, retry_delay_ms=1.7e308, latency_ms=1.7e308) for _ in range(3)]
    sums = {metric.name: value for (metric, _), value in added_up(batch, LABELS).items()}
    assert sums["tokens.input"] == 3 * (2**63 - 1)
    assert sums["retries.delay"] == sys.float_info.max
    assert {metric.name: value for (metric, _), value in in_sums(batch, LABELS).items()}["request.latency.sum"] == (
        sys.float_info.max
    )
    assert plus(10**400, 1.0) == sys.float_info.max


@given(st.lists(records, max_size=6))
def test_in_sums_a_measure_is_its_sum_and_how_many_there_were(batch):
    sums = in_sums(batch, LABELS)
    found = {(f"llm.{metric.name}", frozenset(tags)): value for (metric, tags), value in sums.items()}
    for (name, tags), values in expected(batch, ["a"]).items():
        if name.removeprefix("llm.") in MEASURES:
            assert found.pop((f"{name}.count", tags)) == len(values)
            name = f"{name}.sum"
        assert math.isclose(found.pop((name, tags)), min(sum(values), sys.float_info.max), rel_tol=1e-12)
    assert not found
