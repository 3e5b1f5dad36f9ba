from __future__ import annotations

import enum
from collections import defaultdict
from dataclasses import dataclass
from types import MappingProxyType, SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import msgspec
import numpy as np
import pytest

from tellmeter.instruments import lookup
from tellmeter.instruments.lookup import count, first, get, is_a, text


class Struct(msgspec.Struct):
    name: int = 1


@dataclass(slots=True)
class Data:
    name: int = 1


class Computed:
    @property
    def name(self) -> int:
        return 1


@pytest.mark.parametrize(
    "value",
    [{"name": 1}, MappingProxyType({"name": 1}), SimpleNamespace(name=1), Struct(), Data(), Computed()],
    ids=lambda value: type(value).__name__,
)
def test_items_and_attributes_are_found(value: Any) -> None:
    assert get(value, "name") == 1
    assert get(value, "other") is None


@pytest.mark.sdk
def test_pydantic_models_are_looked_into() -> None:
    import pydantic
    from pydantic.dataclasses import dataclass as pydantic_dataclass

    class Model(pydantic.BaseModel, extra="allow"):
        declared: int = 1
        _private: int = 4

        @property
        def computed(self) -> int:
            return 3

        @property
        def broken(self) -> int:
            raise RuntimeError

    @pydantic_dataclass
    class Other:
        declared: int = 1

    model = Model(extra=2)
    assert [get(model, name) for name in ("declared", "extra", "computed", "_private", "broken", "absent")] == [
        1, 2, 3, 4, None, None,
    ]  # fmt: skip
    assert get(Other(), "declared") == 1 and get(Other(), "absent") is None
    assert get(pydantic.RootModel[int](5), "root") == 5


@pytest.mark.parametrize("value", [None, "text", b"", 1, 1.5, True, [], set()])
def test_plain_values_have_no_names(value: Any) -> None:
    assert get(value, "real") is None and get(value, "append") is None


def test_looking_adds_nothing() -> None:
    made = defaultdict(list)
    assert get(made, "name") is None and not made


def test_what_raises_is_not_there() -> None:
    class Raising:
        def __getattribute__(self, name: str) -> Any:
            raise RuntimeError("prompt")

    class LyingDict(dict[str, int]):
        def get(self, *given: Any) -> Any:
            raise KeyError("prompt")

    assert get(Raising(), "name") is None and get(LyingDict(name=1), "name") is None
    assert not is_a(Raising(), str)


def test_what_the_user_interrupts_is_interrupted() -> None:
    class Slow:
        @property
        def name(self) -> int:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        get(Slow(), "name")


def test_types_that_come_and_go_are_forgotten() -> None:
    for number in range(1000):
        assert get(type(f"T{number}", (), {"name": number})(), "name") == number
    assert len(lookup._ways) <= 256


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0, 0), (3, 3), (4.0, 4), (np.int64(5), 5), (2**63 - 1, 2**63 - 1)]
    + [(bad, None) for bad in (True, -1, 2**63, 10**400, 1.5, float("nan"), float("inf"), "3", None, [3], MagicMock())],
)
def test_a_number_of_tokens(value: Any, expected: int | None) -> None:
    assert count(value) == expected


def test_texts_are_plain() -> None:
    class Reason(str, enum.Enum):  # noqa: UP042 - google-genai's
        STOP = "STOP"

    class Loud(str):
        __slots__ = ()

        def __str__(self) -> str:
            raise RuntimeError

    assert type(text(Loud("m"))) is str and text(Loud("m")) == "m"
    assert text(Reason.STOP) == "STOP" and type(text(Reason.STOP)) is str
    assert text("") is None and text(7) is None and text(None) is None


def test_the_first_of_a_list() -> None:
    assert first([1, 2]) == first((1,)) == 1
    assert first([]) is None and first("ab") is None and first(None) is None
