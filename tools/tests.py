"""Runs pytest twice at a time: the unit tests beside all others, which mostly wait for servers and clocks.

    python tools/tests.py [ARGUMENTS OF PYTEST]

Where the arguments name files or folders it is one run, as usual. The output of the unit tests comes last.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
NOTHING_SELECTED = 5  # pytest's exit code


def main(arguments: list[str]) -> int:
    """The exit code of the run that went worse."""
    pytest = [sys.executable, "-m", "pytest", *arguments]
    if any((ROOT / one.partition("::")[0]).exists() for one in arguments if not one.startswith("-")):
        return subprocess.call(pytest, cwd=ROOT)  # noqa: S603 - pytest, as whoever calls this could
    others = sorted(str(one.relative_to(ROOT)) for one in (ROOT / "tests").iterdir() if any(one.glob("test_*.py")))
    with tempfile.TemporaryFile() as output:
        # Not in the shell's background, where SIGINT is ignored: programs under test are ended by it.
        unit = subprocess.Popen([*pytest, "tests/unit"], cwd=ROOT, stdout=output, stderr=subprocess.STDOUT)  # noqa: S603
        first = subprocess.call([*pytest, *(one for one in others if one != "tests/unit")], cwd=ROOT)  # noqa: S603
        second = unit.wait()
        output.seek(0)
        sys.stdout.flush()
        os.write(sys.stdout.fileno(), b"\n")
        while part := output.read(65536):
            sys.stdout.buffer.write(part)
        sys.stdout.flush()
    codes = [code for code in (first, second) if code != NOTHING_SELECTED]
    return max(codes, default=NOTHING_SELECTED)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
