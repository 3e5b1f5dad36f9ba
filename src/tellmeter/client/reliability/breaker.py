"""CircuitBreaker: a provider that keeps failing is given a rest."""

from __future__ import annotations

import inspect
import itertools
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from ...errors import CircuitOpenError, ConfigError
from ...guard import note
from ...registry.forks import tell_of_forks
from ..checks import check_number

CLOSED, OPEN, HALF_OPEN = "closed", "open", "half_open"
_CALLBACKS = {CLOSED: "on_close", OPEN: "on_open", HALF_OPEN: "on_half_open"}
SLOTS = 20
"""A call counts for `window_seconds` or up to a twentieth less: calls are counted in so many slots, not one by one."""

Callback = Callable[[str], object]
_Ended = tuple[
    int, int, bool | None
]  # place of the probe or 0, period of the permit, whether it failed (None: neither)


@dataclass(frozen=True, kw_only=True)
class CircuitBreakerConfig:
    """When a circuit breaker opens, and when it closes again.

    It opens when, of the calls that ended within `window_seconds`, at least `failure_threshold` failed and these are at
    least `failure_rate_threshold` of all: a busy provider that fails one call in a hundred stays in use. After
    `timeout_seconds` it is half-open: calls are let through to see whether the provider is back.

    failure_threshold: failed calls in the window.
    failure_rate_threshold: their share (0..1) of all calls in the window; 0 opens by the number alone.
    success_threshold: calls that must succeed while it is half-open to close it. One that fails opens it again.
    timeout_seconds: how long it stays open; and how long a call of the half-open breaker keeps others from its place.
    half_open_requests: calls in flight while it is half-open.
    window_seconds: how long a call counts.
    on_open, on_close, on_half_open: called with the provider's name, in the thread that made the change; what they
        raise is counted. `on_half_open` is called when the first call is let through.

    Raises:
        ConfigError: a value out of its range, or a callback that is no plain function.
    """

    failure_threshold: int = 5
    failure_rate_threshold: float = 0.5
    success_threshold: int = 2
    timeout_seconds: float = 60.0
    half_open_requests: int = 3
    window_seconds: float = 60.0
    on_open: Callback | None = None
    on_close: Callback | None = None
    on_half_open: Callback | None = None

    def __post_init__(self) -> None:
        for name in ("failure_threshold", "success_threshold", "half_open_requests"):
            check_number(f"CircuitBreakerConfig.{name}", getattr(self, name), 1, 100_000, whole=True)
        for name in ("timeout_seconds", "window_seconds"):
            check_number(f"CircuitBreakerConfig.{name}", getattr(self, name), 0.001, 86_400.0)
        check_number("CircuitBreakerConfig.failure_rate_threshold", self.failure_rate_threshold, 0.0, 1.0)
        for name in _CALLBACKS.values():
            callback = getattr(self, name)
            if callback is not None and (not callable(callback) or inspect.iscoroutinefunction(callback)):
                kind = type(callback).__name__
                raise ConfigError(f"CircuitBreakerConfig.{name} = a {kind}: it must be a function that is not async")


class CircuitBreakerStats(msgspec.Struct, frozen=True, kw_only=True):
    """What a circuit breaker has seen.

    state: as `CircuitBreaker.state`.
    failures, calls: of those that ended within the window, since it closed last.
    trips: times that it opened. rejections: calls that it refused.
    seconds_until_probe: until it lets a call through, at the latest; 0 when it would now.
    """

    state: str
    failures: int
    calls: int
    trips: int
    rejections: int
    seconds_until_probe: float


