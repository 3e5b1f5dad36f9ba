"""Every sink against its real server, beside the vendor's own client in the same run: records/s and CPU per record.

    python benchmarks/sinks.py [NAME ...]

Prints a table per backend. The ratio is ours over theirs: records a second, so above 1 ours is faster. A backend whose
server or client is not here is told and left out.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # the servers are those of the tests

NAMES = sorted(path.stem for path in (Path(__file__).parent / "_sinks").glob("[a-z]*.py"))
OURS = "tellmeter"


def main() -> None:
    for name in sys.argv[1:] or NAMES:
        print(f"\n{name}")
        try:
            rows = importlib.import_module(f"_sinks.{name}").run()
        except BaseException as error:  # pytest's skip, which a missing server raises, is no Exception
            if isinstance(error, KeyboardInterrupt):
                raise
            print(f"  left out: {type(error).__name__}: {error}")
            continue
        ours = None
        for row in rows:  # ours, then theirs for the same job
            ours = row if row.what.startswith(OURS) else ours
            ratio = "" if row is ours or ours is None else f"{ours.records_per_second / row.records_per_second:8.1f}x"
            print(f"  {row.what:60} {row.records_per_second:12,.0f}/s {row.cpu_us_per_record:10.1f} us CPU {ratio}")


if __name__ == "__main__":
    main()
