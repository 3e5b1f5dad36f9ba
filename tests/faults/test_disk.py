"""The spool's disk is full, read-only or broken: the program goes on, records go from memory, and disk is used again later."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tellmeter import AgentMetrics, Delivered, MetricsCollector, MetricsConfig, RetryLater, counts
from tellmeter.pipeline.backlog import TROUBLE_SECONDS
from tellmeter.pipeline.spool.files import Files
from tellmeter.registry.registry import MetricsRegistry
from tellmeter.testing import FakeClock, OracleSink
from tellmeter.testing.contract_kit import poll
from tests.support.metrics import in_child

ERRORS = [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT, errno.EACCES, errno.EMFILE]


def collecting(folder: Path, oracle: OracleSink, clock: Any, **settings: Any) -> MetricsCollector:
    config = MetricsConfig(**{"batch_size": 10, "spool": folder, "flush_timeout_seconds": 20, **settings})
    return MetricsCollector(config, sinks=[oracle], registry=MetricsRegistry(), clock=clock)


def record(collector: MetricsCollector, number: int) -> list[str]:
    made = [AgentMetrics(model="m") for _ in range(number)]
    for one in made:
        collector.record(one)
    assert collector._router.drain(20)
    return [one.id for one in made]


def ledger_of(collector: MetricsCollector) -> Any:
    ledger = collector.stats().sinks["OracleSink"]
    assert ledger.balanced
    return ledger


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Operation of the file system -> errno that it fails with, as long as it is there."""
    fails: dict[str, int] = {}

    def breaking(name: str) -> Any:
        real = getattr(Files, name)

        def run(self: Files, *arguments: Any, **options: Any) -> Any:
            if name in fails:
                raise OSError(fails[name], os.strerror(fails[name]))
            return real(self, *arguments, **options)

        return run

    for name in ("make_folder", "create", "write", "sync", "replace", "read", "lock", "names"):
        monkeypatch.setattr(Files, name, breaking(name))
    return fails


@pytest.mark.fault(10)
@pytest.mark.parametrize("code", ERRORS, ids=errno.errorcode.get)
@pytest.mark.parametrize("operation", ["make_folder", "create", "write", "sync", "lock"])
def test_records_go_from_memory_until_the_disk_is_well_again(
    tmp_path: Path, failing: dict[str, int], operation: str, code: int
) -> None:
    clock, oracle = FakeClock(), OracleSink()
    collector = collecting(tmp_path / "spool", oracle, clock)
    failing[operation] = code
    recorded = record(collector, 50)
    oracle.wait_for(50, 20)  # although nothing can be written
    assert collector.flush_sync().complete
    assert ledger_of(collector).delivered == 50
    failing.clear()
    clock.advance(TROUBLE_SECONDS)
    oracle.default = RetryLater()  # so that what is written stays to be seen
    recorded += record(collector, 50)
    poll(lambda: ledger_of(collector).spooled >= 40, lambda: str(ledger_of(collector)))
    assert TROUBLE_SECONDS <= 30
    oracle.default = Delivered()
    clock.advance(30)
    oracle.wait_for(100, 20)
    assert collector.shutdown_sync().complete
    oracle.check(collector.stats(), recorded)
    assert not ledger_of(collector).dropped


@pytest.mark.fault(10)
def test_a_disk_that_fails_while_the_sink_is_down_loses_what_memory_does_not_hold_and_counts_it(
    tmp_path: Path, failing: dict[str, int]
) -> None:
    clock, oracle = FakeClock(), OracleSink(default=RetryLater(), max_queue=100)
    collector = collecting(tmp_path / "spool", oracle, clock)
    failing["write"] = errno.ENOSPC
    recorded = record(collector, 500)
    poll(lambda: ledger_of(collector).dropped, lambda: str(ledger_of(collector)))
    ledger = ledger_of(collector)
    assert ledger.queued + ledger.in_flight <= 100 + 2 * 10
    failing.clear()
    oracle.default = Delivered()

    def settled() -> bool:
        if clock.sleepers:
            clock.advance(30)
        return not ledger_of(collector).waiting

    poll(settled, lambda: str(ledger_of(collector)))
    assert collector.shutdown_sync().complete
    ledger = ledger_of(collector)
    assert ledger.delivered + sum(ledger.dropped.values()) == 500
    assert ledger.delivered >= 100
    oracle.check(collector.stats(), recorded)


