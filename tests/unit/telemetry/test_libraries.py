"""OpenTelemetry's instrumentations of libraries: each alone, and never twice."""

import sys
import types

import pytest

from tellmeter.telemetry import libraries
from tellmeter.telemetry.libraries import LIBRARIES, instrument_fastapi_app, instrument_libraries


class Instrumentor:
    """One of OpenTelemetry's, as far as we use it: one object a class."""

    made = None

    def __new__(cls):
        cls.made = cls.made or object.__new__(cls)
        return cls.made

    is_instrumented_by_opentelemetry = False
    fits = True
    calls = 0

    def instrument(self):
        type(self).calls += 1
        self.is_instrumented_by_opentelemetry = self.fits

    @staticmethod
    def instrument_app(app):
        app.instrumented += 1
        app._is_instrumented_by_opentelemetry = True


@pytest.fixture
def installed(monkeypatch):
    """Puts an instrumentor in the place of a package."""

    def install(name, **how):
        module = types.ModuleType(f"opentelemetry.instrumentation.{name}")
        made = type("Made", (Instrumentor,), {"made": None, **how})
        setattr(module, LIBRARIES[name][0], made)
        monkeypatch.setitem(
            sys.modules, "opentelemetry.instrumentation", types.ModuleType("opentelemetry.instrumentation")
        )
        monkeypatch.setitem(sys.modules, module.__name__, module)
        return made

    monkeypatch.setattr(libraries, "find_spec", lambda name: object())
    for name in LIBRARIES:
        monkeypatch.setitem(sys.modules, f"opentelemetry.instrumentation.{name}", None)
    return install


def test_those_that_are_there_are_switched_on_once(installed, caplog):
    fastapi, httpx = installed("fastapi"), installed("httpx")
    for _ in range(2):
        assert instrument_libraries(["fastapi", "httpx"]) == ["fastapi", "httpx"]
    assert (fastapi.calls, httpx.calls) == (1, 1)
    assert caplog.records == []


def test_one_that_is_missing_is_one_warning_with_its_package(installed, caplog):
    installed("httpx")
    assert instrument_libraries(["fastapi", "httpx", "sqlalchemy"]) == ["httpx"]
    assert [record.getMessage() for record in caplog.records] == [
        "fastapi has no spans: pip install opentelemetry-instrumentation-fastapi",
        "sqlalchemy has no spans: pip install opentelemetry-instrumentation-sqlalchemy",
    ]


def test_a_library_that_is_not_installed_is_passed_over(installed, monkeypatch, caplog):
    monkeypatch.setattr(libraries, "find_spec", lambda name: None)
    assert instrument_libraries(LIBRARIES) == []
    assert caplog.records == []


def test_one_that_raises_costs_no_other(installed, caplog):
    def fail(self):
        raise RuntimeError("canary")

    installed("fastapi", instrument=fail)
    installed("httpx")
    assert instrument_libraries(["fastapi", "httpx"]) == ["httpx"]
    (record,) = caplog.records
    assert record.getMessage() == "fastapi has no spans: its instrumentation raised RuntimeError"


def test_one_whose_versions_do_not_fit_is_not_on(installed):
    installed("sqlalchemy", fits=False)
    assert instrument_libraries(["sqlalchemy"]) == []


def test_an_app_has_spans_once(installed):
    installed("fastapi")
    app = types.SimpleNamespace(instrumented=0)
    assert instrument_fastapi_app(app) and instrument_fastapi_app(app)
    assert app.instrumented == 1


def test_an_app_whose_instrumentation_fails_goes_on(installed, caplog):
    installed("fastapi")
    assert not instrument_fastapi_app(object())
    assert "AttributeError" in caplog.text


def test_an_app_without_the_instrumentation_goes_on(installed, caplog):
    assert not instrument_fastapi_app(types.SimpleNamespace(instrumented=0))
    assert "pip install opentelemetry-instrumentation-fastapi" in caplog.text
