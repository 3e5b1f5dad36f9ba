"""The `tellmeter` command. This file works on a plain install; the commands need the `cli` extra."""

from __future__ import annotations

import sys

from ..errors import MissingExtra


def main() -> int:
    """Run the command line; without the extra, one line says how to get it (exit code 2)."""
    try:
        from .commands import run_command_line
    except ImportError as error:
        package = (error.name or "").partition(".")[0]
        if package not in {"click", "rich"}:
            raise
        sys.stderr.write(f"tellmeter: {MissingExtra(package, 'cli')}\n")
        return 2
    return run_command_line()
