"""A running stream's memory, and what 1,000 streams cost that wait: one process a subject, no network.

The streams are read for a while, each to another chunk, so that what waits to be read is there at its average; then
they wait for their provider. Bytes by tracemalloc: what the process has with streams that are metered, less what it has
with the same streams that are not. CPU of all threads while nothing comes.
"""

from __future__ import annotations

import asyncio
import gc
import time
import tracemalloc

from _subjects import http_clients, installed_peers, sdk_clients, streamed

from . import in_a_process, judged
from .subjects import NOISE, OURS, PLAIN, SUBJECTS, aread_lines, aread_sdk, chunks, reports

WANTED = 4096  # bytes
CHUNKS = 40  # that each stream brings at least
SPREAD = 32  # streams stop at as many different chunks
PARTS = chunks(CHUNKS + SPREAD + 1)
HOW = {"httpx2": 1000, "openai SDK": 50}
"""How many streams are held: the SDK takes long to read them, and peers see only it."""
QUIET = (OURS, "tellmeter, callback at 1 s", "tellmeter, callback at 100 ms")


class Held:
    """Streams that are read and then wait."""

    def __init__(self, subject, how: str, number: int) -> None:
        import httpx2

        held = self
        self.waiting = 0
        self.all_wait = asyncio.Event()

        class Body(httpx2.AsyncByteStream):
            def __init__(self, size):
                self.size = size

            async def __aiter__(self):
                for part in PARTS[: self.size]:
                    yield bytes(bytearray(part))  # as from a socket: nobody else has these bytes
                held.waiting += 1
                if held.waiting == number:
                    held.all_wait.set()
                await asyncio.Event().wait()

        sizes = iter(range(number))
        _, http = http_clients(lambda request: streamed(Body(CHUNKS + next(sizes) % SPREAD)))
        _, client = sdk_clients(None, http)
        self.tasks = [
            asyncio.create_task(aread_lines(http) if how == "httpx2" else aread_sdk(subject.acall, client))
            for _ in range(number)
        ]

    async def end(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


async def memory_of(subject, how: str, number: int, seconds: float) -> int:
    """Bytes of that many streams and of all that comes with them, after `seconds` of waiting."""
    subject.on()
    gc.collect()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    held = Held(subject, how, number)
    await held.all_wait.wait()
    await asyncio.sleep(seconds)
    gc.collect()
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    await held.end()
    subject.seen()
    subject.off()
    return after - before


async def cost_of_waiting(subject, how: str, number: int, seconds: float) -> tuple[float, float]:
    """Seconds of CPU in a second, and reports in a second."""
    subject.on()
    held = Held(subject, how, number)
    await held.all_wait.wait()
    told, cpu, wall = reports[0], time.process_time(), time.perf_counter()
    await asyncio.sleep(seconds)
    wall = time.perf_counter() - wall
    found = (time.process_time() - cpu) / wall, (reports[0] - told) / wall
    await held.end()
    subject.seen()
    subject.off()
    return found


def child(name: str, how: str, seconds: float) -> dict[str, float]:
    subject, plain = SUBJECTS[name](), SUBJECTS[PLAIN]()
    number = HOW[how]
    for one in (subject, plain):  # what is made once is no stream's
        asyncio.run(cost_of_waiting(one, how, 10, 0.1))
    bare = asyncio.run(memory_of(plain, how, number, 0.0))
    metered = asyncio.run(memory_of(subject, how, number, 1.5 if "callback" in name else 0.0))
    found = {"bytes": (metered - bare) / number}
    if name in QUIET and how == "httpx2":
        found["cores"], found["reports"] = asyncio.run(cost_of_waiting(subject, how, number, seconds))
    return found


def run(quick: bool) -> None:
    seconds = 1.0 if quick else 3.0
    print(
        f"{'added':32}{'read by':>12}{'streams':>9}{'bytes each':>12}{'cores, waiting':>16}{'reports/s':>11}{'us a report':>13}"
    )
    asked = [(name, "httpx2") for name in (*QUIET, NOISE)] + [
        (name, "openai SDK") for name in (OURS, *installed_peers())
    ]
    base = 0.0
    for name, how in asked:
        found = in_a_process("held", name, how, seconds)
        line = f"{name:32}{how:>12}{HOW[how]:9,}{found['bytes']:12,.0f}"
        if "cores" in found:
            base = base or found["cores"]
            each = (found["cores"] - base) / found["reports"] * 1e6 if found["reports"] else 0.0
            line += f"{found['cores']:16.3f}{found['reports']:11,.0f}" + (f"{each:13.0f}" if each else f"{'-':>13}")
        else:
            line += f"{'-':>16}{'-':>11}{'-':>13}"
        if name in QUIET:
            line += f"   wanted {WANTED:,}: {judged(found['bytes'], WANTED)}"
        print(line, flush=True)
