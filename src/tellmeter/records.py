"""What is known about one call: AgentMetrics, its StreamMetrics, and MetricsSummary over many.

Every invariant holds by construction, so that sinks never check: numbers are finite and not negative, whole numbers fit
64 bits, text is valid UTF-8 of bounded length without control characters, tags are bounded in number. What had to be
changed is counted in `tellmeter.counts` as `sanitised{field}`.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterable
from operator import attrgetter
from typing import Any

import msgspec
from msgspec.structs import force_setattr

from .cleaning import (
    MAX_INT,
    MODEL_LENGTH,
    SHORT_LENGTH,
    TEXT_LENGTH,
    changed,
    clean_float,
    clean_int,
    clean_names,
    clean_optional_float,
    clean_optional_text,
    clean_tags,
    clean_text,
    replaced,
)

STATUSES = frozenset({"success", "error", "timeout", "cancelled", "closed_early", "abandoned", "rejected"})
FAILURES = frozenset({"error", "timeout", "rejected"})
STREAM_STATUSES = frozenset({"pending", "streaming", "completed", "error", "cancelled", "closed_early", "abandoned"})
# What a status says of the cause where nobody said more.
_STATUS_CATEGORY = {
    "error": "unknown",
    "timeout": "timeout",
    "cancelled": "cancelled",
    "closed_early": "cancelled",
    "abandoned": "cancelled",
    "rejected": "circuit_open",
}


def uuid7() -> str:
    """A UUID version 7 (RFC 9562, section 5.7): 48 bits of Unix milliseconds, 74 random bits; sorts by time."""
    millis = time.time_ns() // 1_000_000
    noise = int.from_bytes(os.urandom(10), "big")
    value = (millis & 0xFFFFFFFFFFFF) << 80 | 0x7 << 76 | (noise >> 64 & 0xFFF) << 64 | 0b10 << 62
    digits = f"{value | noise & 0x3FFFFFFFFFFFFFFF:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


class StreamMetrics(msgspec.Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """What is known about one stream, while it runs and at its end.

    `start_time` and `current_time` are Unix *milliseconds* (as in the streaming guide that these names come from);
    every other time is a duration in milliseconds by a monotonic clock. Chunks are provider events; bytes are body
    bytes as the application reads them. Gaps are waits for the provider, so a slow application is not blamed on it;
    `jitter_ms` is the standard deviation of the gaps.
    """

    stream_id: str = ""
    provider: str = "unknown"
    model: str = ""
    start_time: float = 0.0
    current_time: float = 0.0
    duration_ms: float = 0.0
    bytes_received: int = 0
    chunks_received: int = 0
    bytes_per_second: float = 0.0
    chunks_per_second: float = 0.0
    window_bytes_per_second: float = 0.0
    window_chunks_per_second: float = 0.0
    avg_chunk_size: float = 0.0
    time_to_first_chunk_ms: float | None = None
    time_to_first_token_ms: float | None = None
    max_gap_ms: float = 0.0
    p50_gap_ms: float = 0.0
    p95_gap_ms: float = 0.0
    jitter_ms: float = 0.0
    stalls: int = 0
    provider_wait_ms: float = 0.0
    consumer_wait_ms: float = 0.0
    output_tokens: int = 0
    tokens_per_second: float = 0.0
    error_count: int = 0
    last_error: str | None = None
    status: str = "pending"
    raw_chunks: tuple[bytes, ...] | None = None

    def __post_init__(self) -> None:
        # One test for the common case, most of it in C: what tellmeter itself builds is clean.
        floats = _stream_floats(self)
        if not ({*map(type, floats)} == _FLOAT and min(floats) >= 0.0 and sum(floats) < math.inf):
            for name in _STREAM_FLOATS:
                force_setattr(self, name, clean_float(getattr(self, name), name))
        ints = _stream_ints(self)
        if not ({*map(type, ints)} == _INT and min(ints) >= 0 and max(ints) <= MAX_INT):
            for name in _STREAM_INTS:
                force_setattr(self, name, clean_int(getattr(self, name), name))
        for name in _STREAM_OPTIONAL:
            value = getattr(self, name)
            if value is not None and not (type(value) is float and 0.0 <= value < math.inf):
                force_setattr(self, name, clean_optional_float(value, name))
        if not _plain((self.stream_id, self.provider, self.model), SHORT_LENGTH):
            for name, limit in _STREAM_TEXT:
                force_setattr(self, name, clean_text(getattr(self, name), name, limit))
        if self.last_error is not None:
            force_setattr(self, "last_error", clean_optional_text(self.last_error, "last_error", TEXT_LENGTH))
        if type(self.status) is not str or self.status not in STREAM_STATUSES:
            changed("stream.status")
            force_setattr(self, "status", "error" if self.last_error else "completed")


_FLOAT = {float}
_INT = {int}
_STREAM_FLOATS = tuple(name for name, kind in StreamMetrics.__annotations__.items() if kind == "float")
_STREAM_INTS = tuple(name for name, kind in StreamMetrics.__annotations__.items() if kind == "int")
_stream_floats = attrgetter(*_STREAM_FLOATS)
_stream_ints = attrgetter(*_STREAM_INTS)
_STREAM_OPTIONAL = ("time_to_first_chunk_ms", "time_to_first_token_ms")
_STREAM_TEXT = (("stream_id", SHORT_LENGTH), ("provider", SHORT_LENGTH), ("model", MODEL_LENGTH))


def _plain(texts: Iterable[Any], most: int) -> bool:
    """Whether all are clean texts whose lengths add up to `most` at most: one look at all of them together."""
    try:
        joined = "".join(texts)
    except TypeError:
        return False
    return len(joined) <= most and joined.isascii() and joined.isprintable()


class AgentMetrics(msgspec.Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """One logical LLM call, however it ended. Only `model` is required.

    `timestamp` is Unix seconds at the start; `latency_ms` the whole call, retries included. `cached_tokens` and
    `cache_write_tokens` are parts of `input_tokens`, `reasoning_tokens` of `output_tokens`. `cost_usd` is None where
    the price is unknown and 0.0 only for what is free. Texts of prompts, answers and exceptions have no place here.
    """

    model: str
    id: str = msgspec.field(default_factory=uuid7)
    timestamp: float = msgspec.field(default_factory=time.time)
    response_model: str | None = None
    provider: str = "unknown"
    operation: str = "chat"
    method: str = "generate"
    latency_ms: float = 0.0
    status: str = "success"
    error_class: str | None = None
    error_category: str | None = None
    status_code: int | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    tokens_estimated: bool = False
    cost_usd: float | None = None
    price_version: str | None = None
    retries: int = 0
    retry_delay_ms: float = 0.0
    finish_reason: str | None = None
    tools_used: tuple[str, ...] = ()
    request_id: str | None = None
    trace_id: str | None = None
    span_id: str | None = None
    parent_id: str | None = None
    stream: StreamMetrics | None = None
    tags: dict[str, str] = msgspec.field(default_factory=dict)
    sample_rate: float = 1.0

    @property
    def total_tokens(self) -> int:
        """Input and output tokens together."""
        return self.input_tokens + self.output_tokens

    @property
    def ttft_ms(self) -> float | None:
        """Milliseconds to the first content or reasoning token; None where the call was no stream."""
        return None if self.stream is None else self.stream.time_to_first_token_ms

    @property
    def failed(self) -> bool:
        """Whether the call counts as an error: not what the application itself broke off."""
        return self.status in FAILURES

    def __post_init__(self) -> None:
        # One test for the common case: what tellmeter itself builds is clean, and 150,000 records a second pass here.
        if not (
            type(self.latency_ms) is float
            and 0.0 <= self.latency_ms < math.inf
            and type(self.timestamp) is float
            and 0.0 <= self.timestamp < math.inf
            and type(self.retry_delay_ms) is float
            and 0.0 <= self.retry_delay_ms < math.inf
            and type(self.sample_rate) is float
            and 0.0 <= self.sample_rate <= 1.0
            and type(self.input_tokens) is int
            and type(self.output_tokens) is int
            and type(self.cached_tokens) is int
            and type(self.cache_write_tokens) is int
            and type(self.reasoning_tokens) is int
            and type(self.retries) is int
            and 0 <= self.cached_tokens
            and 0 <= self.cache_write_tokens
            and self.cached_tokens + self.cache_write_tokens <= self.input_tokens <= MAX_INT
            and 0 <= self.reasoning_tokens <= self.output_tokens <= MAX_INT
            and 0 <= self.retries <= MAX_INT
            and type(self.tokens_estimated) is bool
            and (self.cost_usd is None or (type(self.cost_usd) is float and 0.0 <= self.cost_usd < math.inf))
            and (self.status_code is None or (type(self.status_code) is int and 0 <= self.status_code <= 999))
        ):
            self._clean_numbers()
        if not _plain(_texts(self), SHORT_LENGTH):
            for name, limit in _TEXT:
                force_setattr(self, name, clean_text(getattr(self, name), name, limit))
        given = [text for text in _optional_texts(self) if text is not None]
        if given and (not _plain(given, TEXT_LENGTH) or "" in given):
            for name, limit in _OPTIONAL_TEXT:
                force_setattr(self, name, clean_optional_text(getattr(self, name), name, limit))
        if self.tools_used:
            force_setattr(self, "tools_used", clean_names(self.tools_used, "tools_used"))
        elif type(self.tools_used) is not tuple:
            force_setattr(self, "tools_used", ())
        if self.tags:
            force_setattr(self, "tags", clean_tags(self.tags))
        elif type(self.tags) is not dict:
            force_setattr(self, "tags", {})
        if self.stream is not None and type(self.stream) is not StreamMetrics:
            changed("stream")
            force_setattr(self, "stream", None)
        if self.status != "success" or self.error_class is not None:
            self._settle_status()

    def _clean_numbers(self) -> None:
        for name in ("timestamp", "latency_ms", "retry_delay_ms"):
            force_setattr(self, name, clean_float(getattr(self, name), name))
        for name in _INTS:
            force_setattr(self, name, clean_int(getattr(self, name), name))
        rate = clean_float(self.sample_rate, "sample_rate")
        force_setattr(self, "sample_rate", rate if rate <= 1.0 else replaced("sample_rate", 1.0))
        if type(self.tokens_estimated) is not bool:
            changed("tokens_estimated")
            force_setattr(self, "tokens_estimated", clean_int(self.tokens_estimated, "tokens_estimated") > 0)
        if self.cost_usd is not None:
            force_setattr(self, "cost_usd", clean_optional_float(self.cost_usd, "cost_usd"))
        if self.status_code is not None:
            code = clean_int(self.status_code, "status_code")
            force_setattr(self, "status_code", code if 0 < code <= 999 else replaced("status_code", None))
        if self.cached_tokens + self.cache_write_tokens > self.input_tokens:
            changed("cached_tokens")
            written = min(self.cache_write_tokens, self.input_tokens)
            force_setattr(self, "cache_write_tokens", written)
            force_setattr(self, "cached_tokens", min(self.cached_tokens, self.input_tokens - written))
        if self.reasoning_tokens > self.output_tokens:
            changed("reasoning_tokens")
            force_setattr(self, "reasoning_tokens", self.output_tokens)

    def _settle_status(self) -> None:
        """A call with an error class did not succeed, and one that did not succeed has a category."""
        if self.status not in STATUSES:
            changed("status")
            force_setattr(self, "status", "error" if self.error_class else "success")
        if self.status == "success" and self.error_class is not None:
            force_setattr(self, "status", "error")
        if self.status != "success" and self.error_category is None:
            force_setattr(self, "error_category", _STATUS_CATEGORY[self.status])


_INTS = (
    "input_tokens",
    "output_tokens",
    "cached_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
    "retries",
)
_TEXT = (
    ("model", MODEL_LENGTH),
    *((name, SHORT_LENGTH) for name in ("id", "provider", "operation", "method", "status")),
)
_OPTIONAL_TEXT = (
    ("response_model", MODEL_LENGTH),
    *(
        (name, TEXT_LENGTH)
        for name in (
            "error_class",
            "error_category",
            "price_version",
            "finish_reason",
            "request_id",
            "trace_id",
            "span_id",
            "parent_id",
        )
    ),
)
_texts = attrgetter(*(name for name, _ in _TEXT))
_optional_texts = attrgetter(*(name for name, _ in _OPTIONAL_TEXT))


class MetricsSummary(msgspec.Struct, frozen=True, kw_only=True):
    """Many calls in one view. Percentiles are exact, linear between ranks (numpy's default), from one call on.

    `error_rate` is the share (0..1) of calls that ended in error, timeout or rejected; what the application cancelled
    or closed early is no error. `total_cost` adds the known costs in US dollars, `unpriced` counts the calls without
    one. The time-to-first-token percentiles are over streams, None without any.
    """

    count: int = 0
    error_count: int = 0
    error_rate: float = 0.0
    retries: int = 0
    avg_latency_ms: float = 0.0
    p50_latency_ms: float = 0.0
    p95_latency_ms: float = 0.0
    p99_latency_ms: float = 0.0
    avg_ttft_ms: float | None = None
    p50_ttft_ms: float | None = None
    p95_ttft_ms: float | None = None
    p99_ttft_ms: float | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    total_tokens: int = 0
    total_cost: float = 0.0
    unpriced: int = 0
    providers: dict[str, int] = {}
    models: dict[str, int] = {}
    errors: dict[str, int] = {}
