"""Which libraries `tellmeter.instrument()` really hooks here: imports them, and asks.

`python -m tellmeter.cli.probe NAME...` prints JSON. A process of its own, because a broken library may do anything when
it is imported.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from importlib import import_module

import msgspec


class Probed(msgspec.Struct, frozen=True):
    """One library: what `tellmeter.wire.status()` says of it, or the class of the error that its import raised."""

    state: str = ""
    error: str | None = None


def probe(names: Iterable[str]) -> dict[str, Probed]:
    """Hook, import, look."""
    from ..wire import instrument, status

    instrument()
    errors: dict[str, str] = {}
    for name in names:
        try:
            import_module(name)
        except BaseException as error:
            errors[name] = type(error).__name__
    states = status()
    return {name: Probed(states.get(name, "not hooked"), errors.get(name)) for name in names}


def probe_apart(names: Iterable[str]) -> dict[str, Probed]:
    """As `probe`, in a process of its own; the names it could not probe are missing."""
    import subprocess

    try:
        found = subprocess.run(  # noqa: S603 - this interpreter, our module, names of ours
            [sys.executable, "-m", __name__, *names], capture_output=True, timeout=60, check=False
        ).stdout
        return msgspec.json.decode(found.splitlines()[-1], type=dict[str, Probed])
    except (OSError, subprocess.SubprocessError, IndexError, msgspec.MsgspecError):
        return {}


if __name__ == "__main__":
    sys.stdout.buffer.write(msgspec.json.encode(probe(sys.argv[1:])))
