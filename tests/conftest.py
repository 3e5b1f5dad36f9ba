from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tellmeter import collector
from tellmeter.pipeline.thread_lane import ThreadLane

lifecycle_join = collector.lifecycle.join

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
    """At the end of every test the account of each collector and each sink adds up."""
    made: list[Any] = []

    class Noted(ThreadLane):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            made.append(self)

    monkeypatch.setattr(collector, "ThreadLane", Noted)
    monkeypatch.setattr(collector.lifecycle, "join", lambda one: (made.append(one), lifecycle_join(one)))
    yield
    for one in made:
        assert one.stats().balanced, one.stats()


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print how many recorded exchanges went through the SDKs, per provider and API."""
    module = sys.modules.get("tests.exchanges.test_sdk_replay")
    table = getattr(module, "TABLE", None)
    if not table:
        return
    terminalreporter.section("recorded exchanges replayed through the real SDKs (sync + async)")
    for (provider, api, kind), number in sorted(table.items()):
        terminalreporter.write_line(f"{provider:16} {api:22} {kind:7} {number:5}")
    terminalreporter.write_line(f"{'all':16} {'':22} {'':7} {sum(table.values()):5}")
