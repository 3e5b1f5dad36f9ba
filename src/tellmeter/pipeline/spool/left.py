"""What is in a spool, for people: nothing here changes a file."""

from __future__ import annotations

import msgspec

from . import frames
from .acknowledged import Acknowledged
from .files import Files
from .holding import SEGMENT
from .spool import DESTINATION, PROCESS_NAME


class Left(msgspec.Struct, frozen=True, kw_only=True):
    """What one process keeps for one sink, or kept until another one took it over.

    in_use: a process that lives delivers it. written: Unix seconds of its newest file.
    """

    sink: str
    destination: str
    process: str
    in_use: bool
    records: int
    bytes: int
    written: float


def look(root: str, files: Files | None = None) -> list[Left]:
    """What every process keeps in a spool, by sink, the oldest first. What is written meanwhile may be missing.

    Raises:
        OSError: a folder that cannot be read.
    """
    files = Files() if files is None else files
    found = []
    for sink in files.names(root):
        destination = files.load(f"{root}/{sink}/{DESTINATION}", 4096)
        for process in files.names(f"{root}/{sink}") if destination is not None else ():
            if not PROCESS_NAME.fullmatch(process):
                continue
            path = f"{root}/{sink}/{process}"
            written, size = files.weigh(path)
            found.append(
                Left(
                    sink=sink,
                    destination=(destination or b"").decode("utf-8", "replace"),
                    process=process,
                    in_use=files.is_locked(f"{path}/lock"),
                    records=_count(path, files),
                    bytes=size,
                    written=written,
                )
            )
    return sorted(found, key=lambda one: (one.sink, one.written))


def _count(path: str, files: Files) -> int:
    acknowledged = Acknowledged(f"{path}/ack", files).load()
    number = 0
    for name in files.names(path):
        match = SEGMENT.fullmatch(name)
        if match is None or int(match[1]) < acknowledged.segment:
            continue
        try:
            descriptor = files.open(f"{path}/{name}")
        except FileNotFoundError:  # it was delivered meanwhile
            continue
        try:
            offset = acknowledged.offset if int(match[1]) == acknowledged.segment else len(frames.MAGIC)
            size = files.size(descriptor)

            def read(length: int, at: int, descriptor: int = descriptor) -> bytes:
                return files.read(descriptor, length, at)

            while (frame := frames.find(read, offset, size)) is not None:
                number += frame.count
                offset = frame.end
        finally:
            files.close(descriptor)
    return number
