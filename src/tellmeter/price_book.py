"""genai-prices, read once per model instead of once per call.

Which model a name means is looked up once. What it costs is learnt by asking: between two context-length tiers and two
changes of price, genai-prices' total is a fixed sum of counts times rates, so ten of its answers give these rates
exactly, and one more checks them. Caches, audio, service tiers, dates and hours are thereby billed as it bills them;
what is no such sum is left to it, call by call.
"""

from __future__ import annotations

import math
import re
import warnings
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, date, datetime, time, timedelta
from decimal import Context, DivisionByZero, InvalidOperation, Overflow, localcontext
from fractions import Fraction
from itertools import pairwise

import genai_prices
import msgspec
from genai_prices import types as genai
from genai_prices.data_snapshot import DataSnapshot, get_snapshot

from .rates import COUNTS, Rates, adds_up, rates_of, settled
from .usage import Usage

# genai-prices' ids of the providers that it calls otherwise than we do. Its own matching of provider names is fuzzy: it
# takes azure.ai.openai for OpenAI.
_PROVIDERS = {
    "azure.ai.openai": "azure",
    "azure.ai.inference": "azure",
    "aws.bedrock": "aws",
    "gcp.gemini": "google",
    "gcp.vertex_ai": "google",
    "x_ai": "x-ai",
    "mistral_ai": "mistral",
    "moonshot_ai": "moonshotai",
    "together_ai": "together",
    "fireworks_ai": "fireworks",
    "voyage_ai": "voyageai",
    "z_ai": "zai",
}
# The asked name says more than the answer's: Bedrock's region, Hugging Face's `model:host`.
_ASKED_FIRST = frozenset({"aws.bedrock", "hugging_face"})
# The asked name may be anything (a deployment's), or another model than the one that answered (a router's first pick).
_ANSWERED_ONLY = frozenset({"azure.ai.openai", "openrouter"})
# The maker is part of the name here; the bare name is an outdated entry, or nobody's.
_WHOLE_NAMES = frozenset({"openrouter", "hugging_face"})
# Service tiers that genai-prices has under other names.
_CONTEXTS: dict[str, Mapping[str, str]] = {
    "batch": {"processing": "batch"},
    "fast": {"service_tier": "fast", "speed": "fast"},
}

_MAX_RESOLVED = 1024
_MAX_SPANS = 8
_VERSION_LENGTH = 64
# The application may have set any precision and traps for its threads; differences of totals have to be exact.
_EXACT = Context(prec=60, traps=[DivisionByZero, InvalidOperation, Overflow])

# provider, model, response_model, service_tier
Call = tuple[str, str, str | None, str | None]


class Edition:
    """One state of the price data and what was resolved from it: both are replaced together."""

    def __init__(self, snapshot: DataSnapshot) -> None:
        self.snapshot = snapshot
        self.version = _version(snapshot)
        self.resolved: dict[Call, Priced | None] = {}
        self._by_id = {provider.id: provider for provider in snapshot.providers}

    def resolve(self, call: Call) -> Priced | None:
        """Look the model up, and remember the answer (None too) as one of the last 1024."""
        provider, model, response_model, service_tier = call
        tier = service_tier.lower() if service_tier else ""
        context = _CONTEXTS.get(tier) or ({"service_tier": tier} if tier else None)
        found = next(self._models(provider, _names(provider, model, response_model)), None)
        priced = None if found is None else Priced(*found, context)
        # Without a lock, which a fork could leave held in the child: each step is atomic, and whoever comes next puts
        # right what two threads did at once.
        with suppress(RuntimeError, StopIteration):
            while len(self.resolved) >= _MAX_RESOLVED:
                self.resolved.pop(next(iter(self.resolved)), None)
        self.resolved[call] = priced
        return priced

    def _models(self, provider: str, names: Sequence[str]) -> Iterator[tuple[genai.Provider, genai.ModelInfo]]:
        # Not by the snapshot's own look-ups: they keep every name that they were ever asked for.
        for name in names:
            source = _PROVIDERS.get(provider, provider)
            if provider == "hugging_face":
                name, _, host = name.rpartition(":")
                source = f"huggingface_{host}"
            # models/gemini-2.5-flash, accounts/fireworks/models/glm-5
            short = name if provider in _WHOLE_NAMES else name.rpartition("/")[2]
            for ref in dict.fromkeys((name, short)):
                for one in self._sources(source, ref.lower()):
                    model = one.find_model(ref, all_providers=self.snapshot.providers)
                    if model is not None:
                        yield one, model

    def _sources(self, source: str, ref: str) -> list[genai.Provider]:
        if source != "unknown":
            return [self._by_id[source]] if source in self._by_id else []
        return [one for one in self.snapshot.providers if one.model_match is not None and one.model_match.is_match(ref)]


