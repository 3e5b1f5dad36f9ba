from __future__ import annotations

import os
import sys
from typing import Any

from hypothesis import HealthCheck, settings

# A busy machine is no fault of the code: no test asserts a time. CI runs the same examples every time; everybody else
# tries new ones.
settings.register_profile(
    "tellmeter",
    deadline=None,
    derandomize=bool(os.environ.get("CI")),
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("tellmeter")


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
