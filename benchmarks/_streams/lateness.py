"""How late a heartbeat of 1 ms is while 1,000 streams run: at 200 chunks a second in all, and as many as the loop takes.

"1,000 streams at 200 chunks/s" is read as 200 over all of them: 200 of each would be 200,000, and the SDK alone needs
80 us for one. So that there is a load too, the highest rate is looked for that the program sustains without a meter
(99 % of what is asked of it, p99 at most 5 ms), with the SDK and with httpx2 alone; all subjects get that same rate.
Streams of 200 chunks follow each other; their chunks come by timers of the same loop, part of the plain program.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import random
import statistics
import time
from typing import Any

from _lateness import heartbeats, milliseconds
from _subjects import http_clients, installed_peers, sdk_clients, streamed

from . import in_a_process, judged
from .subjects import OURS, PLAIN, SUBJECTS, aread_lines, aread_sdk, chunks

STREAMS = 1000
WARM_UP = 0.3
WANTED = 2.0  # milliseconds
SUSTAINED_P99 = 5.0  # milliseconds
STEP = 0.8  # from one rate that is tried to the next
SDK, LINES = "openai SDK", "httpx2 lines"
NAMES = (PLAIN, OURS, "tellmeter, callback at 1 s")
ASKED = 200.0
PEER = "opentelemetry genai-openai"
PARTS = chunks(200)


class Pace:
    """Streams whose chunks come so that all of them together bring `rate` a second; 0 for as fast as they are read."""

    def __init__(self, rate: float) -> None:
        self.period = STREAMS / rate if rate else 0.0
        self.sent = 0
        self.begun = 0
        self.all_run = asyncio.Event()

    def body(self) -> Any:
        import httpx2

        pace = self

        class Paced(httpx2.AsyncByteStream):
            async def __aiter__(self):
                loop = asyncio.get_running_loop()
                pace.begun += 1
                if pace.begun <= STREAMS:  # the first ones begin with a chunk at once: from then on they all run
                    yield PARTS[0]
                    if pace.begun == STREAMS:
                        pace.all_run.set()
                due = loop.time() + pace.period * random.random()
                for part in itertools.islice(PARTS, 1, None):
                    await asyncio.sleep(max(0.0, due - loop.time()))
                    pace.sent += 1
                    yield part
                    due = max(due + pace.period, loop.time())  # who is late skips no turn and makes none up

        return Paced()


async def load(subject, how: str, rate: float, seconds: float) -> dict[str, float]:
    """Lateness in ms, chunks a second, and cores that it took."""
    loop = asyncio.get_running_loop()
    pace = Pace(rate)
    _, http = http_clients(lambda request: streamed(pace.body()))
    _, client = sdk_clients(None, http)

    async def streams():
        while True:
            await (aread_sdk(subject.acall, client) if how == SDK else aread_lines(http))

    tasks = [asyncio.create_task(streams()) for _ in range(STREAMS)]
    await pace.all_run.wait()
    gc.collect()
    await asyncio.sleep(WARM_UP)
    begin, cpu, sent = loop.time(), time.process_time(), pace.sent
    late = await heartbeats(begin, begin + seconds)
    took = loop.time() - begin
    found = {
        **milliseconds(late),
        "rate": (pace.sent - sent) / took,
        "cores": (time.process_time() - cpu) / took,
    }
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return found


def once(name: str, how: str, rate: float, seconds: float) -> dict[str, float]:
    subject = SUBJECTS[name]()
    subject.on()
    try:
        return asyncio.run(load(subject, how, rate, seconds))
    finally:
        subject.seen()
        subject.off()


def sustained(how: str) -> float:
    """The highest rate at which the loop of the program without a meter is not late."""
    rate = once(PLAIN, how, 0.0, 1.0)["rate"]
    while rate > STREAMS:
        rate *= STEP
        found = once(PLAIN, how, rate, 1.0)
        if found["rate"] >= 0.99 * rate and found["p99"] <= SUSTAINED_P99:
            break
    return rate


def child(rounds: int, seconds: float) -> list[dict[str, Any]]:
    """Of each load: how, rate, and by subject the rounds' figures."""
    peers = [PEER] if PEER in installed_peers() else []
    once(PLAIN, SDK, ASKED, 0.5)
    gc.freeze()
    loads = [(SDK, ASKED, NAMES), (SDK, sustained(SDK), [*NAMES, *peers]), (LINES, sustained(LINES), NAMES)]
    made = []
    for how, rate, names in loads:
        found: dict[str, list] = {name: [] for name in names}
        for number in range(rounds):
            for name in names if number % 2 else reversed(names):
                found[name].append(once(name, how, rate, seconds))
        made.append({"how": how, "rate": rate, "found": {name: found[name] for name in names}})
    return made


def run(quick: bool) -> None:
    for one in in_a_process("lateness", 1 if quick else 3, 1.0 if quick else 2.0):
        why = "as asked" if one["rate"] == ASKED else "the highest that the plain program sustains"
        print(f"\n{STREAMS:,} streams, {one['how']}, {one['rate']:,.0f} chunks/s in all ({why})")
        report(one["found"])


def report(found: dict[str, list[dict[str, float]]]) -> None:
    print(f"{'lateness in ms':36}{'p50':>8}{'p99':>8}{'max':>8}{'worst':>8}{'chunks/s':>10}{'cores':>7}   p99 added")
    more = {
        name: statistics.median(one["p99"] - plain["p99"] for one, plain in zip(rounds, found[PLAIN], strict=True))
        for name, rounds in found.items()
    }
    for name, rounds in found.items():
        middle = {key: statistics.median(one[key] for one in rounds) for key in rounds[0]}
        told = f"{more[name]:+.2f} ms"
        if name.startswith(OURS):
            told += f", wanted {WANTED:.0f}: {judged(more[name], WANTED)}"
        print(
            f"{name:36}{middle['p50']:8.2f}{middle['p99']:8.2f}{middle['max']:8.1f}"
            f"{max(one['max'] for one in rounds):8.1f}{middle['rate']:10,.0f}{middle['cores']:7.2f}   {told}",
            flush=True,
        )
