"""What metering adds to a call, a streamed chunk and an unrelated HTTP request, beside peers in the same run.

    python benchmarks/call_overhead.py [--rounds 15] [--only 'tellmeter;openinference']

tellmeter is there three times: as it is, with a span for every call, and with live ones.

Two long-lived processes a subject: the plain openai SDK and the SDK with the subject switched on, asked in turn, the order
alternating; no network (a transport in memory). Printed: medians over rounds of the paired differences, wall and CPU
(all threads of the process, background ones included), in microseconds.

The peers are those of `_subjects.py`; one that is not installed is left out, and said so.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import statistics
import subprocess
import sys
import time

from _subjects import (
    CHUNKS,
    OURS,
    PEERS,
    answer,
    bare,
    bodies,
    events,
    http_clients,
    installed_peers,
    sdk_clients,
    streamed,
)

KINDS = {"call": 100, "stream": 6, "async call": 100, "async stream": 4, "http": 400}
SUBJECTS = {"bare": bare, **OURS, **{name: set_up for name, (_, set_up) in PEERS.items()}}


def clients():
    """The SDK's clients and a plain one, whose answers are there at once."""
    import httpx2

    full, chunks, body = answer(), events(), bodies()

    def respond(request):
        if b'"stream":true' in request.content:
            return streamed(body(chunks))
        return httpx2.Response(200, headers={"content-type": "application/json"}, stream=body([full]))

    http, async_http = http_clients(respond)
    return *sdk_clients(http, async_http), http


def work(subject: str) -> None:
    """One worker process: reads `<kind>\t<n>` lines, answers with a JSON line each."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # peers print banners
    import openai.types.chat  # noqa: F401  # the user's own import, not the subject's cost

    on, _, seen, call, acall = SUBJECTS[subject]()
    on()
    client, async_client, plain = clients()
    loop = asyncio.new_event_loop()

    def http(number):
        for _ in range(number):
            plain.post("http://shop.invalid/v1/orders", content=b"{}")

    def calls(number):
        for _ in range(number):
            call(client, False)

    def streams(number):
        for _ in range(number):
            for _chunk in call(client, True):
                pass

    async def async_calls(number):
        for _ in range(number):
            await acall(async_client, False)

    async def async_streams(number):
        for _ in range(number):
            async for _chunk in await acall(async_client, True):
                pass

    kinds = {
        "call": calls,
        "stream": streams,
        "async call": lambda number: loop.run_until_complete(async_calls(number)),
        "async stream": lambda number: loop.run_until_complete(async_streams(number)),
        "http": http,
    }
    for line in sys.stdin:
        kind, number = line.rstrip("\n").split("\t")
        if kind == "seen":
            reply = {"seen": seen()}
        else:
            gc.collect()
            cpu, wall = time.process_time(), time.perf_counter()
            kinds[kind](int(number))
            if subject in OURS:
                seen()  # what the router thread does for these calls belongs to them
            reply = {
                "wall": (time.perf_counter() - wall) / int(number) * 1e6,
                "cpu": (time.process_time() - cpu) / int(number) * 1e6,
            }
        out.write(json.dumps(reply) + "\n")
        out.flush()
    os._exit(0)


class Worker:
    def __init__(self, subject: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--worker", subject],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def ask(self, kind: str, number: int) -> dict[str, float]:
        self.process.stdin.write(f"{kind}\t{number}\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("a worker ended")
        return json.loads(line)

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait(20)


def measure(subject: str, rounds: int) -> dict[str, dict[str, float]]:
    plain, metered = Worker("bare"), Worker(subject)
    differences = {kind: {"wall": [], "cpu": [], "base": []} for kind in KINDS}
    try:
        for kind in KINDS:
            plain.ask(kind, 5), metered.ask(kind, 5)
        for number in range(rounds):
            for kind, count in KINDS.items():
                pair = [plain, metered]
                results = [one.ask(kind, count) for one in (pair if number % 2 else pair[::-1])]
                base, other = results if number % 2 else results[::-1]
                differences[kind]["wall"].append(other["wall"] - base["wall"])
                differences[kind]["cpu"].append(other["cpu"] - base["cpu"])
                differences[kind]["base"].append(base["cpu"])
        seen = metered.ask("seen", 1)["seen"]
    finally:
        plain.close(), metered.close()
    calls = sum((count * rounds + 5) for kind, count in KINDS.items() if kind != "http")
    if seen != calls:
        print(f"# {subject} saw {seen:.0f} of {calls} calls", file=sys.stderr)
    return {
        kind: {name: statistics.median(values) / (CHUNKS if "stream" in kind else 1) for name, values in found.items()}
        for kind, found in differences.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--worker")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    if options.worker:
        work(options.worker)
        return
    wanted = options.only.split(";") if options.only else [*OURS, *PEERS]
    chosen = [name for name in (*OURS, *installed_peers()) if name in wanted]
    results = {subject: measure(subject, options.rounds) for subject in chosen}
    if not results:
        return
    base = next(iter(results.values()))
    told = ", ".join(f"{kind} {base[kind]['base']:.0f}" for kind in KINDS)
    print(f"plain openai SDK, us of CPU (streams: a chunk): {told}")
    print(f"\n{'added us, wall (CPU)':28}" + "".join(f"{kind:>19}" for kind in KINDS))
    for subject, found in results.items():
        cells = "".join(f"{found[kind]['wall']:>11.2f} ({found[kind]['cpu']:.2f})".rjust(19) for kind in KINDS)
        print(f"{subject:28}{cells}")
    for subject in results.keys() & PEERS.keys():
        for ours in results.keys() & OURS.keys():
            ratios = {
                kind: results[subject][kind]["cpu"] / results[ours][kind]["cpu"] for kind in KINDS if kind != "http"
            }
            told = ", ".join(f"{kind} {ratio:.1f}x" for kind, ratio in ratios.items())
            print(f"{subject} / {ours}, in CPU: {told}")


if __name__ == "__main__":
    main()
