"""Runs pytest twice at a time: what needs a processor beside what mostly waits for servers and clocks.

    python tools/tests.py PYTHON [ARGUMENTS OF PYTEST]

After the unit tests, those that have nothing to do with OpenTelemetry run again as if it were not there, and those that
go through SDKs in PYTHON, which has older ones. Where the arguments name files or folders it is one run, as usual, and
one in PYTHON. The output of what needs a processor comes last.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[1]
NOTHING_SELECTED = 5  # pytest's exit code
ASIDE = ("tests/unit", "tests/exchanges")
# Nothing there asks for OpenTelemetry but the sink that is for it.
_ELSEWHERE = ("client", "pipeline", "registry", "simulator", "sinks")
PLAIN = [
    *("-p", "tests.support.without_otel", "-m", "not heavy and not sdk"),
    *("tests/unit", *(f"--ignore=tests/unit/{name}" for name in _ELSEWHERE)),
]


def main(arguments: list[str]) -> int:
    """The exit code of the run that went worse."""
    python, *arguments = arguments
    pytest = [sys.executable, "-m", "pytest", *arguments]
    older = [python, "-m", "pytest", "-m", "sdk", *arguments]
    if any((ROOT / one.partition("::")[0]).exists() for one in arguments if not one.startswith("-")):
        return _worst([subprocess.call(run, cwd=ROOT) for run in (pytest, older)])  # noqa: S603 - as the caller could
    others = sorted(str(one.relative_to(ROOT)) for one in (ROOT / "tests").iterdir() if any(one.glob("test_*.py")))
    with tempfile.TemporaryFile() as output:
        # Not in the shell's background, where SIGINT is ignored: programs under test are ended by it.
        def aside(run: list[str]) -> int:
            return subprocess.call(run, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT)  # noqa: S603

        with ThreadPoolExecutor(1) as pool:
            runs = ([*pytest, "tests/unit"], [*pytest, *PLAIN], older, [*pytest, "tests/exchanges"])
            after = [pool.submit(aside, run) for run in runs]
            first = subprocess.call([*pytest, *(one for one in others if one not in ASIDE)], cwd=ROOT)  # noqa: S603
            codes = [first, *(run.result() for run in after)]
        output.seek(0)
        sys.stdout.flush()
        os.write(sys.stdout.fileno(), b"\n")
        while part := output.read(65536):
            sys.stdout.buffer.write(part)
        sys.stdout.flush()
    return _worst(codes)


def _worst(codes: list[int]) -> int:
    return max((code for code in codes if code != NOTHING_SELECTED), default=NOTHING_SELECTED)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
