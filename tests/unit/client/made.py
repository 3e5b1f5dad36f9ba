"""An engine, a server that does as told, and what the collector got of it."""

from contextlib import asynccontextmanager

from tellmeter import InMemoryMetricsSink, MetricsCollector, MetricsConfig
from tellmeter.client.engine import StreamEngine
from tellmeter.testing import FaultServer

BODY = {"model": "m-1", "messages": [{"role": "user", "content": "hi"}]}
PATH = "/v1/chat/completions"
FINAL = ("stream.complete", "stream.error")


class Bench:
    """`engine` streams from `server`; `reports` are what its callback of metrics got."""

    def __init__(self, server, config, options):
        self.server = server
        self.sink = InMemoryMetricsSink()
        self.collector = MetricsCollector(config, sinks=[self.sink])
        self.reports = []
        options = {"provider": "openai", "api_key": "sk-canary", "base_url": server.url, **options}
        self.engine = StreamEngine(collector=self.collector, metrics_callback=self.reports.append, **options)

    async def records(self):
        """Every record so far, the oldest first; the callbacks have been called."""
        await self.collector.flush()
        return list(reversed(await self.sink.get_metrics()))

    async def record(self):
        """The only one."""
        (record,) = await self.records()
        return record

    def final(self):
        """The last reports of the streams."""
        return [report for report in self.reports if report.event in FINAL]


@asynccontextmanager
async def bench(*plays, config=None, **options):
    with FaultServer() as server:
        server.script(*plays)
        made = Bench(server, config or MetricsConfig(), options)
        async with made.engine:
            yield made
        await made.collector.shutdown()


def text(chunks):
    return "".join(chunk.content for chunk in chunks)
