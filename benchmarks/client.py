"""What LLMClient adds to the bare openai SDK, beside LiteLLM: a call, a streamed chunk, a first call, a client more.

    python benchmarks/client.py [--rounds 15] [--runs 7] [--only calls,cold,held]

Each subject in processes of its own, asked in turn, the order rotating. Answers from memory tell what a subject
computes, those from a server on a local socket what its user gets. Printed: medians over rounds of the differences to
the bare SDK within a round, CPU (all threads of the process, and what they leave for later) and wall in microseconds,
and how many times ours LiteLLM's are, with the quartiles of the rounds. Compare CPU where others use the machine, too.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time

from _client_subjects import IN_MEMORY, NEEDED, STREAMED_TEXT, SUBJECTS, TEXT, answer_from_memory, serve
from _harness import ratio, resident
from _subjects import CHUNKS

BARE, OURS, PEER = SUBJECTS
AT_ONCE = 50
CALLS, STREAMS = 100, 5
# By its name, the function of the subject, and how many answers a round takes; streams are told by the chunk.
KINDS = {
    "generate": ("call", CALLS),
    "generate, 50 at once": ("call", 2 * AT_ONCE),
    "generate_sync": ("call_sync", CALLS),
    "stream, a chunk": ("stream", STREAMS),
    "stream_with_usage, a chunk": ("stream_with_usage", STREAMS),
    "stream_sync, a chunk": ("stream_sync", STREAMS),
}
HELD = 50


# ---------------------------------------------------------------------- in the workers


def reply_to_parent():
    """Where a worker writes its replies: peers print banners to where it would."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return out


