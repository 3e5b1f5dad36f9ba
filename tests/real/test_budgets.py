"""Processes that share a budget by sharing a store."""

import subprocess
import sys
import time

import pytest

from tellmeter.sinks.urls import store_from_url
from tests.support.interpreters import environment
from tests.support.postgresql import shared, table
from tests.unit.sinks.made import run

SERVICE = """
import asyncio, sys
from tellmeter.client.reliability.budgets import Budget
from tellmeter.collector import MetricsCollector
from tellmeter.errors import BudgetExceededError
from tellmeter.records import AgentMetrics

url = sys.argv[1]
collector = MetricsCollector(sinks=[url])
budget = Budget(limit_usd=1.0, per="tenant", store=url, refresh_seconds=0.05)
budget.bind_to(collector)


async def call(tenant, usd):
    tags = {"tenant": tenant} if tenant else {}
    try:
        await budget.check(tags)
    except BudgetExceededError:
        return "refused"
    if usd:
        collector.record(AgentMetrics(model="gpt-4o", cost_usd=usd, input_tokens=10, tags=tags))
        budget.spend(tags, usd, 10)
    return "admitted"


async def main():
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        what, tenant, usd = line.rstrip("\\n").split(",")
        if what == "call":
            told = await call(tenant, float(usd))
        elif what == "flush":
            told = str((await collector.flush()).complete)
        else:
            told = f"{budget.status(tenant).spent_usd:.2f}"
        print(told, flush=True)


asyncio.run(main())
"""


class Service:
    """One process of an application."""

    def __init__(self, url):
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVICE, url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(),
        )

    def __call__(self, what, tenant="", usd=0.0):
        self.process.stdin.write(f"{what},{tenant},{usd}\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def end(self):
        self.process.stdin.close()
        self.process.stdout.close()
        assert self.process.wait(60) == 0


def until(right, seconds=60.0):
    end = time.monotonic() + seconds
    while not right():
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.01)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path):
    return f"sqlite:///{tmp_path}/calls.db" if request.param == "sqlite" else f"{shared().url()}?table={table()}"


@pytest.mark.parametrize("tenant", ["acme", ""])
def test_two_processes_spend_one_budget(url, tenant):
    one, other = Service(url), Service(url)
    assert one("call", tenant, 0.6) == "admitted"
    assert one("flush") == "True"
    assert other("call", tenant, 0.3) == "admitted"
    assert other("status", tenant) == "0.90"
    assert other("call", tenant, 0.2) == "admitted"
    assert other("call", tenant) == "refused"
    assert other("flush") == "True"
    until(lambda: one("call", tenant) == "refused")
    assert one("call", "somebody else", 0.1) == other("call", "somebody else", 0.1) == "admitted"
    for service in (one, other):
        until(lambda service=service: (service("call", tenant), service("status", tenant)) == ("refused", "1.10"))
    one.end()
    other.end()
    late = Service(url)
    assert late("call", tenant) == "refused"
    assert late("status", tenant) == "1.10"
    late.end()
    assert run(store_from_url(url).get_summary(None)).total_cost == pytest.approx(1.3)


def test_a_database_that_goes_away_neither_stops_calls_nor_forgets_what_was_known(tmp_path):
    url = f"sqlite:///{tmp_path}/folder/calls.db"
    one = Service(url)
    assert one("call", "acme", 0.6) == "admitted"
    assert one("flush") == "True"
    (tmp_path / "folder").rename(tmp_path / "moved")
    (tmp_path / "folder").write_text("now a file")
    for _ in range(4):
        assert one("call", "acme", 0.1) == "admitted"
    assert one("call", "acme") == "refused"
    (tmp_path / "folder").unlink()
    one.end()
