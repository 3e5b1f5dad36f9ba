from __future__ import annotations

import logging

import pytest

from tellmeter import counts
from tellmeter.guard import guarded, note


def test_what_raises_is_counted_and_logged_once_without_its_message(caplog: pytest.LogCaptureFixture) -> None:
    def explode() -> int:
        raise KeyError("sk-secret prompt text")

    with caplog.at_level(logging.WARNING, "tellmeter"):
        assert [guarded("test_guard", explode, default=7) for _ in range(3)] == [7, 7, 7]
    assert counts.snapshot()["guarded_errors"]["test_guard"] == 3
    assert caplog.text.count("KeyError") == 1
    assert "secret" not in caplog.text


def test_even_the_worst_exceptions_are_held() -> None:
    def leave() -> None:
        raise SystemExit

    assert guarded("test_guard_exit", leave, default=None) is None
    note("test_guard_exit", RecursionError())
    assert counts.snapshot()["guarded_errors"]["test_guard_exit"] == 2
