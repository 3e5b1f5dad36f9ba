"""What the callbacks of `stream_with_usage` get. No repr tells what was said."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from .response import GenerationResponse, TokenUsage


@dataclass(frozen=True, kw_only=True)
class StreamEvent:
    """What all of them say. `request_id` is that of the call's records; `timestamp` is Unix seconds."""

    provider: str
    model: str
    request_id: str
    timestamp: float


@dataclass(frozen=True, kw_only=True)
class StreamStarted(StreamEvent):
    """The answer begins."""


@dataclass(frozen=True, kw_only=True)
class StreamDelta(StreamEvent):
    """A piece of the text; `chunk_index` counts them from 0."""

    delta: str = field(repr=False)
    chunk_index: int

    def get_text(self) -> str:
        """The piece."""
        return self.delta


@dataclass(frozen=True, kw_only=True)
class StreamUsage(StreamEvent):
    """What the answer took, once, at its end; `is_estimated` where the provider did not say it."""

    usage: TokenUsage
    cost_usd: float | None
    is_estimated: bool


@dataclass(frozen=True, kw_only=True)
class StreamCompleted(StreamEvent):
    """The answer is whole."""

    total_chunks: int
    duration_ms: float
    final_usage: TokenUsage
    response: GenerationResponse


@dataclass(frozen=True, kw_only=True)
class StreamFailed(StreamEvent):
    """The answer broke off, or did not begin."""

    error: BaseException = field(repr=False)
    error_type: str
    is_retryable: bool


@dataclass(frozen=True, kw_only=True)
class Callbacks:
    """The functions that get them, sync or async. What they raise is counted (`guarded_errors{client_callback}`)."""

    on_start: Callable[[StreamStarted], object] | None = None
    on_delta: Callable[[StreamDelta], object] | None = None
    on_usage: Callable[[StreamUsage], object] | None = None
    on_complete: Callable[[StreamCompleted], object] | None = None
    on_error: Callable[[StreamFailed], object] | None = None
