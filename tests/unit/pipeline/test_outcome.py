from __future__ import annotations

import pytest

from tellmeter import Delivered, Partial, Rejected, RetryLater, TooLarge


def test_outcomes_are_values() -> None:
    assert RetryLater(after=3) == RetryLater(after=3) != RetryLater()
    assert Partial(retry=(1,)).rejected == ()
    assert {Delivered(), Delivered(), TooLarge(), Rejected("x")} == {Delivered(), TooLarge(), Rejected("x")}
    with pytest.raises(AttributeError):
        Rejected("x").reason = "y"  # type: ignore[misc]
