"""The Pythons of this machine in which tellmeter can run, for what differs between releases: the end of a process."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src"
RELEASES = ("3.11", "3.12", "3.13", "3.14")
# Their paths, as of environments that CI makes; interpreters without tellmeter's dependencies are no use.
VARIABLE = "TELLMETER_TEST_PYTHONS"


@functools.cache
def interpreter(release: str) -> str | None:
    """One of that release in which tellmeter can be imported (with `environment()`); None where there is none."""
    if release == f"{sys.version_info.major}.{sys.version_info.minor}":
        return sys.executable
    found = [shutil.which(f"python{release}"), *os.environ.get(VARIABLE, "").split(os.pathsep)]
    found += sorted(map(str, (Path.home() / ".pyenv" / "versions").glob(f"{release}.*/bin/python{release}")))
    test = f"import sys, tellmeter.collector; sys.exit('%d.%d' % sys.version_info[:2] != {release!r})"
    for path in filter(None, found):
        done = subprocess.run([path, "-c", test], env=environment(), capture_output=True, timeout=60, check=False)
        if done.returncode == 0:
            return path
    return None


def environment(**more: str) -> dict[str, str]:
    """What to start it with."""
    return {**os.environ, "PYTHONPATH": str(SOURCE), **more}