class Permit:
    """Leave to send one call. It ends once: what is said after that does nothing. Dropped, it is `released()`.

    Ending it never waits and never raises, so that a generator may do it when the garbage collector closes it.
    """

    __slots__ = ("_breaker", "_period", "_place", "_unended")

    def __init__(self, breaker: CircuitBreaker, period: int, place: int) -> None:
        self._breaker = breaker
        self._period = period
        self._place = place
        self._unended = [None]

    def succeeded(self) -> None:
        """The provider answered."""
        self._end(failed=False)

    def failed(self) -> None:
        """The provider, or the network, was at fault."""
        self._end(failed=True)

    def released(self) -> None:
        """Neither: the caller cancelled it, or asked for what cannot be."""
        self._end(failed=None)

    def _end(self, *, failed: bool | None) -> None:
        try:
            self._unended.pop()
        except IndexError:
            return
        self._breaker._ended.append((self._place, self._period, failed))
        self._breaker._settle()

    def __del__(self) -> None:
        if self._unended and self._place:  # whoever acquires next gives the place back
            self._breaker._ended.append((self._place, self._period, None))


class CircuitBreaker:
    """Lets calls to one provider through while it works. For any number of threads and event loops; waits for nothing.

    A call that began before the last change of state says nothing about the state after it, and is not counted.

    Args:
        provider: its name.
        config: when to open and close.
        clock: seconds; where it jumps back, time goes on from where it was.
    """

    def __init__(
        self,
        provider: str,
        config: CircuitBreakerConfig | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.provider = provider
        self.config = CircuitBreakerConfig() if config is None else config
        # Who counts, beside `stats()`: called without arguments, must never raise.
        self.count_trip: tuple[Callable[[], object], ...] = ()
        self.count_rejection: tuple[Callable[[], object], ...] = ()
        self._clock = clock
        self._seen = clock()
        self._jumped = 0.0
        self._lock = threading.Lock()
        # Permits end here, and not under the lock: the garbage collector may end one while this thread holds it.
        self._ended: deque[_Ended] = deque()
        self._changes: deque[str] = deque()  # states that nobody was told of yet
        self._window = _Window(self.config.window_seconds)
        self._state = CLOSED
        self._until = 0.0  # when it half-opens
        self._period = 0  # one more with every change of state
        self._probes: dict[int, float] = {}  # place -> when it is given back anyway, the first one first
        self._places = itertools.count(1)
        self._successes = 0
        self._trips = 0
        self._rejections = 0
        tell_of_forks(self)

    def acquire(self) -> Permit:
        """Leave to send a call.

        Raises:
            CircuitOpenError: the provider is given a rest, or enough calls are on their way to see whether it is back.
                `retry_after`: seconds until a call is let through, at the latest.
        """
        permit = None
        with self._lock:
            now = self._now()
            self._apply(now)
            wait = self._wait(now)
            if wait:
                self._rejections += 1
            else:
                permit = self._admit(now)
        self._settle()
        if permit is not None:
            return permit
        for count in self.count_rejection:
            count()
        raise CircuitOpenError(
            f"{self.provider} failed too often and is given a rest: try again in {wait:.3g} s",
            category="circuit_open",
            provider=self.provider,
            retry_after=wait,
            is_retryable=True,
        )

    @property
    def state(self) -> str:
        """`closed`, `open`, or `half_open` once a call would be let through or those let through are on their way.

        Takes no lock, so that metrics may be read in a signal handler.
        """
        state = self._state
        return HALF_OPEN if state == OPEN and max(self._clock(), self._seen) + self._jumped >= self._until else state

    def stats(self) -> CircuitBreakerStats:
        """What it has seen so far."""
        with self._lock:
            now = self._now()
            self._apply(now)
            wait = self._wait(now)
            calls, failures = self._window.counts(now)
            seen = CircuitBreakerStats(
                state=HALF_OPEN if self._state == OPEN and not wait else self._state,
                failures=failures,
                calls=calls,
                trips=self._trips,
                rejections=self._rejections,
                seconds_until_probe=wait,
            )
        self._settle()
        return seen

    def reset(self) -> None:
        """Close it, whatever was. Calls that are on their way are not counted; trips and rejections are kept."""
        with self._lock:
            self._apply(self._now())
            self._window.clear()
            if self._state != CLOSED:
                self._change(CLOSED)
            self._period += 1
        self._settle()

    # ------------------------------------------------------------------ under the lock

    def _now(self) -> float:
        """Seconds that never go back: a clock that does goes on from where it was."""
        seen = self._clock()
        self._jumped += max(0.0, self._seen - seen)
        self._seen = seen
        return seen + self._jumped

    def _wait(self, now: float) -> float:
        """Seconds until a call is let through, at the latest."""
        if self._state == OPEN:
            return max(0.0, self._until - now)
        for place, due in list(self._probes.items()):
            if due <= now:
                del self._probes[place]
        full = self._state == HALF_OPEN and len(self._probes) >= self.config.half_open_requests
        return min(self._probes.values()) - now if full else 0.0

    def _admit(self, now: float) -> Permit:
        if self._state == OPEN:
            self._change(HALF_OPEN)
        place = 0
        if self._state == HALF_OPEN:
            place = next(self._places)
            self._probes[place] = now + self.config.timeout_seconds
        return Permit(self, self._period, place)

    def _apply(self, now: float) -> None:
        """Count the calls that ended."""
        while self._ended:
            place, period, failed = self._ended.popleft()
            self._probes.pop(place, None)
            if period == self._period and failed is not None:
                self._window.add(now, failed=failed)
                self._judge(now, failed=failed)

    def _judge(self, now: float, *, failed: bool) -> None:
        if not failed:
            self._successes += 1
            if self._state == HALF_OPEN and self._successes >= self.config.success_threshold:
                self._window.clear()
                self._change(CLOSED)
        elif self._state == HALF_OPEN or self._too_many(*self._window.counts(now)):
            self._until = now + self.config.timeout_seconds
            self._trips += 1
            self._change(OPEN)

    def _too_many(self, calls: int, failures: int) -> bool:
        return failures >= max(self.config.failure_threshold, self.config.failure_rate_threshold * calls)

    def _change(self, state: str) -> None:
        self._state = state
        self._period += 1
        self._successes = 0
        self._probes.clear()
        self._changes.append(state)

    # ------------------------------------------------------------------ without the lock

    def _settle(self) -> None:
        """Count what ended, unless another has the lock: it comes here when it let go. Tell of changes."""
        while self._ended and self._lock.acquire(blocking=False):
            try:
                self._apply(self._now())
            finally:
                self._lock.release()
        while self._changes:
            try:
                state = self._changes.popleft()
            except IndexError:  # another thread tells of it
                return
            self._tell(state)

    def _tell(self, state: str) -> None:
        for count in self.count_trip if state == OPEN else ():
            count()
        callback: Callback | None = getattr(self.config, _CALLBACKS[state])
        if callback is None:
            return
        try:
            callback(self.provider)
        except KeyboardInterrupt:  # a signal that came meanwhile is the program's
            raise
        except BaseException as error:
            note("circuit_breaker_callback", error)

    # ------------------------------------------------------------------ fork

    def locks(self) -> list[threading.Lock]:
        """What a fork must not catch held by another thread."""
        return [self._lock]

    def after_fork(self) -> None:
        """The child knows the state; the calls on their way, and what was counted, are the parent's."""
        self._lock = threading.Lock()
        self._ended.clear()
        self._changes.clear()
        self._probes.clear()
        self._period += 1
        self._trips = self._rejections = 0


class _Window:
    """How many calls ended, and how many of them failed, within the last seconds."""

    def __init__(self, seconds: float) -> None:
        self._slot_seconds = seconds / SLOTS
        self._slots: deque[list[int]] = deque()  # number of the slot, calls, failures

    def add(self, now: float, *, failed: bool) -> None:
        slot = self._turn(now)
        if not self._slots or self._slots[-1][0] != slot:
            self._slots.append([slot, 0, 0])
        self._slots[-1][1] += 1
        self._slots[-1][2] += failed

    def counts(self, now: float) -> tuple[int, int]:
        """Calls, and failures."""
        self._turn(now)
        return sum(slot[1] for slot in self._slots), sum(slot[2] for slot in self._slots)

    def clear(self) -> None:
        self._slots.clear()

    def _turn(self, now: float) -> int:
        """Forget what is too old; the number of the slot that it is now."""
        slot = int(now // self._slot_seconds)
        while self._slots and self._slots[0][0] <= slot - SLOTS:
            self._slots.popleft()
        return slot
