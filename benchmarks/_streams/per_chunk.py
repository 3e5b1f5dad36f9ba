"""What a chunk costs more when it is metered: each subject in a process of its own, on and off in turn, no network.

On and off in the same process, a fraction of a second apart: two processes that run the same program differ by more
than what is looked for. All threads count, and what waits at the end of a turn is settled within it.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import time
from typing import NamedTuple

from _subjects import bodies, http_clients, installed_peers, sdk_clients, streamed

from . import in_a_process, judged
from .subjects import (
    DISABLED,
    NOISE,
    OURS,
    PLAIN,
    SUBJECTS,
    aread_lines,
    aread_sdk,
    chunks,
    read_lines,
    read_sdk,
)

WANTED = 0.6  # microseconds of CPU
LONG = 2000  # chunks: beside them the beginning and the end of a stream are nothing


class Kind(NamedTuple):
    """A turn: how many streams of how many chunks, and by how much its time is divided."""

    streams: int
    chunks: int
    of: int


KINDS = {
    "SDK": Kind(1, LONG, LONG),
    "SDK async": Kind(1, LONG, LONG),
    "httpx2": Kind(10, LONG, 10 * LONG),
    "httpx2 async": Kind(10, LONG, 10 * LONG),
    "SDK, 3 chunks": Kind(50, 3, 50),
}
CHUNK_KINDS = [kind for kind, spec in KINDS.items() if spec.chunks == LONG]
PEER_KINDS = [kind for kind in KINDS if not kind.startswith("httpx2")]  # they hook the SDK


def programs(subject):
    """What a turn of a kind takes, of `subject` or of the plain program."""
    body, plain = bodies(), SUBJECTS[PLAIN]()
    parts = {spec.chunks: chunks(spec.chunks) for spec in KINDS.values()}
    now = [parts[LONG]]
    http, async_http = http_clients(lambda request: streamed(body(now[0])))
    client, async_client = sdk_clients(http, async_http)
    loop = asyncio.new_event_loop()

    async def several(number, read, *given):
        for _ in range(number):
            await read(*given)

    def sdk(number, one):
        for _ in range(number):
            read_sdk(one.call, client)

    def lines(number, one):
        for _ in range(number):
            read_lines(http)

    acts = {
        "SDK": sdk,
        "SDK async": lambda number, one: loop.run_until_complete(several(number, aread_sdk, one.acall, async_client)),
        "httpx2": lines,
        "httpx2 async": lambda number, one: loop.run_until_complete(several(number, aread_lines, async_http)),
        "SDK, 3 chunks": sdk,
    }

    def turn(kind, metered):
        """Wall and CPU of a turn, in microseconds of its unit."""
        spec = KINDS[kind]
        now[0] = parts[spec.chunks]
        one = subject if metered else plain
        one.on()
        gc.collect()
        cpu, wall = time.process_time(), time.perf_counter()
        acts[kind](spec.streams, one)
        one.seen()
        found = (time.perf_counter() - wall) / spec.of * 1e6, (time.process_time() - cpu) / spec.of * 1e6
        one.off()
        return found

    return turn


def child(name: str, kinds: list[str], rounds: int) -> dict[str, list[tuple[float, float, float]]]:
    """By kind, of each round: added wall, added CPU, and the CPU of the plain turn."""
    turn = programs(SUBJECTS[name]())
    found: dict[str, list] = {kind: [] for kind in kinds}
    for kind in kinds:
        turn(kind, False), turn(kind, True)
    gc.freeze()
    for number in range(rounds):
        for kind in kinds:
            turns = {metered: turn(kind, metered) for metered in ((True, False) if number % 2 else (False, True))}
            (wall, cpu), (plain_wall, plain_cpu) = turns[True], turns[False]
            found[kind].append((wall - plain_wall, cpu - plain_cpu, plain_cpu))
    return found


def run(quick: bool) -> None:
    rounds, peer_rounds = (3, 2) if quick else (9, 4)
    peers = installed_peers()
    names = [name for name in SUBJECTS if name.startswith(OURS) and name != "tellmeter, callback at 1 s"]
    results: dict[str, dict[str, list]] = {}
    for name in [*names, *peers]:
        told = (PEER_KINDS, peer_rounds) if name in peers else (list(KINDS), rounds)
        results[name] = in_a_process("per_chunk", name, *told)
    plain = {kind: statistics.median(one[2] for one in found) for kind, found in results[OURS].items()}
    print("plain, us of CPU: " + ", ".join(f"{kind} {value:.1f}" for kind, value in plain.items()))
    print("of a chunk; in the last column of a whole stream of three chunks, its record made")
    print(f"\n{'added us, wall (CPU)':32}" + "".join(f"{kind:>18}" for kind in KINDS))
    middles = {
        name: {kind: [statistics.median(column) for column in zip(*rows, strict=True)] for kind, rows in found.items()}
        for name, found in results.items()
    }
    for name, found in middles.items():
        cells = ""
        for kind in KINDS:
            told = f"{found[kind][0]:.2f} ({found[kind][1]:.2f})" if kind in found else "-"
            cells += f"{told:>18}"
        print(f"{name:32}{cells}")
    ours = middles[OURS]
    print(
        f"\nwanted: {WANTED} us of CPU a chunk: "
        + ", ".join(f"{kind} {ours[kind][1]:.2f} {judged(ours[kind][1], WANTED)}" for kind in CHUNK_KINDS)
    )
    for peer in peers:
        told = [
            f"{kind} {middles[peer][kind][1] / ours[kind][1]:.3g}x ours" for kind in PEER_KINDS if ours[kind][1] > 0
        ]
        print(f"{peer} costs, in CPU: {', '.join(told)}")
    for kind in CHUNK_KINDS:
        low, _, high = statistics.quantiles((one[1] for one in results[NOISE][kind]), n=4)
        print(
            f"enabled=False, {kind}: {middles[DISABLED][kind][1]:+.3f} us a chunk;"
            f" half of the plain program's own differences: {low:+.3f} to {high:+.3f}"
        )
