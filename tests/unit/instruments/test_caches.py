import asyncio
import gc
import weakref

import pytest

from tellmeter import MetricsRegistry
from tellmeter.instruments.caches import cache_metrics, is_hit
from tests.support.metrics import values_of


class Found:
    def __init__(self, from_cache):
        self.from_cache = from_cache


@pytest.mark.parametrize(
    ("result", "hit"),
    [
        (("x", True), True),
        (("x", False), False),
        (Found(True), True),
        (Found(False), False),
        (Found("yes"), None),
        (("x", 1), None),
        (("x",), None),
        (("x", True, 1), None),
        (["x", True], None),
        (None, None),
        ("xy", None),
    ],
)
def test_what_a_result_says(result, hit):
    assert is_hit(result) is hit


def test_hits_misses_and_their_ratio(registry, own_counts):
    @cache_metrics(cache_name="embedding_cache", registry=registry)
    async def get_cached_embedding(text):
        return result[text]

    result = {"a": ("x", True), "b": ("y", False), "c": "z"}
    for text in "abac":
        assert asyncio.run(get_cached_embedding(text)) is result[text]
    labels = "cache=embedding_cache,cache_name=,operation="
    assert values_of(registry, "cache_hits") == {labels: 2}
    assert values_of(registry, "cache_misses") == {labels: 1}
    assert values_of(registry, "cache_hit_ratio") == {"cache=embedding_cache": 2 / 3}
    assert own_counts() == {}


def test_functions_of_one_cache_share_its_ratio(registry):
    one = cache_metrics("c", registry=registry)(lambda: (1, True))
    other = cache_metrics("c", registry=registry, label_extractor=lambda: {"operation": "get"})(lambda: (1, False))
    for call in (one, one, one, other):
        call()
    assert values_of(registry, "cache_hit_ratio") == {"cache=c": 0.75}
    registry.reset()
    other()
    assert values_of(registry, "cache_hit_ratio") == {"cache=c": 0}


def test_the_ratio_may_be_left_out(registry):
    cache_metrics("c", track_ratio=False, registry=registry)(lambda: (1, True))()
    assert [family.name for family in registry.families()] == ["cache_hits"]


def test_a_look_up_that_fails_says_nothing(registry, own_counts):
    class Odd:
        @property
        def from_cache(self):
            raise RuntimeError

    odd = Odd()
    with pytest.raises(ZeroDivisionError):
        cache_metrics("c", registry=registry)(lambda: 1 / 0)()
    assert cache_metrics("c", registry=registry)(lambda: odd)() is odd
    assert registry.families() == []
    assert own_counts() == {"guarded_errors": {"instrument": 1}}


def test_a_registry_is_not_kept_alive():
    registry = MetricsRegistry()
    call = cache_metrics("c", registry=registry)(lambda: (1, True))
    call()
    gone = weakref.ref(registry)
    del registry, call
    gc.collect()
    assert gone() is None
