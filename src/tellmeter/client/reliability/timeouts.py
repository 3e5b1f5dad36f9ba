"""Timeouts: how long the LLMClient waits, and for what."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from ...errors import LLMTimeoutError
from ..checks import check_number

_LONGEST = 86_400.0


@dataclass(frozen=True, kw_only=True)
class Timeouts:
    """Limits in seconds; None for none.

    connect: for a connection to the provider.
    first_token: of a stream, from the request to the first content, reasoning or tool call.
    between_chunks: of a stream, between any two of them after that.
    total: of the whole call, retries, fallbacks and their pauses included.

    Raises:
        ConfigError: a limit that is no positive number.
    """

    connect: float | None = 10.0
    first_token: float | None = 300.0
    between_chunks: float | None = 120.0
    total: float | None = 600.0

    def __post_init__(self) -> None:
        for name in ("connect", "first_token", "between_chunks", "total"):
            if (value := getattr(self, name)) is not None:
                check_number(f"Timeouts.{name}", value, 0.001, _LONGEST)


@dataclass
class Deadline:
    """When a call has to be over, by the clock of its event loop; None for never."""

    at: float | None

    @classmethod
    def after(cls, seconds: float | None) -> Deadline:
        """So many seconds from now."""
        return cls(None if seconds is None else asyncio.get_running_loop().time() + seconds)

    def left(self) -> float | None:
        """Seconds until then."""
        return None if self.at is None else self.at - asyncio.get_running_loop().time()

    @asynccontextmanager
    async def limit(self, name: str, seconds: float | None = None) -> AsyncIterator[None]:
        """A block that is cancelled after `seconds`, which `name` stands for, or at the deadline, which is `total`.

        Raises:
            LLMTimeoutError: it was; its `limit` says by which.
        """
        left = self.left()
        if left is not None and (seconds is None or left < seconds):
            name, seconds = "total", left
        limited = asyncio.timeout(seconds)
        try:
            async with limited:
                yield
        except TimeoutError as error:
            if not limited.expired() or isinstance(error, LLMTimeoutError):
                raise
            told = LLMTimeoutError(f"timed out: {name}", category="timeout", is_retryable=name != "total")
            told.limit = name
            raise told from None