def work(name: str, url: str) -> None:
    """Reads the name of a kind a line, answers with a JSON line each: of one answer or chunk, microseconds."""
    out = reply_to_parent()
    if url == IN_MEMORY:
        answer_from_memory()
    subject, loop = SUBJECTS[name](url), asyncio.new_event_loop()
    asked = 0

    async def several(one, number):
        return [await one() for _ in range(number)]

    async def at_once(one, number):
        return [
            text for _ in range(number // AT_ONCE) for text in await asyncio.gather(*(one() for _ in range(AT_ONCE)))
        ]

    for line in sys.stdin:
        kind = line.rstrip("\n")
        function, number = KINDS[kind]
        one = getattr(subject, function)
        gc.collect()
        cpu, wall = time.process_time(), time.perf_counter()
        if function.endswith("_sync"):
            texts = [one() for _ in range(number)]
        else:
            texts = loop.run_until_complete((at_once if "at once" in kind else several)(one, number))
        wall_of_user = time.perf_counter() - wall
        recorded = subject.settle(loop)
        took = {"wall": wall_of_user, "cpu": time.process_time() - cpu}
        asked += number
        wrong = sum(text != (STREAMED_TEXT if "chunk" in kind else TEXT) for text in texts)
        of = number * (CHUNKS if "chunk" in kind else 1)
        reply = {key: seconds / of * 1e6 for key, seconds in took.items()}
        lost = 0 if recorded is None else asked - recorded
        out.write(json.dumps({**reply, "wrong": wrong, "lost": lost}) + "\n")
        out.flush()
    os._exit(0)


def first_call(name: str, url: str) -> None:
    """Tells what a first answer takes in a process that has imported nothing of it yet: milliseconds, MB, modules."""
    out = reply_to_parent()
    modules, before = len(sys.modules), resident()
    cpu, wall = time.process_time(), time.perf_counter()
    assert asyncio.run(SUBJECTS[name](url).call()) == TEXT
    took = {"wall": (time.perf_counter() - wall) * 1e3, "cpu": (time.process_time() - cpu) * 1e3}
    json.dump({**took, "MB": (resident() - before) / 1e6, "modules": len(sys.modules) - modules}, out)
    out.close()
    os._exit(0)


def held(name: str, url: str) -> None:
    """Tells how many KB a client more takes: each has a key of its own, and was asked once."""
    out = reply_to_parent()
    loop = asyncio.new_event_loop()

    def made(number):
        subject = SUBJECTS[name](url, f"sk-{number}")
        assert loop.run_until_complete(subject.call()) == TEXT
        return subject

    kept = [made(number) for number in range(5)]
    gc.collect()
    before = resident()
    kept += [made(number) for number in range(5, 5 + HELD)]
    gc.collect()
    json.dump({"KB": (resident() - before) / HELD / 1e3, "clients": len(kept)}, out)
    out.close()
    os._exit(0)


# ---------------------------------------------------------------------- in the parent


def child(*arguments: str, **settings) -> subprocess.Popen:
    """This file, run as a worker."""
    return subprocess.Popen(
        [sys.executable, __file__, "--child", *arguments], stdout=subprocess.PIPE, text=True, **settings
    )


@contextlib.contextmanager
def server():
    """The URL of a server in a process of its own."""
    process = child("serve")
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
    finally:
        process.kill()
        process.wait()


def in_turn(names: list[str], number: int) -> list[str]:
    """The names, each at another place from round to round."""
    return names[number % len(names) :] + names[: number % len(names)]


def measure_calls(names: list[str], url: str, rounds: int) -> dict[str, dict[str, list[dict[str, float]]]]:
    """By kind, by subject, what each round told."""
    workers = {name: child("work", name, url, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) for name in names}

    def told(name: str, kind: str) -> dict[str, float]:
        workers[name].stdin.write(kind + "\n")
        workers[name].stdin.flush()
        found = json.loads(workers[name].stdout.readline() or '{"wrong": "the worker ended", "lost": 0}')
        if found["wrong"] or found["lost"]:
            raise RuntimeError(f"{name}, {kind}: wrong answers {found['wrong']}, not recorded {found['lost']}")
        return found

    found = {kind: {name: [] for name in names} for kind in KINDS}
    try:
        for number in range(-2, rounds):  # two to warm up
            for kind in KINDS:
                for name in in_turn(names, number % len(names)):
                    one = told(name, kind)
                    if number >= 0:
                        found[kind][name].append(one)
    finally:
        for process in workers.values():
            process.stdin.close()
            process.wait(30)
    return found


def added(rounds: dict[str, list[dict[str, float]]], name: str, clock: str) -> list[float]:
    return [one[clock] - plain[clock] for one, plain in zip(rounds[name], rounds[BARE], strict=True)]


def print_calls(names: list[str], where: str, found: dict[str, dict[str, list[dict[str, float]]]]) -> None:
    others = names[1:]
    print(f"\n{'answers from ' + where + ', us: CPU (wall)':34}{BARE:>17}", end="")
    print("".join(f"{name + ' adds':>20}" for name in others), end="")
    print(f"{PEER + ' / ours, added CPU':>28}{'in all':>8}" if PEER in others else "")
    for kind, rounds in found.items():
        plain = [statistics.median(one[clock] for one in rounds[BARE]) for clock in ("cpu", "wall")]
        print(f"{kind:34}{f'{plain[0]:.1f} ({plain[1]:.1f})':>17}", end="")
        for name in others:
            cpu, wall = (statistics.median(added(rounds, name, clock)) for clock in ("cpu", "wall"))
            print(f"{f'{cpu:.1f} ({wall:.1f})':>20}", end="")
        if PEER in others:
            times, spread = ratio(*(added(rounds, name, "cpu") for name in (PEER, OURS)))
            in_all, _ = ratio(*([one["cpu"] for one in rounds[name]] for name in (PEER, OURS)))
            print(f"{f'{times:.2f}x {spread}':>28}{f'{in_all:.2f}x':>8}", end="")
        print(flush=True)


def measure_once(mode: str, names: list[str], url: str, runs: int) -> dict[str, dict[str, float]]:
    """By subject, the medians of what fresh processes told."""
    told: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for number in range(-1, runs):  # one for the files' sake
        for name in in_turn(names, number % len(names)):
            process = child(mode, name, url, stderr=subprocess.DEVNULL)
            out, _ = process.communicate()
            if process.returncode:
                raise RuntimeError(f"{name}: {mode} failed")
            if number >= 0:
                told[name].append(json.loads(out))
    return {name: {key: statistics.median(one[key] for one in runs) for key in runs[0]} for name, runs in told.items()}


def print_cold(found: dict[str, dict[str, float]]) -> None:
    print(f"\n{'import, client, first answer':34}{'CPU, ms':>10}{'wall, ms':>10}{'MB':>8}{'modules':>9}")
    for name, one in found.items():
        print(f"{name:34}{one['cpu']:>10.0f}{one['wall']:>10.0f}{one['MB']:>8.1f}{one['modules']:>9.0f}")
    compare(found, "cpu", "first call, CPU")


def print_held(found: dict[str, dict[str, float]]) -> None:
    told = ", ".join(f"{name} {one['KB']:.0f} KB" for name, one in found.items())
    print(f"\none client more, each with a key of its own: {told}")
    compare(found, "KB", "a client more, memory")


def compare(found: dict[str, dict[str, float]], key: str, what: str) -> None:
    if PEER in found:
        ours, theirs, plain = (found[name][key] for name in (OURS, PEER, BARE))
        print(
            f"{what}: LLMClient adds {ours - plain:.0f}, {PEER} {theirs - plain:.0f}; in all {theirs / ours:.2f}x ours"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--child", nargs="+")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--only", default="calls,cold,held")
    options = parser.parse_args()
    if options.child:
        mode, *given = options.child
        if mode == "serve":
            asyncio.run(serve(lambda port: print(port, flush=True)))
        {"work": work, "first_call": first_call, "held": held}[mode](*given)
        return
    names = [name for name in SUBJECTS if name not in NEEDED or importlib.util.find_spec(NEEDED[name])]
    if len(names) < len(SUBJECTS):
        print("# LiteLLM: not installed (requirements/bench.txt)", file=sys.stderr)
    only = options.only.split(",")
    with server() as url:
        if "calls" in only:
            for where, at in {"memory": IN_MEMORY, "a socket": url}.items():
                print_calls(names, where, measure_calls(names, at, options.rounds))
        if "cold" in only:
            print_cold(measure_once("first_call", names, url, options.runs))
        if "held" in only:
            print_held(measure_once("held", names, url, 1))


if __name__ == "__main__":
    main()
