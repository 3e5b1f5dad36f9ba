"""The accounts of a budget: what is known to be spent for each key, by this process and by a store."""

from __future__ import annotations

import sys
import time
from collections import OrderedDict
from concurrent.futures import Future
from typing import NamedTuple

from .windows import Window

MAX_KEYS = 10_000
OVERFLOW = "__overflow__"

# A whole number of these makes a dollar: floats times a power of two lose nothing, and sums of integers never drift.
_UNITS = 2**64
_MOST = int(sys.float_info.max) * _UNITS


def units_of(usd: float) -> int:
    """Dollars as the whole number that the windows add up."""
    numerator, denominator = usd.as_integer_ratio()  # no float would hold what the largest gives
    return numerator * _UNITS // denominator


def usd_of(units: int) -> float:
    """Back to dollars."""
    return min(units, _MOST) / _UNITS


class Answer(NamedTuple):
    """What a store said was spent, in units and tokens, and whether this process's own spend gets there by itself."""

    dollars: int
    tokens: int
    own_arrives: bool


class Question:
    """A question to the store that is under way; `done` once it is answered, or has failed."""

    def __init__(self, asked_at: float, seconds: float | None) -> None:
        self.asked_at = asked_at
        self.began = time.monotonic()
        self.since = Window(seconds)  # what was spent since it was asked
        self.done: Future[None] = Future()
        self.done.set_running_or_notify_cancel()  # so that no waiter that gives up can cancel it for the others


class Account:
    """What one key has spent. The budget's lock guards it.

    With a store there are two truths: what this process spent itself (`own`), and the store's last answer with what
    this process spent since. The answer holds the calls that were recorded before the question was asked: the store
    settles first. A call that ends while the question is under way may be in the answer or not. It is counted beside
    it, so at worst twice, and no longer than until the next answer; left out, it would let further calls through.
    Where own spend never gets to the store, all of it is counted beside the answer.

    An answer is never believed to be less than what this process knows of itself: records may wait for a store that
    takes none just now, may be sampled, or start so long before they end that a short window has passed.
    """

    __slots__ = ("_answer", "_answered_at", "_seconds", "_since", "asked_at", "own", "question", "trouble", "warned")

    def __init__(self, seconds: float | None) -> None:
        self.own = Window(seconds)
        self.warned = False
        self.asked_at: float | None = None
        self.question: Question | None = None
        self.trouble = False  # whether the last question failed
        self._seconds = seconds
        self._answer = Answer(0, 0, own_arrives=True)
        self._answered_at: float | None = None
        self._since: Window | None = None

    @property
    def answered(self) -> bool:
        """Whether the store has ever said what is spent."""
        return self._answered_at is not None

    def add(self, now: float, dollars: int, tokens: int) -> None:
        """Add a call of this process."""
        for window in (self.own, self._since, None if self.question is None else self.question.since):
            if window is not None:
                window.add(now, dollars, tokens)

    def spent(self, now: float) -> tuple[int, int]:
        """Units and tokens within the window."""
        dollars, tokens = self.own.sums(now)
        if not self._counts(now) or self._since is None:
            return dollars, tokens
        answer = self._answer
        if not answer.own_arrives:
            return answer.dollars + dollars, answer.tokens + tokens
        since = self._since.sums(now)
        return max(dollars, answer.dollars + since[0]), max(tokens, answer.tokens + since[1])

    def own_only(self, now: float) -> bool:
        """Whether all that is known to be spent is this process's, so that it is known when it leaves."""
        return self.own.sums(now) == self.spent(now)

    def is_empty(self, now: float) -> bool:
        """Whether nothing is lost with it."""
        return self.question is None and self.spent(now) == (0, 0)

    def ask(self, now: float) -> Question:
        """Begin a question."""
        self.asked_at = now
        self.question = Question(now, self._seconds)
        return self.question

    def conclude(self, question: Question, answer: Answer | None) -> None:
        """End a question, by its answer; without one it has failed, and what was known before goes on to be."""
        self.question = None
        self.trouble = answer is None
        if answer is not None:
            self._answer, self._answered_at, self._since = answer, question.asked_at, question.since

    def _counts(self, now: float) -> bool:
        """Whether what the answer holds may still be within the window."""
        if self._answered_at is None:
            return False
        return self._seconds is None or now - self._answered_at < self._seconds


class Accounts:
    """The accounts of `MAX_KEYS` keys at most.

    Where there are as many, an empty one makes room for the next; where none is empty, further keys share the account
    `OVERFLOW`: whoever makes up keys forgets nobody's spend by that.
    """

    def __init__(self, seconds: float | None) -> None:
        self.shared = Account(seconds)
        # Those that never spent come first, then the one that spent longest ago, which is the next to be empty.
        self._by_key: OrderedDict[str, Account] = OrderedDict()
        self._seconds = seconds

    def __len__(self) -> int:
        return len(self._by_key)

    def find(self, key: str, now: float) -> tuple[str, Account | None]:
        """The account of a key and the key that it goes by; None where nothing is spent yet."""
        account = self._by_key.get(key)
        if account is None and (key == OVERFLOW or not self._has_room(now)):
            return OVERFLOW, self.shared
        return key, account

    def open(self, key: str, now: float) -> tuple[str, Account]:
        """As `find`, but it is made where it is missing."""
        key, account = self.find(key, now)
        if account is None:
            if len(self._by_key) >= MAX_KEYS:
                self._by_key.popitem(last=False)
            account = self._by_key[key] = Account(self._seconds)
            self.moved(key, now)
        return key, account

    def moved(self, key: str, now: float) -> None:
        """The account of a key has changed just now: put it where it belongs."""
        account = self._by_key.get(key)
        if account is not None:
            self._by_key.move_to_end(key, last=account.spent(now) != (0, 0))

    def each(self) -> list[Account]:
        """All of them."""
        return [self.shared, *self._by_key.values()]

    def _has_room(self, now: float) -> bool:
        return len(self._by_key) < MAX_KEYS or next(iter(self._by_key.values())).is_empty(now)
