"""What MetricsMiddleware adds to a request, beside prometheus-fastapi-instrumentator's middleware in the same run.

    python benchmarks/http_middleware.py

Four FastAPI applications that are alike (bare; ours; theirs as it comes; theirs with only a count and a latency, which is
what ours has, without the requests in progress) take turns of 500 requests over all routes, called in process. CPU time;
medians of the rounds, and what a middleware adds taken within a round. The quartiles of the ratio are behind it.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import sys
import time

import prometheus_client
from _harness import frozen, middle, ratio
from fastapi import FastAPI, Response
from prometheus_fastapi_instrumentator import metrics
from prometheus_fastapi_instrumentator.middleware import PrometheusInstrumentatorMiddleware

from tellmeter import MetricsRegistry
from tellmeter.instruments.http import MetricsMiddleware

REQUESTS = 500
ROUNDS = 60


def application(routes):
    app = FastAPI()

    async def item(item_id: str):
        return Response(b"ok")

    for number in range(routes):
        app.get(f"/api/v1/r{number}/{{item_id}}")(item)
    return app


def applications(routes):
    made = {name: application(routes) for name in ("bare", "ours", "theirs", "theirs, two metrics")}
    registries = MetricsRegistry(), prometheus_client.CollectorRegistry(), prometheus_client.CollectorRegistry()
    made["ours"].add_middleware(MetricsMiddleware, registry=registries[0])
    made["theirs"].add_middleware(
        PrometheusInstrumentatorMiddleware, registry=registries[1], should_group_status_codes=False
    )
    made["theirs, two metrics"].add_middleware(
        PrometheusInstrumentatorMiddleware,
        registry=registries[2],
        should_group_status_codes=False,
        instrumentations=[metrics.requests(registry=registries[2]), metrics.latency(registry=registries[2])],
    )
    return made, registries


def scopes(routes):
    """The requests of a turn, as a server gives them; what is in them is made anew for each."""
    for number in range(REQUESTS):
        path = f"/api/v1/r{number % routes}/{number}"
        yield {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "scheme": "http",
            "server": ("127.0.0.1", 80),
            "client": ("127.0.0.1", 5),
            "method": "GET",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [(b"host", b"example"), (b"accept", b"*/*"), (b"user-agent", b"benchmark")],
        }


async def receive():
    return {"type": "http.request", "body": b"", "more_body": False}


async def send(message):
    pass


async def turn(app, routes):
    """Microseconds a request."""
    asked = list(scopes(routes))
    gc.collect()
    started = time.process_time()
    for scope in asked:
        await app(scope, receive, send)
    return (time.process_time() - started) / REQUESTS * 1e6


async def measure(routes):
    apps, registries = applications(routes)
    found = {name: [] for name in apps}
    for app in apps.values():
        await turn(app, routes)
    with frozen():
        for number in range(ROUNDS):
            order = list(apps) if number % 2 else list(apps)[::-1]
            for name in order:
                found[name].append(await turn(apps[name], routes))
    expected = (ROUNDS + 1) * REQUESTS
    counted = sum(series.read() for series in registries[0].counter("http_requests_total").series.values())
    assert counted == expected
    for registry in registries[1:]:
        samples = [one for family in registry.collect() for one in family.samples]
        assert sum(one.value for one in samples if one.name == "http_requests_total") == expected
    return found


def show(routes, found):
    bare = found.pop("bare")
    added = {name: [one - other for one, other in zip(taken, bare, strict=True)] for name, taken in found.items()}
    print(f"{routes:3} routes, us of CPU a request: bare application {middle(bare):.1f}")
    for name, rounds in added.items():
        low, _, high = statistics.quantiles(rounds, n=4)
        text = f"     {name + ' adds':28}{middle(rounds):8.2f} ({low:.2f}-{high:.2f})"
        if name != "ours":
            times, spread = ratio(rounds, added["ours"])
            text += f"{times:8.1f}x ours {spread}"
        print(text, flush=True)


async def main():
    for routes in (1, 10, 50):
        show(routes, await measure(routes))
    print(f"Python {sys.version.split()[0]}")


if __name__ == "__main__":
    asyncio.run(main())
