"""`tellmeter doctor`: the diagnosis, for people or as JSON."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

import msgspec

from .diagnosis import Diagnosis, Store, diagnose


def doctor(*, as_json: bool = False) -> int:
    """Print the diagnosis; 1 if something is wrong."""
    found = diagnose()
    if as_json:
        sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(found)) + b"\n")
    else:
        sys.stdout.write("\n".join(lines(found)) + "\n")
    return 1 if found.problems else 0


def lines(found: Diagnosis) -> Iterable[str]:
    """The diagnosis as text, what is wrong at its end."""
    yield f"tellmeter {found.tellmeter}, Python {found.python} ({found.executable})"
    yield from _section(
        "Hooked", [(one.name, one.version, one.state) for one in found.libraries], "nothing is installed"
    )
    extras = [(one.name, one.install or "installed") for one in found.extras]
    yield from _section("Extras", extras, "unknown: tellmeter is not installed as a package")
    settings = [(one.name, one.value, f"from {one.source}") for one in found.settings]
    yield from _section("Settings", settings, "all at their defaults")
    yield from _section("Default store", [(found.store.url, _state(found.store))], "")
    yield from _section("Prices", [(found.prices or "none",)], "")
    if not found.problems:
        yield "\nNothing is wrong."
        return
    yield "\nWrong:"
    for number, problem in enumerate(found.problems, 1):
        yield f"{number}. {problem.what}"
        yield f"   -> {problem.cure}"


def _section(title: str, rows: Sequence[tuple[str, ...]], otherwise: str) -> Iterable[str]:
    yield f"\n{title}:"
    if not rows:
        yield f"  {otherwise}"
        return
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _state(store: Store) -> str:
    if not store.exists:
        return "nothing recorded yet"
    if store.records is None:
        return "cannot be read"
    parts = [f"{store.records:,} record{'' if store.records == 1 else 's'}"]
    if store.bytes is not None:
        parts.append(f"{store.bytes / 1e6:.1f} MB")
    if store.schema_version is not None:
        parts.append(f"schema version {store.schema_version}")
    return ", ".join(parts)