def current_edition(known: Edition | None) -> Edition:
    """The prices in force: `known`, unless the application has fetched newer ones since."""
    snapshot = get_snapshot()
    return known if known is not None and known.snapshot is snapshot else Edition(snapshot)


def _version(snapshot: DataSnapshot) -> str:
    from genai_prices.data import providers

    text = f"genai-prices {genai_prices.__version__}"
    if snapshot.providers is not providers:  # not the package's own
        text = f"{text} {snapshot.timestamp.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
    return text[:_VERSION_LENGTH]


def _names(provider: str, asked: str, answered: str | None) -> Sequence[str]:
    """The names to look for, the billed one first: mostly the answer's, which is what an asked alias stands for."""
    if not answered or answered == asked:
        return (asked,)
    if provider in _ASKED_FIRST or asked.startswith(f"{answered}:"):  # OpenRouter's `model:free`
        return (asked, answered)
    return (answered,) if provider in _ANSWERED_ONLY else (answered, asked)


# Every count of the probe has room for one more within its parent.
_PROBE = Usage(
    input_tokens=100,
    output_tokens=100,
    cached_tokens=10,
    cache_write_tokens=10,
    cache_write_1h_tokens=5,
    reasoning_tokens=10,
    input_audio_tokens=10,
    cached_audio_tokens=5,
    output_audio_tokens=10,
)
_CHECK = Usage(
    input_tokens=997,
    output_tokens=991,
    cached_tokens=331,
    cache_write_tokens=113,
    cache_write_1h_tokens=29,
    reasoning_tokens=71,
    input_audio_tokens=127,
    cached_audio_tokens=31,
    output_audio_tokens=17,
)


class _Span(msgspec.Struct, frozen=True):
    """Prices that hold for calls from `since` until before `until` (Unix seconds).

    `rates[i]` is for more than `starts[i - 1]` and up to `starts[i]` input tokens. Without any, genai-prices is asked.
    """

    since: float
    until: float
    by_token: bool
    starts: tuple[int, ...]
    rates: tuple[Rates, ...]


