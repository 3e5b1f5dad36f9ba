from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tellmeter import AgentMetrics, MetricsConfig, MetricsFilter, StreamMetrics, counts
from tellmeter.pipeline.select import Selection, draw
from tellmeter.records import uuid7


class HighValue(MetricsFilter):
    """The setup guide's own filter."""

    def should_collect(self, metric: AgentMetrics) -> bool:
        return metric.total_tokens > 1000 or metric.error_class is not None


def kept(selection: Selection, record: AgentMetrics) -> bool:
    return selection.reason_to_drop(record) is None


def test_the_guides_filter_works_as_written() -> None:
    selection = Selection(MetricsConfig(filters=[HighValue()]))
    assert selection.reason_to_drop(AgentMetrics(model="m")) == "filtered"
    assert kept(selection, AgentMetrics(model="m", input_tokens=2000))
    assert kept(selection, AgentMetrics(model="m", error_class="RateLimitError"))


def test_every_filter_must_agree_and_callables_are_filters() -> None:
    selection = Selection(MetricsConfig(filters=[HighValue(), lambda record: record.model == "m"]))
    assert kept(selection, AgentMetrics(model="m", input_tokens=2000))
    assert not kept(selection, AgentMetrics(model="other", input_tokens=2000))


def test_a_filter_that_raises_keeps_the_record_and_is_counted() -> None:
    before = counts.snapshot().get("guarded_errors", {}).get("filter", 0)

    def broken(record: AgentMetrics) -> bool:
        raise RecursionError

    assert kept(Selection(MetricsConfig(filters=[broken])), AgentMetrics(model="m"))
    assert counts.snapshot()["guarded_errors"]["filter"] == before + 1


def test_a_call_is_drawn_once_by_the_rate_of_its_kind() -> None:
    selection = Selection(
        MetricsConfig(request_sampling_rate=0.0, streaming_sampling_rate=1.0, error_sampling_rate=0.0)
    )
    assert selection.reason_to_drop(AgentMetrics(model="m")) == "sampled_out"
    assert kept(selection, AgentMetrics(model="m", stream=StreamMetrics()))
    assert kept(selection, AgentMetrics(model="m", method="stream"))
    # The error's rate comes before the stream's.
    assert not kept(selection, AgentMetrics(model="m", status="error", stream=StreamMetrics()))


def test_half_means_half_and_the_record_says_so() -> None:
    selection = Selection(MetricsConfig(request_sampling_rate=0.5))
    records = [AgentMetrics(model="m") for _ in range(4000)]
    chosen = [record for record in records if kept(selection, record)]
    assert 1800 < len(chosen) < 2200
    assert {record.sample_rate for record in chosen} == {0.5}


@given(st.one_of(st.builds(uuid7), st.text()))
def test_the_draw_depends_on_the_id_alone(one: str) -> None:
    assert draw(one) == draw(one)
    assert 0 <= draw(one) < 1


@given(st.floats(0, 1), st.floats(0, 1))
def test_a_higher_rate_keeps_what_a_lower_one_kept(first: float, second: float) -> None:
    low, high = sorted((first, second))
    record = AgentMetrics(model="m")
    if kept(Selection(MetricsConfig(request_sampling_rate=low)), record):
        assert kept(Selection(MetricsConfig(request_sampling_rate=high)), record)