@pytest.mark.fault(10)
def test_what_is_on_a_disk_that_cannot_be_read_any_more_is_given_up_and_counted(
    tmp_path: Path, failing: dict[str, int]
) -> None:
    # So that few copies are in memory.
    clock, oracle = FakeClock(), OracleSink(default=RetryLater(), max_queue=20)
    collector = collecting(tmp_path / "spool", oracle, clock)
    recorded: list[str] = []
    for _ in range(10):
        recorded += record(collector, 10)
        poll(lambda: not ledger_of(collector).queued, lambda: str(ledger_of(collector)))
    failing["read"] = errno.EIO
    oracle.default = Delivered()

    def settled() -> bool:
        if clock.sleepers:
            clock.advance(30)
        return not ledger_of(collector).waiting

    poll(settled, lambda: str(ledger_of(collector)))
    ledger = ledger_of(collector)
    assert ledger.delivered + sum(ledger.dropped.values()) == 100
    assert set(ledger.dropped) == {"spool_damaged"}
    failing.clear()
    recorded += record(collector, 10)
    clock.advance(30)
    assert collector.shutdown_sync().complete
    oracle.check(collector.stats(), recorded)


@pytest.mark.fault(10)
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_to(tmp_path: Path) -> None:
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    oracle = OracleSink()
    collector = collecting(folder / "spool", oracle, FakeClock())
    recorded = record(collector, 50)
    assert collector.shutdown_sync().complete
    oracle.check(collector.stats(), recorded)
    assert len(oracle.delivered) == 50


@pytest.mark.fault(10)
@pytest.mark.parametrize("obstacle", ["a file", "a link", "below a file", "a device"])
def test_a_folder_that_cannot_be(tmp_path: Path, obstacle: str) -> None:
    path = tmp_path / "spool"
    if obstacle == "a file":
        path.write_text("")
    elif obstacle == "a link":
        path.mkdir()
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        (path / "OracleSink").symlink_to(elsewhere)
    elif obstacle == "below a file":
        (tmp_path / "file").write_text("")
        path = tmp_path / "file" / "spool"
    else:
        path = Path("/dev/full")
        if not path.exists():
            pytest.skip("no /dev/full here")
    oracle = OracleSink()
    collector = collecting(path, oracle, FakeClock())
    recorded = record(collector, 50)
    assert collector.shutdown_sync().complete
    oracle.check(collector.stats(), recorded)
    assert len(oracle.delivered) == 50
    assert counts.snapshot()["guarded_errors"]["spool"]
    if obstacle == "a link":
        assert list(elsewhere.iterdir()) == []  # a link is not followed


LIMITED = """
    import json, resource, signal, sys
    from tellmeter import AgentMetrics, Delivered, MetricsCollector, MetricsConfig, RetryLater
    from tellmeter.testing import FakeClock, OracleSink
    from tellmeter.testing.contract_kit import poll
    {prepare}
    clock, oracle = FakeClock(), OracleSink(default=RetryLater())
    config = MetricsConfig(batch_size=50, spool=sys.argv[1], max_queue=20_000, flush_timeout_seconds=30)
    collector = MetricsCollector(config, sinks=[oracle], clock=clock)
    ledger = lambda: collector.stats().sinks["OracleSink"]
    ids = set()
    for _ in range(10_000):
        record = AgentMetrics(model="m" * 200)
        ids.add(record.id)
        collector.record(record)
    collector._router.drain(30)
    poll(lambda: collector.stats().counts.get("spool_errors"), lambda: str(ledger()))
    full = ledger()
    assert full.balanced and full.spooled and full.queued and not full.dropped, full
    {relieve}
    clock.advance(30)
    for _ in range(100):
        record = AgentMetrics(model="m")
        ids.add(record.id)
        collector.record(record)
    collector._router.drain(30)
    poll(lambda: not ledger().queued or clock.advance(30), lambda: str(ledger()))  # all of it fits now
    oracle.default = Delivered()
    def settled():
        clock.advance(30)
        return not ledger().waiting
    poll(settled, lambda: str(ledger()))
    report = collector.shutdown_sync(30)
    oracle.check(collector.stats(), ids)
    print(json.dumps([report.complete, len(set(oracle.delivered) ^ ids), ledger().dropped]))
"""


@pytest.mark.fault(10)
def test_files_that_may_not_grow_any_more(tmp_path: Path) -> None:
    """The kernel refuses, after a part of a frame was written, and relents."""
    prepare = "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, resource.RLIM_INFINITY))"
    relieve = "resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))"
    assert in_child(LIMITED.format(prepare=prepare, relieve=relieve), tmp_path / "spool") == [True, 0, {}]


@pytest.mark.fault(10)
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root may mount")
def test_a_file_system_that_is_full(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no mount here: {mounted.stderr.strip()}")
    try:
        relieve = f'import subprocess; subprocess.run(["mount", "-o", "remount,size=64m", {str(disk)!r}], check=True)'
        assert in_child(LIMITED.format(prepare="", relieve=relieve), disk / "spool") == [True, 0, {}]
    finally:
        subprocess.run(["umount", disk], check=True)
