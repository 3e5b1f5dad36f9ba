"""Streams: what a chunk costs more, how late the loop gets with 1,000 of them, the memory of each, and idle ones.

    python benchmarks/streams.py [--quick] [--only per_chunk,lateness,held,items]

About four minutes, `--quick` one. The files in `_streams/` tell what each part measures, beside whom, and what is wanted.
"""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import os
import sys
import time

PARTS = ("per_chunk", "lateness", "held", "items")


def part(name: str):
    return importlib.import_module(f"_streams.{name}")


def in_the_child(name: str, *arguments) -> None:
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # peers print banners
    logging.disable()
    json.dump(part(name).child(*arguments), out)
    out.close()
    os._exit(0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--child", type=json.loads)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    if options.child:
        in_the_child(*options.child)
    for name in PARTS:
        if not options.only or name in options.only.split(","):
            print(f"\n== {part(name).__doc__.splitlines()[0]}", flush=True)
            began = time.monotonic()
            part(name).run(options.quick)
            print(f"# {time.monotonic() - began:.0f} s", flush=True)


if __name__ == "__main__":
    sys.exit(main())
