"""Windows: what was spent in the last day (or hour, or ever), in bounded memory."""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Callable

from ...errors import ConfigError

SLOTS = 60
_LONGEST = 3650 * 86_400.0
_SECONDS = {"d": 86_400, "h": 3600, "m": 60, "s": 1}


def window_seconds(window: object) -> float | None:
    """Seconds of "30s", "5m", "1h", "7d", or of a number of them; None stands for ever.

    Raises:
        ConfigError: what is none of those, or not from 1 ms to 10 years.
    """
    if window is None:
        return None
    found = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)([smhd])", window) if isinstance(window, str) else None
    seconds = window if found is None else float(found[1]) * _SECONDS[found[2]]
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0.001 <= seconds <= _LONGEST:
        raise ConfigError(
            f"Budget.window = {window!r}: it must be a text as '30s', '5m', '1h' or '7d', a number of seconds, "
            "up to ten years, or None for ever"
        )
    return float(seconds)


def window_text(seconds: float) -> str:
    """As it is written: 3600.0 is 1h."""
    unit = next((unit for unit, one in _SECONDS.items() if seconds % one == 0), "s")
    return f"{seconds / _SECONDS[unit]:g}{unit}"


class Window:
    """Two sums over the last `seconds`, for ever with None. What is added leaves by sixtieths of the window.

    It leaves up to one of them late and never early, so that no window of that length ever holds more than the sums
    say. The sums are of whole numbers, so nothing drifts however much comes and goes. Times are those of one clock;
    where that is set back, what lies in its future is taken for spent now, and cannot stay for longer than a window.
    """

    __slots__ = ("_slots", "_width", "dollars", "tokens")

    def __init__(self, seconds: float | None) -> None:
        self._width = math.inf if seconds is None else seconds / SLOTS
        self._slots: deque[tuple[int, int, int]] = deque()  # number, dollars, tokens: oldest first, SLOTS + 1 at most
        self.dollars = 0
        self.tokens = 0

    def add(self, now: float, dollars: int, tokens: int) -> None:
        """Add to both sums."""
        self._put(self._advance(now), dollars, tokens)
        self.dollars += dollars
        self.tokens += tokens

    def sums(self, now: float) -> tuple[int, int]:
        """Both sums."""
        self._advance(now)
        return self.dollars, self.tokens

    def seconds_until(self, fits: Callable[[int, int], bool], now: float) -> float | None:
        """When `fits` is true of both sums if nothing more is added; None for never."""
        self._advance(now)
        dollars, tokens = self.dollars, self.tokens
        seconds = 0.0
        slots = iter(self._slots)
        while not fits(dollars, tokens):
            number, less_dollars, less_tokens = next(slots, (math.inf, 0, 0))
            if (left := (number + SLOTS + 1) * self._width) == math.inf:
                return None
            dollars -= less_dollars
            tokens -= less_tokens
            seconds = left - now
        return seconds

    def _advance(self, now: float) -> int:
        """Let go of what has left; the number of the slot that `now` lies in."""
        number = int(now // self._width)
        slots = self._slots
        while slots and slots[0][0] < number - SLOTS:
            _, dollars, tokens = slots.popleft()
            self.dollars -= dollars
            self.tokens -= tokens
        later = []
        while slots and slots[-1][0] > number:
            later.append(slots.pop())
        for _, dollars, tokens in later:
            self._put(number, dollars, tokens)
        return number

    def _put(self, number: int, dollars: int, tokens: int) -> None:
        if self._slots and self._slots[-1][0] == number:
            _, more_dollars, more_tokens = self._slots.pop()
            dollars += more_dollars
            tokens += more_tokens
        self._slots.append((number, dollars, tokens))
