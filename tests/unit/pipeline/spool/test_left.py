from __future__ import annotations

import os
from pathlib import Path

from tellmeter import AgentMetrics
from tellmeter.pipeline.spool.left import look
from tellmeter.pipeline.spool.spool import Spool

SIZE = 1000


def fill(root: Path, sink: str, *numbers: int) -> Spool:
    spool = Spool(str(root), sink, f"{sink}.example", max_bytes=10**8)
    for number in numbers:
        spool.append([AgentMetrics(model="m") for _ in range(number)], SIZE)
    return spool


def test_nothing_is_there_where_there_is_no_folder(tmp_path: Path) -> None:
    assert look(str(tmp_path / "none")) == []


def test_it_tells_what_each_process_keeps_and_whether_it_is_in_use(tmp_path: Path) -> None:
    held, ended = fill(tmp_path, "A", 3, 4), fill(tmp_path, "B", 5)
    ended.close()
    first, second = look(str(tmp_path))
    assert (first.sink.startswith("A-"), first.destination, first.records, first.in_use) == (True, "A.example", 7, True)
    assert (second.sink.startswith("B-"), second.records, second.in_use) == (True, 5, False)
    assert first.process.startswith(f"{os.getpid()}-") and first.bytes > 0 and first.written > 0
    held.close()


def test_what_is_acknowledged_waits_no_more(tmp_path: Path) -> None:
    spool = fill(tmp_path, "A", 3, 4)
    read, _ = spool.read()
    assert read is not None
    spool.acknowledge(read)
    assert [one.records for one in look(str(tmp_path))] == [4]
    spool.close()


def test_looking_changes_nothing_not_even_what_is_damaged(tmp_path: Path) -> None:
    fill(tmp_path, "A", 3, 4).close()
    (segment,) = tmp_path.rglob("*.seg")
    whole = segment.read_bytes()
    segment.write_bytes(whole[:-3])
    (tmp_path / "stray.txt").write_text("not ours")
    assert [one.records for one in look(str(tmp_path))] == [3]
    assert segment.read_bytes() == whole[:-3]
