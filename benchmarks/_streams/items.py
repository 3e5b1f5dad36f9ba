"""What an item costs more through `meter_stream`: a generator of the user's own, with it and without in turn.

The peer in the same run is what a careful user writes by hand with prometheus_client: a counter for each item, a
histogram for the first. Everything in one process, CPU of all threads.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import time

from . import in_a_process

ITEMS = 20_000
TEXT, MAPPING = "word ", {"response": "word ", "done": False}
KINDS = {"str": (TEXT, False), "dict": (MAPPING, False), "async str": (TEXT, True), "async dict": (MAPPING, True)}
OURS, PEER = "meter_stream", "prometheus_client"


def words(item):
    for _ in range(ITEMS):
        yield item


async def awords(item):
    for _ in range(ITEMS):
        yield item


def by_prometheus_client():
    from prometheus_client import Counter, Histogram

    items = Counter("llm_items_total", "i", ["provider", "model"]).labels("ollama", "m")
    first_item = Histogram("llm_first_item_seconds", "f", ["provider", "model"]).labels("ollama", "m")

    def watched(source):
        started, first = time.perf_counter(), None
        for item in source:
            if first is None:
                first = time.perf_counter() - started
                first_item.observe(first)
            items.inc()
            yield item

    async def awatched(source):
        started, first = time.perf_counter(), None
        async for item in source:
            if first is None:
                first = time.perf_counter() - started
                first_item.observe(first)
            items.inc()
            yield item

    return lambda source: awatched(source) if hasattr(source, "__aiter__") else watched(source)


def child(rounds: int) -> dict[str, dict[str, list[float]]]:
    """Microseconds of CPU an item that are added, by subject and kind, of each round; "plain" has what it is without."""
    import tellmeter

    collector = tellmeter.configure(sinks=[tellmeter.InMemoryMetricsSink()])
    loop = asyncio.new_event_loop()
    ways = {
        "plain": lambda source: source,
        OURS: lambda source: tellmeter.meter_stream(source, provider="ollama", model="m"),
        PEER: by_prometheus_client(),
    }

    async def read(source):
        async for _ in source:
            pass

    def turn(way, kind):
        item, is_async = KINDS[kind]
        gc.collect()
        started = time.process_time()
        if is_async:
            loop.run_until_complete(read(ways[way](awords(item))))
        else:
            for _ in ways[way](words(item)):
                pass
        collector.flush_sync()
        return (time.process_time() - started) / ITEMS * 1e6

    found: dict[str, dict[str, list]] = {way: {kind: [] for kind in KINDS} for way in ways}
    for number in range(rounds + 1):
        for kind in KINDS:
            turns = {way: turn(way, kind) for way in (ways if number % 2 else reversed(ways))}
            if not number:
                continue  # to warm up
            for way, cost in turns.items():
                found[way][kind].append(cost - (0.0 if way == "plain" else turns["plain"]))
    return found


def run(quick: bool) -> None:
    found = in_a_process("items", 3 if quick else 9)
    middle = {way: {kind: statistics.median(rows) for kind, rows in kinds.items()} for way, kinds in found.items()}
    print(f"{'us of CPU an item':32}" + "".join(f"{kind:>14}" for kind in KINDS))
    for way, kinds in middle.items():
        told = "plain" if way == "plain" else f"{way}, added"
        print(f"{told:32}" + "".join(f"{value:14.2f}" for value in kinds.values()))
    ratios = (f"{kind} {middle[PEER][kind] / middle[OURS][kind]:.2g}x ours" for kind in KINDS)
    print(f"{PEER} costs {', '.join(ratios)}; it counts, and measures nothing else")
