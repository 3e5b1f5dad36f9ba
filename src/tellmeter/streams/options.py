"""StreamOptions: how a running stream is watched, said for the process, a client, a block of code or one call."""

from __future__ import annotations

import contextvars
import math
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

import msgspec

from ..config import MetricsConfig
from ..context import options_in_force, reset
from ..errors import ConfigError

Callback = Callable[[Any], object]

MAX_MS = 3_600_000.0


class StreamOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What is said about the watching of streams; None where nothing is said, and the next wider place counts.

    enabled: False for no reports, no stall detection, and no `record.stream`.
    callback: gets a `StreamReport` at each interval, first token and stall, and once at the end; sync or async.
    interval_ms: milliseconds between two reports; 0 for none between the first token and the end.
    include_raw_chunks: whether the last report has the bytes that came, up to 1 MiB of them.
    stall_after_ms: how long the provider may be silent before that is a stall; 0 for never.
    """

    enabled: bool | None = None
    callback: Callback | None = None
    interval_ms: float | None = None
    include_raw_chunks: bool | None = None
    stall_after_ms: float | None = None


# Other spellings: those of the streaming guide that the names come from, for a client and for one call.
_ALIASES = {
    "enable_metrics": "enabled",
    "metrics_callback": "callback",
    "stream_callback": "callback",
    "interval": "interval_ms",
    "metrics_interval": "interval_ms",
    "stream_interval_ms": "interval_ms",
    "include_raw_data": "include_raw_chunks",
}
_NAMES = StreamOptions.__struct_fields__


def read_options(given: Mapping[str, Any] | StreamOptions | None) -> StreamOptions:
    """The options in a mapping of their names, or of the streaming guide's (`interval`, `include_raw_data`, ...).

    Raises:
        ConfigError: a name that is none, or a value that cannot be.
    """
    if isinstance(given, StreamOptions):
        return given
    found: dict[str, Any] = {}
    for said, value in (given or {}).items():
        name = _ALIASES.get(said, said)
        if name not in _NAMES:
            raise ConfigError(f"stream options have no {said!r}: there are {', '.join((*_NAMES, *_ALIASES))}")
        if value is None:
            continue
        problem = _problem(name, value)
        if problem:
            raise ConfigError(f"stream options: {said} = {value!r}: it must be {problem}")
        found[name] = value
    return StreamOptions(**found)


def _problem(name: str, value: Any) -> str:
    if name == "callback":
        return "" if callable(value) else "a function, or a coroutine function"
    if name in ("enabled", "include_raw_chunks"):
        return "" if type(value) is bool else "True or False"
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    good = number and (value == 0 or 1 <= value <= MAX_MS) and not math.isnan(value)
    return "" if good else f"0, or milliseconds from 1 to {MAX_MS:,.0f}"


def merged(*layers: StreamOptions | None) -> StreamOptions:
    """One from several, the wider places first: where two say something, the later one counts."""
    found: dict[str, Any] = {}
    for layer in layers:
        if layer is not None:
            found.update((name, value) for name in _NAMES if (value := getattr(layer, name)) is not None)
    return StreamOptions(**found)


def of_config(config: MetricsConfig) -> StreamOptions:
    """What the process's settings say."""
    return StreamOptions(
        enabled=config.enable_streaming_metrics,
        callback=config.stream_callback,
        interval_ms=config.stream_interval_ms,
        include_raw_chunks=config.include_raw_chunks,
        stall_after_ms=config.stall_after_ms,
    )


class stream_options:  # noqa: N801 - reads as a word in a with statement
    """How the streams that begin in a block are watched: `with stream_options(callback=show, interval=500):`.

    Works with `with` and `async with`, nests (inner values win), and follows tasks as `tags` does. The names are those
    of `StreamOptions`; `interval`, `include_raw_data`, `metrics_callback` and so on are understood, too.

    Raises:
        ConfigError: a name that is none, or a value that cannot be.
    """

    __slots__ = ("_own", "_tokens")

    def __init__(self, **options: Any) -> None:
        self._own = read_options(options)
        self._tokens: list[contextvars.Token[StreamOptions | None]] = []

    def __enter__(self) -> stream_options:
        self._tokens.append(options_in_force.set(merged(options_in_force.get(), self._own)))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        reset(options_in_force, self._tokens.pop())

    async def __aenter__(self) -> stream_options:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)
