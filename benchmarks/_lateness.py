"""A heartbeat of 1 ms, and how late it comes: what an event loop's other work feels of a load."""

from __future__ import annotations

import asyncio
import statistics

BEAT = 0.001


async def heartbeats(begin: float, end: float) -> list[float]:
    """How late each beat was, in seconds, of those that were asked for between `begin` and `end` (`loop.time()`)."""
    loop = asyncio.get_running_loop()
    late: list[float] = []
    while (asked := loop.time()) < end:
        await asyncio.sleep(BEAT)
        if asked >= begin:
            late.append(loop.time() - asked - BEAT)
    return late


def milliseconds(late: list[float]) -> dict[str, float]:
    """The median, the 99th percentile and the largest of them."""
    centiles = statistics.quantiles(late, n=100, method="inclusive")  # the other one makes up values beyond the largest
    return {"p50": centiles[49] * 1e3, "p99": centiles[98] * 1e3, "max": max(late) * 1e3}
