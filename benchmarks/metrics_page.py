"""How long a scrape of 100,000 samples holds up the event loop that serves it, beside prometheus_client's ASGI application.

    python benchmarks/metrics_page.py

A task asks for its turn every millisecond; what it waits beyond that, at worst in a scrape, is the lag. Medians and
the worst of ten scrapes each.
"""

from __future__ import annotations

import asyncio
import statistics
import time

import prometheus_client

from tellmeter import MetricsRegistry, get_metrics_app

NAMES = ("endpoint", "method", "status")
SCRAPES = 10


def ours(kind: str, number: int):
    registry = MetricsRegistry(max_series=number)
    metric = registry.counter("made", "d", NAMES) if kind == "counters" else registry.histogram("made", "d", NAMES)
    for index in range(number):
        series = metric.labels(f"/v1/{index}", "POST", "200")
        series.inc() if kind == "counters" else series.observe(0.3)
    return get_metrics_app(registry)


def theirs(kind: str, number: int):
    prometheus_client.disable_created_metrics()
    registry = prometheus_client.CollectorRegistry()
    make = prometheus_client.Counter if kind == "counters" else prometheus_client.Histogram
    metric = make("made", "d", NAMES, registry=registry)
    for index in range(number):
        series = metric.labels(f"/v1/{index}", "POST", "200")
        series.inc() if kind == "counters" else series.observe(0.3)
    return prometheus_client.make_asgi_app(registry)


async def scrape(app, headers) -> tuple[float, float]:
    """Seconds that a scrape takes, and the longest that another task had to wait meanwhile."""
    lags = [0.0]
    over = asyncio.Event()

    async def tick():
        while not over.is_set():
            asked = time.perf_counter()
            await asyncio.sleep(0.001)
            lags.append(time.perf_counter() - asked - 0.001)

    async def send(message):
        pass

    async def receive():
        return {"type": "http.request"}

    ticking = asyncio.create_task(tick())
    await asyncio.sleep(0.02)
    scope = {"type": "http", "method": "GET", "path": "/metrics", "query_string": b"", "headers": headers}
    started = time.perf_counter()
    await app(scope, receive, send)
    took = time.perf_counter() - started
    over.set()
    await ticking
    return took, max(lags)


async def main() -> None:
    print(f"{'100,000 samples':34} {'a scrape':>10} {'lag, median':>12} {'worst':>9}")
    for kind, number in (("counters", 100_000), ("histograms", 6_000)):
        for coding, headers in (("plain", []), ("gzip", [(b"accept-encoding", b"gzip")])):
            worst = {}
            for name, make in (("tellmeter", ours), ("prometheus_client", theirs)):
                app = make(kind, number)
                found = [await scrape(app, headers) for _ in range(SCRAPES if make is ours else 3)]
                lags = [lag * 1e3 for _, lag in found]
                worst[name] = max(lags)
                took = statistics.median(took for took, _ in found) * 1e3
                print(
                    f"{name + ', ' + kind + ', ' + coding:34} {took:7.0f} ms {statistics.median(lags):9.2f} ms"
                    f" {max(lags):6.2f} ms"
                )
            print(f"{'':34} the loop waits {worst['prometheus_client'] / worst['tellmeter']:.0f}x longer there")


if __name__ == "__main__":
    asyncio.run(main())
