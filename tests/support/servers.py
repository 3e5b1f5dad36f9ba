"""Servers that tests talk to: real ones, from Debian's packages (`tools/servers.sh`) and from .venv-servers."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest

# Where Debian keeps programs that are not on everybody's PATH.
_ELSEWHERE = {"pgbouncer": "/usr/sbin/pgbouncer", "postgres": "/usr/lib/postgresql/*/bin/postgres"}
# Servers that are Python packages have an environment of their own (`make .venv-servers/ready`).
_PYTHON_SERVERS = Path(__file__).parents[2] / ".venv-servers"


def require(command: str) -> str:
    """The path of a Debian program. Without it the test skips, and says why; in CI it fails."""
    found = shutil.which(command)
    if found is None and command in _ELSEWHERE:
        found = max(map(str, Path("/").glob(_ELSEWHERE[command][1:])), default=None)
    return found or _missing(f"{command} is not installed (as root on Debian, `make test` installs it)")


def require_python(file: str = "bin/python") -> str:
    """The path of a file in the environment of servers, which may have * in it, as `require`."""
    found = max(map(str, _PYTHON_SERVERS.glob(file)), default=None)
    return found or _missing(f"{file} is not in .venv-servers (`make test` makes it)")


def _missing(told: str) -> NoReturn:
    if os.environ.get("CI"):
        pytest.fail(told)
    pytest.skip(told)
