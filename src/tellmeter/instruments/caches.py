"""How often a cache has what it is asked for: cache_metrics."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, cast

from ..process import is_switched_off
from ..registry.registry import MetricsRegistry, get_metrics_registry
from .instrument import Extract, Instrument, LabelExtractor
from .metric import CounterMetric, GaugeMetric
from .wrapping import SUCCESS, F, Observation, Open, wrapped

HITS, MISSES, RATIO = "cache_hits_total", "cache_misses_total", "cache_hit_ratio"

# They live as long as a function that asks one of their caches: they know their registry, and would keep it alive.
_ratios: weakref.WeakKeyDictionary[MetricsRegistry, weakref.ref[_Ratios]] = weakref.WeakKeyDictionary()


class _Ratios:
    """Sets the ratios of one registry whenever somebody is about to read it."""

    def __init__(self) -> None:
        self._caches: dict[str, tuple[CounterMetric, CounterMetric, GaugeMetric]] = {}

    def add(self, cache: str, hits: CounterMetric, misses: CounterMetric, ratio: GaugeMetric) -> None:
        """Keep the ratio of `cache` from now on."""
        self._caches[cache] = hits, misses, ratio

    def set(self) -> None:
        """Set the ratio of each cache that was asked, over all its series."""
        for cache, (hits, misses, ratio) in list(self._caches.items()):
            found, missed = hits.total("cache", cache), misses.total("cache", cache)
            if found or missed:
                ratio.series().set(found / (found + missed))


class _Lookup(Observation):
    """One look-up. Only what it returns says whether it found something."""

    __slots__ = ("_args", "_cache", "_kwargs")

    def __init__(self, cache: CacheLookups, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._cache = cache
        self._args = args
        self._kwargs = kwargs

    def end(self, outcome: str, result: object, error: BaseException | None) -> None:
        if outcome == SUCCESS:
            hit = is_hit(result)
            if hit is not None:
                self._cache.count(self._args, self._kwargs, hit=hit)


class CacheLookups(Instrument):
    """A decorator of functions that ask a cache; a block has no result that would tell."""

    def __init__(
        self,
        cache_name: str,
        label_extractor: LabelExtractor | None,
        registry: MetricsRegistry | None,
        *,
        ratio: bool,
    ) -> None:
        super().__init__({"cache": cache_name}, label_extractor, registry)
        self._cache = cache_name
        self._hits = self._counter(HITS, fill=True)
        self._misses = self._counter(MISSES, fill=True)
        self._ratio = self._gauge(RATIO, fill=True) if ratio else None
        self._kept: _Ratios | None = None

    def _opener(self, function: Callable[..., Any] | None) -> Open:
        extract: Extract | None = self._of_call(function)
        without_arguments = _Lookup(self, (), {})

        def open_lookup(function: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Observation | None:
            if is_switched_off():
                return None
            return without_arguments if extract is None else _Lookup(self, args, kwargs)

        return open_lookup

    def count(self, args: tuple[Any, ...], kwargs: dict[str, Any], *, hit: bool) -> None:
        """Count one look-up."""
        extracted = None if self._extract is None else self._extract(args, kwargs)
        (self._hits if hit else self._misses).series("", extracted).inc()
        if self._ratio is not None and self._kept is None:
            self._keep(self._ratio)

    def _keep(self, ratio: GaugeMetric) -> None:
        registry = get_metrics_registry() if self._registry is None else self._registry
        with registry._settings.lock:
            known = _ratios.get(registry)
            kept = None if known is None else known()
            if kept is None:
                kept = _Ratios()
                _ratios[registry] = weakref.ref(kept)
                registry.refresh_with(kept.set)
        kept.add(self._cache, self._hits, self._misses, ratio)
        self._kept = kept


def is_hit(result: Any) -> bool | None:
    """Whether a look-up's result says that the cache had it: `(value, True)`, or `from_cache`. None: it does not."""
    told = result[1] if isinstance(result, tuple) and len(result) == 2 else getattr(result, "from_cache", None)
    return told if isinstance(told, bool) else None


def cache_metrics(
    cache_name: str,
    track_ratio: bool = True,
    *,
    label_extractor: LabelExtractor | None = None,
    registry: MetricsRegistry | None = None,
) -> Callable[[F], F]:
    """Count what a cache's look-ups find: `cache_hits_total`, `cache_misses_total` and `cache_hit_ratio`, by `cache`.

    The function returns `(value, found: bool)`, or something with a bool `from_cache`; that goes to its caller
    unchanged. What says neither is not counted.

    Args:
        cache_name: the label `cache`.
        track_ratio: keep `cache_hit_ratio` too: hits of all look-ups in this process, as of when it is read.
        label_extractor: called with the arguments of a look-up that is counted.
        registry: the process's without one.
    """
    lookups = CacheLookups(cache_name, label_extractor, registry, ratio=track_ratio)

    def decorate(function: F) -> F:
        decorated = cast("Callable[..., Any]", function)
        return cast("F", wrapped(decorated, lookups._opener(decorated)))

    return decorate
