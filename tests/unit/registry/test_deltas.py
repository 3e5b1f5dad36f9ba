import pytest
from hypothesis import given
from hypothesis import strategies as st

from tellmeter import MetricsRegistry
from tellmeter.registry.deltas import Deltas


@pytest.fixture
def deltas():
    return Deltas(MetricsRegistry())


@given(st.lists(st.integers(0, 50)))
def test_growth_adds_up_to_what_was_shown_last_plus_what_began_again(steps):
    deltas = Deltas(MetricsRegistry())
    total, now = 0, 0
    for step in steps:
        now += step
        total += sum(number for _, number in deltas.grown("n", {("a",): now}))
    assert total == now


def test_a_lower_number_began_again_at_zero(deltas):
    assert list(deltas.grown("n", {("a",): 10})) == [(("a",), 10)]
    assert list(deltas.grown("n", {("a",): 3})) == [(("a",), 3)]


def test_a_child_that_began_again_counts_all_of_its_own(deltas):
    list(deltas.grown("n", {("a",): 10}))
    deltas.begin_again()
    assert list(deltas.grown("n", {("a",): 12})) == [(("a",), 12)]


@given(st.lists(st.dictionaries(st.sampled_from("abc"), st.integers(0, 5))))
def test_what_moved_adds_up_to_what_is_there(steps):
    deltas = Deltas(MetricsRegistry())
    shown: dict[str, int] = {}
    for step in [*steps, {}]:
        for (label,), change in deltas.moved("n", {(label,): number for label, number in step.items()}):
            shown[label] = shown.get(label, 0) + change
        assert {label: number for label, number in shown.items() if number} == {
            label: number for label, number in step.items() if number
        }


def test_after_a_reset_of_the_registry_gauges_are_set_anew():
    registry = MetricsRegistry()
    deltas = Deltas(registry)
    list(deltas.moved("n", {("a",): 4}))
    registry.reset()
    assert list(deltas.moved("n", {("a",): 4})) == [(("a",), 4)]