class Priced:
    """A model of genai-prices, and what was learnt of its prices so far."""

    __slots__ = ("_context", "_model", "_provider", "_spans")

    def __init__(self, provider: genai.Provider, model: genai.ModelInfo, context: Mapping[str, str] | None) -> None:
        self._provider = provider
        self._model = model
        self._context = context
        self._spans: tuple[_Span, ...] = ()

    def dollars(self, usage: Usage, at: float) -> float | None:
        """US dollars of a call at a Unix time; None where it is not tokens that the model is billed by."""
        for span in self._spans:
            if span.since <= at < span.until:
                break
        else:
            span = self._learn(at)
        if not span.by_token:
            return None
        if not usage.input_tokens and not usage.output_tokens:
            return 0.0
        if not adds_up(usage):
            usage = settled(usage)
        if span.rates:
            return span.rates[bisect_left(span.starts, usage.input_tokens)].dollars(usage)
        return float(self._total(usage, datetime.fromtimestamp(at, UTC)))

    def _learn(self, at: float) -> _Span:
        moment = datetime.fromtimestamp(at, UTC)
        since, until = _unchanged_around(self._model, moment)
        prices = [self._model.get_prices(moment), self._model.get_prices(moment, self._context)]
        starts = sorted({start for price in prices for start in _tier_starts(price)})
        apart = all(high - low > _CHECK.input_tokens for low, high in pairwise((0, *starts)))
        try:
            rates = tuple(self._rates_above(low, moment) for low in (0, *starts)) if apart else ()
        except (ArithmeticError, ValueError):
            rates = ()
        # An empty price is how genai-prices says free. One of hours, pages or characters only says nothing of tokens.
        by_token = not (rates and all(rate.free for rate in rates) and any(map(_is_billed, prices)))
        span = _Span(since, until, by_token, tuple(starts), rates)
        self._spans = (span, *self._spans[: _MAX_SPANS - 1])
        return span

    def _rates_above(self, low: int, moment: datetime) -> Rates:
        """The rates of calls with more than `low` input tokens; ValueError if their price is no such sum."""

        def total(probe: Usage, extra: str = "") -> Fraction:
            usage = msgspec.structs.replace(probe, input_tokens=low + probe.input_tokens)
            if extra:
                setattr(usage, extra, getattr(usage, extra) + 1)
            return self._total(usage, moment)

        base = total(_PROBE)
        each = {name: total(_PROBE, name) - base for name in COUNTS}
        fixed = base - low * each["input_tokens"] - sum(each[name] * getattr(_PROBE, name) for name in COUNTS)
        rates = rates_of(fixed, each)
        check = msgspec.structs.replace(_CHECK, input_tokens=low + _CHECK.input_tokens)
        if rates.dollars(check) != float(total(_CHECK)):
            raise ValueError("its price is no sum of rates")
        return rates

    def _total(self, usage: Usage, moment: datetime) -> Fraction:
        """genai-prices' own answer, with every count stated that it could ask for: it refuses to guess overlaps."""
        _hush()
        tokens = genai.Usage(
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            cache_read_tokens=usage.cached_tokens,
            cache_write_tokens=usage.cache_write_tokens,
            cache_write_5m_tokens=usage.cache_write_tokens - usage.cache_write_1h_tokens,
            cache_write_1h_tokens=usage.cache_write_1h_tokens,
            output_reasoning_tokens=usage.reasoning_tokens,
            input_audio_tokens=usage.input_audio_tokens,
            cache_audio_read_tokens=usage.cached_audio_tokens,
            output_audio_tokens=usage.output_audio_tokens,
            # No provider states these.
            cache_audio_write_tokens=0,
            cache_audio_write_5m_tokens=0,
            cache_audio_write_1h_tokens=0,
            output_audio_reasoning_tokens=0,
        )
        with localcontext(_EXACT):
            price = self._model.calc_price(
                tokens, self._provider, genai_request_timestamp=moment, price_context=self._context
            )
        return Fraction(price.total_price)


def _tier_starts(price: genai.ModelPrice) -> list[int]:
    tiered = [value for value in vars(price).values() if isinstance(value, genai.TieredPrices)]
    return [tier.start for value in tiered for tier in value.tiers]


def _is_billed(price: genai.ModelPrice) -> bool:
    return any(value is not None and value != 0 for value in vars(price).values())


def _unchanged_around(model: genai.ModelInfo, moment: datetime) -> tuple[float, float]:
    """From when until before when (Unix seconds) the prices of `moment` hold."""
    dated = [] if isinstance(model.prices, genai.ModelPrice) else model.prices
    edges: list[float] = []
    for one in (*dated, *(model.price_variants or ())):
        limit = one.constraint
        if isinstance(limit, genai.StartDateConstraint):
            edges.append(_instant(limit.start_date, time()))
        elif isinstance(limit, genai.TimeOfDateConstraint):
            days = [moment.date() + timedelta(days=days) for days in (-1, 0, 1)]
            edges += [_instant(day, hour) for day in days for hour in (limit.start_time, limit.end_time)]
        elif limit is not None:
            return math.inf, -math.inf  # of a kind that we do not know: learnt for this call only
    at = moment.timestamp()
    since = max((edge for edge in edges if edge <= at), default=-math.inf)
    return since, min((edge for edge in edges if edge > at), default=math.inf)


def _instant(day: date, hour: time) -> float:
    return datetime.combine(day, hour, hour.tzinfo or UTC).timestamp()


_QUIET_MODULES = r"(genai_prices|tellmeter\.price_book)(\.|$)"
_QUIET = ("ignore", None, Warning, re.compile(_QUIET_MODULES), 0)


def _hush() -> None:
    """Keep genai-prices' warnings (of fetched prices of a kind that it does not know yet) from the application.

    By one narrow filter that stays: `catch_warnings` here would put back filters that other threads have changed since.
    """
    if not warnings.filters or warnings.filters[0] != _QUIET:
        warnings.filterwarnings("ignore", module=_QUIET_MODULES)
