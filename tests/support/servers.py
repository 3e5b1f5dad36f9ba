"""Servers that tests talk to: real ones, from Debian's packages (`tools/servers.sh`) and from .venv-servers and
.venv-phoenix.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest

# Where Debian keeps programs that are not on everybody's PATH.
_ELSEWHERE = {"pgbouncer": "/usr/sbin/pgbouncer", "postgres": "/usr/lib/postgresql/*/bin/postgres"}
_ROOT = Path(__file__).parents[2]


def require(command: str) -> str:
    """The path of a Debian program. Without it the test skips, and says why; in CI it fails."""
    found = shutil.which(command)
    if found is None and command in _ELSEWHERE:
        found = max(map(str, Path("/").glob(_ELSEWHERE[command][1:])), default=None)
    return found or _missing(f"{command} is not installed (as root on Debian, `make test` installs it)")


def require_python(file: str = "bin/python", environment: str = ".venv-servers") -> str:
    """The path of a file in an environment of servers that are Python packages; it may have * in it. As `require`."""
    found = max(map(str, (_ROOT / environment).glob(file)), default=None)
    return found or _missing(f"{file} is not in {environment} (`make test` makes it)")


def _missing(told: str) -> NoReturn:
    if os.environ.get("CI"):
        pytest.fail(told)
    pytest.skip(told)
