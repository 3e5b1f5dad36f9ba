import inspect
import os
import subprocess
import sys

import pytest

from tellmeter.telemetry import OTEL_AVAILABLE, api, noop
from tellmeter.telemetry.backend import Backend, backend

BLOCKED = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "opentelemetry": raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Blocked())
"""
HALF = """
import sys, types
sys.modules["opentelemetry"] = half = types.ModuleType("opentelemetry")
half.__path__ = []
"""
USE = """
from tellmeter.telemetry import OTEL_AVAILABLE, tracing
assert OTEL_AVAILABLE is False
sent = {"traceparent": "00-12345678901234567890123456789012-1234567890123456-01", "tracestate": "foo=1"}
manager = tracing.get_tracing_manager()
with manager.start_span("child", context=manager.extract_context(sent)) as span:
    assert manager.inject_context({}) == sent
    assert not span.is_recording()
assert not any(name.startswith("opentelemetry.") for name in sys.modules)
"""
LATE = """
import sys
from tellmeter.telemetry import OTEL_AVAILABLE, tracing, decorators
decorators.trace_operation(lambda: 1)
tracing.get_tracing_manager()
assert OTEL_AVAILABLE is True
def loaded():  # packages without code of their own aside
    return {name for name, module in sys.modules.items() if name.startswith("opentelemetry") and module.__file__}
assert not loaded(), loaded()
tracing.start_span("it").__enter__()
assert "opentelemetry.trace" in loaded()
assert not any("sdk" in name for name in loaded())
"""
UNKNOWN_PROPAGATOR = """
import logging; logging.disable()
from tellmeter.telemetry import tracing
manager = tracing.get_tracing_manager()
sent = {"traceparent": "00-12345678901234567890123456789012-1234567890123456-01"}
assert manager.inject_context({}, context=manager.extract_context(sent)) == sent
"""


def test_both_have_the_same_names():
    for name, function in inspect.getmembers(Backend, inspect.isfunction):
        if not name.startswith("_"):
            wanted = len(inspect.signature(function).parameters) - 1
            for module in (api, noop):
                found = getattr(module, name)
                if not isinstance(found, type):
                    inspect.signature(found).bind(*range(wanted))


def test_opentelemetry_is_taken_where_it_is():
    assert OTEL_AVAILABLE
    assert backend() is api


@pytest.mark.parametrize(
    ("program", "environ"),
    [
        pytest.param(BLOCKED + USE, {}, id="not installed"),
        pytest.param(HALF + USE, {}, id="half installed"),
        pytest.param(LATE, {}, id="not imported before it is used"),
        pytest.param(UNKNOWN_PROPAGATOR, {"OTEL_PROPAGATORS": "no-such"}, id="a propagator that is not installed"),
    ],
)
def test_in_a_process(program, environ):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
