"""Runs a program that is pasted together from a guide's blocks, with `await` where the guide has it: in a process of its own.

The program comes on standard input. What its clients' collectors did is the last line of what it prints, as JSON.
"""

from __future__ import annotations

import ast
import asyncio
import sys
import types
from typing import Any

import msgspec

from tellmeter import CollectorStats, MetricsCollector

_MODELS = {"gpt-4": "openai"}
_collectors: list[MetricsCollector] = []


class SteerLLMClient:
    """Stands for the guides' client as long as tellmeter has none: it records as one does, and asks no provider."""

    def __init__(self, metrics_config: Any = None, metrics_sinks: Any = ()) -> None:
        self.metrics_collector = MetricsCollector(metrics_config, sinks=metrics_sinks)
        _collectors.append(self.metrics_collector)

    async def generate(self, prompt: str, model: str) -> str:
        """An answer to the prompt."""
        with self.metrics_collector.track_request(provider=_MODELS.get(model, ""), model=model) as call:
            await asyncio.sleep(0)
            if model not in _MODELS:
                raise LookupError(f"there is no model {model}")
            call.input_tokens, call.output_tokens = 12, 30
        return prompt


async def use(sink: Any, number: int = 25) -> None:
    """An application with this sink: so many calls, every fifth of which fails."""
    client = SteerLLMClient(metrics_sinks=[sink])
    for index in range(number):
        try:
            await client.generate("Hello!", model="unknown" if index % 5 == 4 else "gpt-4")
        except LookupError:
            pass
    await client.metrics_collector.flush(5)


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
    vars(module).update(SteerLLMClient=SteerLLMClient, use=use)
    code = compile(program, "guide", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    waiting = eval(code, vars(module))  # the blocks of the guide
    if waiting is not None:
        await waiting
    for collector in _collectors:
        await collector.shutdown(seconds)


def main(seconds: float) -> None:
    """Run standard input; each collector has so many seconds to end."""
    asyncio.run(_run(sys.stdin.read(), seconds))
    print(msgspec.json.encode([collector.stats() for collector in _collectors]).decode())
