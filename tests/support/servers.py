"""Servers that tests talk to: real ones, from Debian's packages (`tools/servers.sh` installs them)."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

# Where Debian keeps programs that are not on everybody's PATH.
_ELSEWHERE = {"pgbouncer": "/usr/sbin/pgbouncer", "postgres": "/usr/lib/postgresql/*/bin/postgres"}


def require(command: str) -> str:
    """The path of `command`. Without it the test skips, and says why; in CI it fails."""
    found = shutil.which(command)
    if found is None and command in _ELSEWHERE:
        found = max(map(str, Path("/").glob(_ELSEWHERE[command][1:])), default=None)
    if found is None:
        told = f"{command} is not installed (as root on Debian, `make test` installs it)"
        if os.environ.get("CI"):
            pytest.fail(told)
        pytest.skip(told)
    return found
