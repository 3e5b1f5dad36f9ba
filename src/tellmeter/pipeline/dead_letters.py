"""Records that a sink refused, as lines of JSON in a folder, for whoever wants to know why."""

from __future__ import annotations

import time
from collections.abc import Sequence

import msgspec

from ..counts import count
from ..guard import note
from ..records import AgentMetrics
from ..registry.shared.folder import new_name
from .spool.files import Files

MAX_BYTES = 64 * 1024 * 1024  # of one process and sink

_encode = msgspec.json.Encoder().encode


class DeadLetters:
    """Appends `{"at": Unix seconds, "sink": name, "reason": reason, "record": {...}}` to `<sink>-<process>.jsonl`.

    What cannot be written, or is more than 64 MiB, is counted in `tellmeter.counts` as `dead_letters_lost`.
    """

    def __init__(self, folder: str, sink: str, files: Files | None = None) -> None:
        self._folder = folder
        self._sink = sink
        self._files = Files() if files is None else files
        self._descriptor: int | None = None
        self._size = 0

    def write(self, records: Sequence[AgentMetrics], reason: str) -> None:
        """Keep records that are dropped for `reason`. Never raises."""
        at = time.time()
        lines = [_encode({"at": at, "sink": self._sink, "reason": reason, "record": record}) for record in records]
        data = b"\n".join(lines) + b"\n"
        if self._size + len(data) > MAX_BYTES:
            self._lose(records)
            return
        try:
            if self._descriptor is None:
                self._files.make_folder(self._folder)
                self._descriptor = self._files.create(f"{self._folder}/{self._sink}-{new_name()}.jsonl")
            rest = memoryview(data)
            while rest:
                rest = rest[self._files.write(self._descriptor, rest) :]
            self._size += len(data)
        except OSError as error:
            note("dead_letters", error)
            self._lose(records)
            self._cut()

    def _cut(self) -> None:
        """Take back what was written of lines that are not whole."""
        if self._descriptor is not None:
            try:
                self._files.cut(self._descriptor, self._size)
            except OSError:
                self.close()
                self._size = MAX_BYTES  # no further file: the bound is one of the process

    def close(self) -> None:
        """Close the file."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            try:
                self._files.close(descriptor)
            except OSError as error:
                note("dead_letters", error)

    def _lose(self, records: Sequence[AgentMetrics]) -> None:
        for _ in records:
            count("dead_letters_lost", self._sink)
