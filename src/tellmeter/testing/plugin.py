"""The pytest plugin: the fixture `llm_calls`, and the marker `llm_budget`.

pytest imports this file in every run of whoever has tellmeter, so it imports nothing else of tellmeter by itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from .llm_calls import LLMCalls

MARKER = "llm_budget"
FIXTURE = "_tellmeter_calls"
_LIMITS = ("usd", "calls", "tokens")

pytest.register_assert_rewrite("tellmeter.testing.contract")


@pytest.fixture
def _tellmeter_calls() -> Iterator[LLMCalls]:
    # Budgets go by this one: a suite may have an `llm_calls` of its own.
    from .llm_calls import recorded_calls

    with recorded_calls() as calls:
        yield calls


@pytest.fixture
def llm_calls(_tellmeter_calls: LLMCalls) -> LLMCalls:
    """The LLM calls that the test's code makes, as `llm_calls.cost_usd` and `llm_calls.count(model="gpt-4o")`."""
    return _tellmeter_calls


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line(
        "markers",
        f"{MARKER}(usd=None, calls=None, tokens=None): fail the test when its LLM calls exceed a limit: US dollars, "
        "number of calls, input and output tokens together",
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give the fixture to every test with a budget."""
    for item in items:
        names = getattr(item, "fixturenames", None)
        if names is not None and _limits(item) and FIXTURE not in names:
            names.append(FIXTURE)  # the last: what a fixture of the whole session sets up must not end with this test


@pytest.hookimpl(trylast=True)
def pytest_runtest_call(item: pytest.Item) -> None:
    """Runs after the test itself, where that passed: fail it when it spent too much."""
    calls = _calls(item)
    limits = _limits(item)
    if calls is None or not limits:
        return
    exceeded = calls.over_budget(**limits)
    if exceeded:
        pytest.fail(f"over the budget of this test: {', '.join(exceeded)}", pytrace=False)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    """Show the calls beside the output of a test that failed."""
    calls = _calls(item)
    if calls is not None and call.when == "call" and call.excinfo is not None:
        item.add_report_section("call", "llm_calls", str(calls))


def _calls(item: pytest.Item) -> LLMCalls | None:
    found: LLMCalls | None = getattr(item, "funcargs", {}).get(FIXTURE)
    return found


def _limits(item: pytest.Item) -> dict[str, Any]:
    """The limits of a test's markers; the closest one decides."""
    limits: dict[str, Any] = {}
    for marker in item.iter_markers(MARKER):
        if marker.args or not marker.kwargs or not set(marker.kwargs) <= set(_LIMITS):
            raise pytest.UsageError(f"{item.nodeid}: {MARKER} takes {', '.join(f'{name}=' for name in _LIMITS)}")
        limits = {**marker.kwargs, **limits}
    return limits
