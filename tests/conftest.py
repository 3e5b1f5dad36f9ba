from __future__ import annotations

import functools
import os
import sys
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tellmeter.collector import MetricsCollector
from tellmeter.pipeline.thread_lane import ThreadLane

pytest_plugins = ["pytester"]  # for the tests of tellmeter's own plugin

# A busy machine is no fault of the code: no test asserts a time. CI runs the same examples every time; everybody else
# tries new ones.
settings.register_profile(
    "tellmeter",
    deadline=None,
    derandomize=bool(os.environ.get("CI")),
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("tellmeter")


@pytest.fixture(autouse=True)
def ledgers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """At the end of every test the account of each collector that is still there, and of each lane, adds up."""
    lanes: list[ThreadLane] = []
    collectors: weakref.WeakSet[MetricsCollector] = weakref.WeakSet()
    make_lane, make_collector = ThreadLane.__init__, MetricsCollector.__init__

    def noted_lane(self: ThreadLane, *arguments: Any, **options: Any) -> None:
        make_lane(self, *arguments, **options)
        lanes.append(self)

    @functools.wraps(make_collector)
    def noted_collector(self: MetricsCollector, *arguments: Any, **options: Any) -> None:
        make_collector(self, *arguments, **options)
        collectors.add(self)

    monkeypatch.setattr(ThreadLane, "__init__", noted_lane)
    monkeypatch.setattr(MetricsCollector, "__init__", noted_collector)
    yield
    for one in (*lanes, *collectors):
        assert one.stats().balanced, one.stats()


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print what the tests have found out that is no matter of right and wrong."""
    _print_replayed(terminalreporter)
    _print_totals(terminalreporter)


def _print_replayed(terminalreporter: Any) -> None:
    """How many recorded exchanges went through the SDKs, per provider and API."""
    module = sys.modules.get("tests.exchanges.test_sdk_replay")
    table = getattr(module, "TABLE", None)
    if not table:
        return
    terminalreporter.section("recorded exchanges replayed through the real SDKs (sync + async)")
    for (provider, api, kind), number in sorted(table.items()):
        terminalreporter.write_line(f"{provider:16} {api:22} {kind:7} {number:5}")
    terminalreporter.write_line(f"{'all':16} {'':22} {'':7} {sum(table.values()):5}")


def _print_totals(terminalreporter: Any) -> None:
    """What each backend has after one replay of the recorded exchanges."""
    table = getattr(sys.modules.get("tests.real.test_totals"), "TABLE", None)
    if not table:
        return
    terminalreporter.section("totals in every backend after one replay of the recorded exchanges")
    terminalreporter.write_line(f"{'':30} {'calls':>7} {'tokens':>10} {'US dollars':>14} {'errors':>7}")
    for name, row in table.items():
        told = (
            row if isinstance(row, str) else "{calls:7.0f} {tokens:10.0f} {dollars:14.9f} {errors:7.0f}".format(**row)
        )
        terminalreporter.write_line(f"{name:30} {told}")
