"""Arguments of the LLMClient that are numbers, checked where they are given."""

from __future__ import annotations

from ..errors import ConfigError


def check_number(name: str, value: object, low: float, high: float, *, whole: bool = False) -> None:
    """Refuse what is no number from `low` to `high`.

    Raises:
        ConfigError: names the field, the value and the range.
    """
    kinds = int if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high:
        kind = "a whole number" if whole else "a number"
        raise ConfigError(f"{name} = {value!r}: it must be {kind} from {low:g} to {high:g}")
