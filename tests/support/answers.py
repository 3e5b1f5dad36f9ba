"""What every store must answer: what the one in memory does, over the same records."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tellmeter.cleaning import MAX_INT
from tellmeter.errors import ConfigError
from tellmeter.pipeline.outcome import Delivered
from tellmeter.records import MetricsSummary, StreamMetrics
from tellmeter.sinks import query
from tellmeter.sinks.in_memory import InMemoryMetricsSink
from tests.unit.sinks import made
from tests.unit.sinks.made import deadline, record

# More than any fixed list of tags, columns and parameters is prepared for.
SPELLINGS = [
    "a\0b",
    "\ud800",
    "'; DROP TABLE calls; --",
    "%s %(a)s %%",
    "\\",
    "{}",
    '"',
    "null",
    "a\tb",
    "a\\nb",
    "{x:String}",
    "?&=%",
    "x" * 3000,
]


def store_answers(examples: int, **close: float) -> type:
    """A class of tests for one backend: derive from it, give it a fixture `store` and a method `empty(store)`.

    Whole numbers, names, percentiles and order are equal; averages and dollars as `pytest.approx(**close)` has it.
    """
    differential = settings(deadline=None, max_examples=examples)
    rows_of = st.lists(made.records, max_size=25)

    class StoreAnswers:
        def empty(self, store: Any) -> None:
            """Take all records out of the store."""
            raise NotImplementedError

        def same(self, left: MetricsSummary, right: MetricsSummary) -> None:
            for field, ours in msgspec.structs.asdict(left).items():
                theirs = getattr(right, field)
                if theirs is not None and (field.startswith("avg") or field == "total_cost"):
                    assert ours == pytest.approx(theirs, **close), field
                else:
                    assert ours == theirs, field
                    if isinstance(ours, dict):
                        assert list(ours) == list(theirs), field

        def compare(self, store: Any, rows: list[Any], ask: Any) -> tuple[Any, Any]:
            """The answers of both stores to one question."""
            memory = InMemoryMetricsSink(ttl_seconds=None, max_size=100_000)
            for row in rows:
                memory.write(row)
            store.check()
            self.empty(store)
            if rows:
                assert store.send(rows, deadline(60)) == Delivered()

            async def both() -> tuple[Any, Any]:
                return await ask(memory), await ask(store)

            return asyncio.run(both())

        @given(rows=rows_of, filters=made.filters)
        @differential
        def test_summaries_are_those_of_the_store_in_memory(self, store, rows, filters):
            self.same(*self.compare(store, rows, lambda one: one.get_summary(None, **filters)))

        @given(rows=rows_of, filters=made.filters, limit=st.integers(0, 30))
        @differential
        def test_records_come_back_equal_and_in_the_same_order(self, store, rows, filters, limit):
            memory, ours = self.compare(store, rows, lambda one: one.get_metrics(limit=limit, **filters))
            assert ours == memory

        @given(
            rows=rows_of,
            filters=made.filters,
            step=st.one_of(st.sampled_from([1.0, 7.0, 60.0]), st.floats(1e-3, 1e300)),
        )
        @differential
        def test_series_are_those_of_the_store_in_memory(self, store, rows, filters, step):
            memory, ours = self.compare(store, rows, lambda one: one.get_series(step, **filters))
            assert [point.timestamp for point in memory] == [point.timestamp for point in ours]
            assert {point.step for point in ours} <= {step}
            for left, right in zip(memory, ours, strict=True):
                self.same(left.summary, right.summary)

        @given(
            rows=rows_of,
            filters=made.filters,
            by=st.one_of(st.sampled_from(query.BREAKDOWN_FIELDS), made.names.map(lambda name: f"tag:{name}")),
            limit=st.integers(0, 4),
        )
        @differential
        def test_breakdowns_are_those_of_the_store_in_memory(self, store, rows, filters, by, limit):
            memory, ours = self.compare(store, rows, lambda one: one.get_breakdown(by, limit=limit, **filters))
            assert list(memory) == list(ours)
            for key, summary in memory.items():
                self.same(summary, ours[key])

        @given(
            rows=rows_of,
            metric=st.sampled_from(sorted(query.METRICS)),
            p=st.one_of(st.integers(0, 100), st.floats(0, 100)),
            filters=made.filters,
        )
        @differential
        def test_percentiles_are_those_of_the_store_in_memory(self, store, rows, metric, p, filters):
            memory, ours = self.compare(store, rows, lambda one: one.get_percentile(p, metric, None, **filters))
            assert ours == memory
            assert type(ours) is float

        @given(tags=st.dictionaries(st.text(max_size=8), st.text(max_size=8), max_size=4))
        @differential
        def test_tags_of_any_spelling_are_found(self, store, tags):
            row = record(tags=tags)
            rows = [row, record(tags={"other": "x"}), record()]

            async def ask(one):
                found = [(await one.get_metrics(tags={name: value})) for name, value in row.tags.items()]
                return found, [list(await one.get_breakdown(f"tag:{name}")) for name in row.tags if name]

            memory, ours = self.compare(store, rows, ask)
            assert memory == ours

        @pytest.mark.parametrize("text", SPELLINGS)
        def test_filters_of_any_spelling_are_answered(self, store, text):
            filters = [{name: text} for name in ("model", "provider", "request_id")]
            filters += [{"tags": {text: text}}, {"tags": {"f": text}}]
            rows = [record(model=text, provider=text, request_id=text, tags={text: text, "f": text}), record()]
            rows = [row for row in rows if row.model == text] or [record()]

            async def ask(one):
                return [await one.get_metrics(**given) for given in filters], await one.get_breakdown(f"tag:{text}")

            memory, ours = self.compare(store, rows, ask)
            assert memory == ours

        @pytest.mark.parametrize("bound", [math.inf, -math.inf, math.nan, 10**400, 0, -1.5])
        def test_bounds_of_any_size_are_answered(self, store, bound):
            rows = [record(), record(timestamp=1.7e308), record(timestamp=5e-324)]

            async def ask(one):
                return [await one.get_metrics(start_time=bound), await one.get_metrics(end_time=bound)]

            memory, ours = self.compare(store, rows, ask)
            assert memory == ours

        @pytest.mark.parametrize("limit", [0, 1, 2**63 - 1])
        def test_limits_of_any_size_are_answered(self, store, limit):
            rows = [record(1), record(2, model="b")]

            async def ask(one):
                return [await one.get_metrics(limit=limit), list(await one.get_breakdown("model", limit=limit))]

            memory, ours = self.compare(store, rows, ask)
            assert memory == ours

        def test_sums_of_the_largest_whole_numbers_are_exact(self, store):
            rows = [record(input_tokens=MAX_INT, output_tokens=MAX_INT - 1, retries=MAX_INT) for _ in range(5)]
            _, summary = self.compare(store, rows, lambda one: one.get_summary(None))
            assert summary.input_tokens == 5 * MAX_INT
            assert summary.total_tokens == 10 * MAX_INT - 5
            assert summary.retries == 5 * MAX_INT

        def test_sums_of_the_largest_floats_are_finite(self, store):
            stream = StreamMetrics(time_to_first_token_ms=1.7e308)
            rows = [record(latency_ms=1.7e308, cost_usd=1.7e308, stream=found) for found in (stream, stream, None)]
            memory, ours = self.compare(store, rows, lambda one: one.get_summary(None))
            self.same(memory, ours)
            assert all(map(math.isfinite, (ours.total_cost, ours.avg_latency_ms, ours.avg_ttft_ms)))

        def test_dollars_add_up_where_plain_sums_lose_digits(self, store):
            costs = [1e5] + [0.1] * 1000
            exact, plain = math.fsum(costs), 0.0
            for cost in costs:
                plain += cost
            assert abs(plain - exact) > 1e-10
            rows = [record(cost_usd=cost, model=f"m{number % 7}") for number, cost in enumerate(costs)]
            _, summary = self.compare(store, rows, lambda one: one.get_summary(None))
            assert summary.total_cost == pytest.approx(exact, rel=1e-15, abs=0)

        def test_more_points_than_an_answer_holds_are_refused(self, store):
            rows = [record(n) for n in range(query.MAX_POINTS + 1)]
            with pytest.raises(ConfigError, match="more than 20,000 points"):
                self.compare(store, rows, lambda one: one.get_series(1))

    return StoreAnswers
