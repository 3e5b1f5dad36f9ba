"""`tellmeter spool`: what waits on disk for sinks, and what can be done with it."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from ..config import MetricsConfig
from ..errors import ConfigError, StoreError
from ..pipeline.backlog import Backlog
from ..pipeline.clock import SYSTEM_CLOCK
from ..pipeline.ledger import Ledger
from ..pipeline.outcome import Outcome, Rejected, RetryLater
from ..pipeline.sender import Sender
from ..pipeline.spool.left import Left, look
from ..pipeline.spool.spool import Spool, folder_name
from ..records import AgentMetrics
from ..sinks.urls import sink_from_url
from .tables import console_for

VARIABLE = "TELLMETER_SPOOL"
BATCH_SIZE = 500
TRIES = 3
_PAUSE = 0.05


class _Careful:
    """A sink whose refusals of whole batches keep the records: the operator may have named the wrong place."""

    def __init__(self, sink: Any) -> None:
        self._sink = sink

    def send(self, batch: Sequence[AgentMetrics], deadline: float) -> Outcome:
        outcome: Outcome = self._sink.send(batch, deadline)
        return RetryLater(reason=outcome.reason) if isinstance(outcome, Rejected) else outcome


def ls(folder: str | None = None, *, as_json: bool = False) -> int:
    """Print what waits in a spool: one row per sink and process."""
    root = chosen_folder(folder)
    found = look(root)
    if as_json:
        sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(found)) + b"\n")
    elif not found:
        sys.stdout.write(f"nothing waits in {root}\n")
    else:
        _print_table(found, root)
    return 0


def replay(url: str, folder: str | None = None, sink: str | None = None) -> int:
    """Deliver to `url` what ended processes left for it, or for `sink`; 1 where something still waits."""
    root = chosen_folder(folder)
    target = sink_from_url(url)
    if not callable(getattr(target, "send", None)):
        raise ConfigError("--to: a sink in memory ends with this command; name a store or a server")
    name = sink or folder_name(type(target).__name__, getattr(target, "destination", ""))
    _check_sink(root, name)
    ledger, lock = Ledger(), threading.Condition(threading.RLock())
    spool = Spool(root, name, max_bytes=2**62)
    settings = MetricsConfig()
    backlog = Backlog(
        ledger,
        lock,
        SYSTEM_CLOCK,
        batch_size=BATCH_SIZE,
        batch_seconds=0.0,
        max_records=settings.max_queue,
        max_bytes=settings.max_queue_bytes,
        when_full="spool",
        spool=spool,
    )
    sender = Sender(
        type(target).__name__,
        _Careful(target),
        backlog,
        ledger,
        lock,
        SYSTEM_CLOCK,
        batch_size=BATCH_SIZE,
        at_work=threading.RLock(),
    )
    try:
        if hasattr(target, "open"):
            target.open()
        _deliver(backlog, sender, ledger)
    finally:
        if hasattr(target, "close"):
            target.close()
        spool.close()
    dropped = "".join(f", {number:,} dropped ({reason})" for reason, number in sorted(ledger.dropped.items()))
    waiting = sum(one.records for one in look(root) if one.sink == name and not one.in_use)
    failed = ", ".join(sorted(sender.failures)) if waiting else ""
    left = f", {waiting:,} still wait" + (f" ({failed})" if failed else "") if waiting else ""
    sys.stdout.write(f"{ledger.delivered:,} records delivered{dropped}{left}\n")
    return 1 if waiting else 0


def drop(folder: str | None = None, sink: str | None = None, *, yes: bool = False) -> int:
    """Remove what ended processes left, for all sinks or one; without `yes` only say what that would be."""
    root = chosen_folder(folder)
    if sink is not None:
        _check_sink(root, sink)
    doomed = [one for one in look(root) if not one.in_use and sink in (None, one.sink)]
    if not yes:
        records = sum(one.records for one in doomed)
        told = f"{records:,} records of {len(doomed)} ended processes would be gone; say --yes to drop them"
        sys.stdout.write(f"{told if doomed else 'ended processes left nothing'}\n")
        return 0
    dropped = sum(Spool(root, name, max_bytes=2**62).drop_left() for name in sorted({one.sink for one in doomed}))
    sys.stdout.write(f"{dropped:,} records dropped\n")
    return 0


def chosen_folder(given: str | None) -> str:
    """The folder of `--spool`, else of TELLMETER_SPOOL.

    Raises:
        ConfigError: neither is set.
        StoreError: it is no folder.
    """
    folder = given or os.environ.get(VARIABLE, "").strip()
    if not folder:
        raise ConfigError(f"which spool? Say --spool FOLDER, or set {VARIABLE}")
    path = Path(folder).expanduser().absolute()
    if not path.is_dir():
        raise StoreError(f"{path}: there is no such folder; a spool is made when its first record is written")
    return str(path)


def _check_sink(root: str, name: str) -> None:
    known = sorted({one.sink for one in look(root)})
    if name not in known:
        there = f"there is {', '.join(known)}; choose one by --sink" if known else "nothing waits there"
        raise ConfigError(f"nothing waits in {root} for {name}; {there}")


def _deliver(backlog: Backlog, sender: Sender, ledger: Ledger) -> None:
    """Until nothing is left, or the sink failed three times in a row."""
    while sender.pacing.failures < TRIES:
        if not sender.is_busy and not ledger.adopted_unread:
            before = ledger.accepted
            backlog.adopt()
            if ledger.accepted == before:
                return
        time.sleep(max(0.0, min(sender.pacing.not_before - time.monotonic(), 60.0)))
        if not sender.step():
            time.sleep(_PAUSE)  # the disk is in trouble: the sender waits without telling until when


def _print_table(found: list[Left], root: str) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    console = console_for(sys.stdout)
    table = Table(title=Text(root), title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("sink", overflow="fold")
    table.add_column("process", no_wrap=True)
    for name in ("records", "bytes", "written"):
        table.add_column(name, justify="right", no_wrap=True)
    for one in found:
        pid = one.process.partition("-")[0]
        age = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(one.written))
        state = f"{pid} {'in use' if one.in_use else 'ended'}"
        table.add_row(Text(one.sink), state, f"{one.records:,}", f"{one.bytes:,}", age)
    console.print(table)
    for sink, destination in sorted({(one.sink, one.destination) for one in found if one.destination}):
        console.print(f"{sink}: {destination}", style="dim")
