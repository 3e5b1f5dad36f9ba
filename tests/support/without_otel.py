"""A pytest plugin (`-p tests.support.without_otel`): the tests run as if OpenTelemetry were not installed.

FastAPI needs it, so an environment without it would miss more than that. A test that imports it itself, or what needs
it, is skipped; where tellmeter imports it and does not cope without, the test fails as it would.
"""

from __future__ import annotations

import importlib.abc
import sys
from pathlib import Path
from typing import Any

import pytest

OURS = Path(__file__).parents[2] / "src" / "tellmeter"
# These are there for it, and loaded by who uses it.
FOR_IT = (OURS / "sinks" / "otel", OURS / "telemetry")


class NotHere(ModuleNotFoundError):
    """Somebody other than tellmeter needs it."""


class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name.partition(".")[0] != "opentelemetry":
            return
        frame = sys._getframe(1)
        while frame is not None and "importlib" in frame.f_code.co_filename:
            frame = frame.f_back
        file = Path(frame.f_code.co_filename) if frame is not None else Path()
        ours = file.is_relative_to(OURS) and not any(map(file.is_relative_to, FOR_IT))
        raise (ModuleNotFoundError if ours else NotHere)(f"No module named {name!r}", name=name)


def pytest_configure(config: pytest.Config) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "opentelemetry"]:
        del sys.modules[name]
    sys.meta_path.insert(0, Blocker())


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Any:
    report = yield
    if report.failed and "NotHere" in str(report.longrepr):
        report.outcome = "skipped"
        report.longrepr = (str(collector.path), 0, "Skipped: it needs OpenTelemetry")
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    report = yield
    if call.excinfo is not None and call.excinfo.errisinstance(NotHere):
        report.outcome = "skipped"
        report.longrepr = (str(item.path), item.location[1] or 0, "Skipped: it needs OpenTelemetry")
    return report
