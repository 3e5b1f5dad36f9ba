"""Runs a program that is pasted together from a guide's blocks, with `await` where the guide has it: in a process of its own.

The program comes on standard input. What its collectors did is the last line of what it prints, as JSON.
"""

from __future__ import annotations

import ast
import asyncio
import sys
import types
from typing import Any

import msgspec

from tellmeter import CollectorStats, LLMClient, MetricsCollector, UnknownModelError

_collectors: list[MetricsCollector] = []


async def use(sink: Any, number: int = 25) -> None:
    """An application with this sink: so many calls, every fifth of which fails."""
    client = LLMClient(metrics_sinks=[sink])
    for index in range(number):
        try:
            await client.generate("Hello!", model="unknown" if index % 5 == 4 else "gpt-4")
        except UnknownModelError:
            pass
    await client.metrics_collector.flush(5)


def _note_collectors() -> None:
    make = MetricsCollector.__init__

    def noted(self: MetricsCollector, *arguments: Any, **options: Any) -> None:
        make(self, *arguments, **options)
        _collectors.append(self)

    MetricsCollector.__init__ = noted  # type: ignore[method-assign]


def read_told(printed: str) -> list[CollectorStats]:
    """The ledgers of a program's collectors, which balance and have nothing left."""
    told = msgspec.json.decode(printed.splitlines()[-1], type=list[CollectorStats])
    for stats in told:
        assert stats.balanced and not stats.queued, stats
        for sink in stats.sinks.values():
            assert sink.accepted == sink.delivered + sum(sink.dropped.values()), stats
    return told


async def _run(program: str, seconds: float) -> None:
    # A real module: annotations and pickles of what it defines are looked up there.
    module = types.ModuleType("guide")
    sys.modules["guide"] = module
    vars(module).update(use=use)
    code = compile(program, "guide", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    waiting = eval(code, vars(module))  # the blocks of the guide
    if waiting is not None:
        await waiting
    for collector in _collectors:
        await collector.shutdown(seconds)


def main(seconds: float) -> None:
    """Run standard input; each collector has so many seconds to end."""
    _note_collectors()
    asyncio.run(_run(sys.stdin.read(), seconds))
    print(msgspec.json.encode([collector.stats() for collector in _collectors]).decode())
