from __future__ import annotations

import ast
import inspect

import pytest

from tellmeter import sinks
from tests.unit.sinks.made import python


def test_importing_the_package_imports_no_sink_and_nothing_heavy():
    code = """
import sys
import tellmeter.sinks
heavy = {"sqlite3", "asyncio", "rich", "tellmeter.sinks.sqlite", "tellmeter.sinks.in_memory"}
print(sorted(heavy & set(sys.modules)))
from tellmeter.sinks import InMemoryMetricsSink, MetricsSink, sink_from_url
print(sorted({"sqlite3", "asyncio", "rich"} & set(sys.modules)))
"""
    assert python(code).stdout.splitlines() == ["[]", "[]"]


def test_every_public_name_is_there():
    assert sinks.__all__ == sorted(sinks._WHERE) == dir(sinks)
    for name in sinks.__all__:
        assert name == "Outcome" or getattr(sinks, name).__name__ == name


def test_type_checkers_see_the_same_names():
    (block,) = [node for node in ast.parse(inspect.getsource(sinks)).body if isinstance(node, ast.If)]
    seen = {alias.name for statement in block.body for alias in statement.names}
    assert seen == set(sinks.__all__)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'Sink'"):
        _ = sinks.Sink
