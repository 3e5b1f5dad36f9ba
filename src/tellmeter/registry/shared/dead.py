"""The processes of a folder, and what becomes of the dead: their counts go into one file, and their own files go.

`dead.snap` says what dead processes counted, and which they were. Adding more of them takes several steps (it is
written anew, then their files are removed one by one), and whoever takes them may die between any two: a process that
`dead.snap` names counts there and nowhere else, whether its files are still there or not. Whoever reads looks at
`dead.snap` first, and again when all else is read; if it is another by then, files may have gone in between, and all is
read once more.
"""

from __future__ import annotations

import os
import zlib
from typing import NamedTuple

from .folder import Folder, Foreign, read_all
from .folding import added_up
from .snapshot import BadSnapshot, OtherVersion, Snapshot, decode, encode
from .trouble import trouble

DEAD = "dead.snap"
FOLD_LOCK = "fold.lock"
_TRIES = 50  # each is spent on somebody who died meanwhile
_AT_ONCE = 200  # a folder that was left alone for long is not read into memory as a whole


class Others(NamedTuple):
    """What the other processes of a folder counted.

    snapshots: with whether their process is alive; the oldest process first, the dead that were added up last.
    dead: how many dead processes have files of their own.
    """

    snapshots: list[tuple[Snapshot, bool]]
    dead: int


def read_others(folder: Folder, me: str) -> Others:
    """What all processes but `me` counted."""
    found = Others([], 0)
    for _ in range(_TRIES):
        try:
            descriptor = folder.open(DEAD)
        except OSError:
            descriptor = None
        try:
            found = _read(folder, me, descriptor)
            if folder.same(DEAD, descriptor):
                break
        finally:
            if descriptor is not None:
                os.close(descriptor)
    return found


def _read(folder: Folder, me: str, dead_file: int | None) -> Others:
    together: Snapshot | None = None
    if dead_file is not None:
        try:
            together = _decoded(DEAD, read_all(dead_file))
        except (BadSnapshot, Foreign):
            pass
    gone = set(together.folded) if together is not None else set()
    found = []
    dead = 0
    for name in folder.processes():
        if name == me:
            continue
        if name in gone:
            dead += 1  # whoever added it up did not get to removing its files
            continue
        alive = folder.alive(name)  # before its file is read: what a dead one wrote is its last then
        dead += not alive
        try:
            snapshot = _snapshot(folder, f"{name}.snap")
        except (BadSnapshot, Foreign):
            continue
        if snapshot is not None:
            found.append((snapshot, alive))
    found.sort(key=_began)
    if together is not None:
        found.append((together, False))
    return Others(found, dead)


def fold(folder: Folder, *, max_series: int) -> None:
    """Add up what dead processes left, and remove their files. Only whoever has `FOLD_LOCK` may.

    max_series: label sets that a metric of the dead keeps.
    """
    try:
        before = _snapshot(folder, DEAD) or Snapshot(0.0, [])
    except OtherVersion:
        return  # those who can read it shall do it
    except (BadSnapshot, Foreign):
        folder.set_aside(DEAD)
        before = Snapshot(0.0, [])
    left = [name for name in before.folded if not _remove(folder, name)]
    for file in folder.strays():
        folder.remove(file)
    names: list[str] = []
    snapshots = [before]
    for name in folder.processes():
        if name in left or folder.alive(name):
            continue
        try:
            snapshot = _snapshot(folder, f"{name}.snap")
        except OtherVersion:
            continue
        except (BadSnapshot, Foreign):
            folder.set_aside(f"{name}.snap")
            snapshot = None
        if snapshot is None:
            _remove(folder, name)
            continue
        names.append(name)
        snapshots.append(snapshot)
        if len(names) >= _AT_ONCE:
            break
    if names:
        parts = added_up(snapshots, max_series=max_series)
        folder.write(DEAD, encode(Snapshot(before.began or snapshots[1].began, parts, [*left, *names])))
        for name in names:
            _remove(folder, name)


def _remove(folder: Folder, name: str) -> bool:
    """Whether the files of a process are gone: the lock last, as the others are found by it."""
    return all(folder.remove(f"{name}.{kind}") for kind in ("snap", "tmp", "lock"))


def _snapshot(folder: Folder, file: str) -> Snapshot | None:
    """What is in `file`; None where it is not there."""
    try:
        data = folder.read(file)
    except Foreign:
        trouble("unreadable", "%s is no file of ours; it is left out", file, about=file)
        raise
    return None if data is None else _decoded(file, data)


def _decoded(file: str, data: bytes) -> Snapshot:
    try:
        return decode(data)
    except BadSnapshot as error:
        told = "%s cannot be read (%s); it is left out"
        trouble("unreadable", told, file, error, about=(file, zlib.crc32(data)))
        raise


def _began(found: tuple[Snapshot, bool]) -> float:
    return found[0].began
