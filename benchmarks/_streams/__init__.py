"""What streams.py measures: one file a question, each with `run(quick)`; `child(...)` is its part in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

PROGRAM = Path(__file__).parents[1] / "streams.py"


def in_a_process(part: str, *arguments: Any) -> Any:
    """What `child(*arguments)` of a part gives, run in a process of its own."""
    command = [sys.executable, PROGRAM, "--child", json.dumps([part, *arguments])]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise RuntimeError(f"{part} {arguments} ended with {ended.returncode}: {ended.stderr[-2000:]}")
    return json.loads(ended.stdout)


def judged(value: float, limit: float) -> str:
    return "met" if value <= limit else "MISSED"
