"""The rules of security that no single part owns: what is on disk is ours alone, and nothing is pickled or followed."""

from __future__ import annotations

import ast
import os
import stat
from pathlib import Path
from typing import Any

import pytest

import tellmeter
from tellmeter import AgentMetrics, MetricsCollector, MetricsConfig, Rejected, RetryLater, counts
from tellmeter.pipeline.spool.files import Files
from tellmeter.pipeline.spool.spool import Spool
from tellmeter.registry.registry import MetricsRegistry
from tellmeter.testing import FakeClock, OracleSink
from tellmeter.testing.contract_kit import poll

SOURCE = Path(tellmeter.__file__).parent
# What makes objects, or code, of bytes that somebody else may have written.
UNSAFE = {"pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "jsonpickle", "joblib", "yaml"}
posix = pytest.mark.skipif(os.name != "posix", reason="modes and owners are of POSIX")


def trees() -> list[tuple[str, ast.Module]]:
    return [(str(path.relative_to(SOURCE)), ast.parse(path.read_text("utf-8"))) for path in SOURCE.rglob("*.py")]


@pytest.mark.security(10)
def test_nothing_is_ever_unpickled() -> None:
    found = []
    for name, tree in trees():
        for node in ast.walk(tree):
            imported: list[str] = []
            if isinstance(node, ast.Import):
                imported = [one.name for one in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                imported = [node.module or ""]
            found += [f"{name}:{node.lineno} {one}" for one in imported if one.partition(".")[0] in UNSAFE]
    assert not found


@pytest.mark.security(8)
def test_there_is_no_switch_that_turns_the_check_of_certificates_off_for_all() -> None:
    """Not by a variable, nor by Python's own private switches; `verify=False` of one sink warns at each start."""
    found = []
    for name, tree in trees():
        for node in ast.walk(tree):
            text = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
            if text in ("_create_unverified_context", "_create_default_https_context"):
                found.append(f"{name}:{node.lineno}")
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and "TELLMETER_" in node.value:
                assert not any(word in node.value for word in ("VERIFY", "INSECURE_TLS")), name
    assert not found


@pytest.fixture
def spooled(tmp_path: Path) -> Any:
    """A spool in use, with records in it, beside dead letters."""
    clock = FakeClock()
    oracle = OracleSink(script=[Rejected("no")], default=RetryLater(), batch_size=10)
    config = MetricsConfig(spool=tmp_path / "spool", dead_letters=tmp_path / "letters")
    former = os.umask(0)  # the most careless there is
    try:
        collector = MetricsCollector(config, sinks=[oracle], registry=MetricsRegistry(), clock=clock)
        for _ in range(20):
            collector.record(AgentMetrics(model="m"))
        assert collector._router.drain(20)
        clock.advance(1)
        poll(lambda: collector.stats().sinks["OracleSink"].failures, lambda: str(collector.stats()))
        yield tmp_path
        collector.shutdown_sync(1)
    finally:
        os.umask(former)


@posix
@pytest.mark.security(10)
def test_every_file_is_ours_alone(spooled: Path) -> None:
    files = folders = 0
    for root in ("spool", "letters"):
        for path in [spooled / root, *(spooled / root).rglob("*")]:
            found = path.lstat()
            assert found.st_uid == os.geteuid()
            if stat.S_ISDIR(found.st_mode):
                folders += 1
                # The outermost is made by the system's rules where it was not there; those with files in are ours alone.
                if any(child.is_file() for child in path.iterdir()):
                    assert stat.S_IMODE(found.st_mode) == 0o700, path
            else:
                files += 1
                assert stat.S_ISREG(found.st_mode)
                assert stat.S_IMODE(found.st_mode) == 0o600, path
    assert files >= 4 and folders >= 4


@posix
@pytest.mark.security(10)
@pytest.mark.parametrize("act", ["open", "create", "lock", "is_locked", "load", "make_folder"])
def test_links_are_not_followed(tmp_path: Path, act: str) -> None:
    victim = tmp_path / "victim"
    if act == "make_folder":
        victim.mkdir()
    else:
        victim.write_bytes(b"precious")
    link = tmp_path / "link"
    link.symlink_to(victim)
    files = Files()
    with_what: dict[str, Any] = {"lock": {"create": True}}
    arguments = [4096] if act == "load" else []
    if act == "is_locked":
        assert files.is_locked(str(link))  # none of our business
    else:
        with pytest.raises(OSError):
            getattr(files, act)(str(link), *arguments, **with_what.get(act, {}))
    assert victim.is_dir() or victim.read_bytes() == b"precious"


@posix
@pytest.mark.security(10)
def test_a_link_in_place_of_a_small_file_is_replaced_and_not_written_through(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (tmp_path / "ack").symlink_to(victim)
    Files().replace(str(tmp_path), "ack", b"new")
    assert victim.read_bytes() == b"precious"
    assert (tmp_path / "ack").read_bytes() == b"new" and not (tmp_path / "ack").is_symlink()


@posix
@pytest.mark.security(10)
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("whose", ["the folder", "a segment"])
def test_what_belongs_to_somebody_else_is_not_used(tmp_path: Path, whose: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = Spool(str(tmp_path), "Sink", max_bytes=2**20)
    spool.append([AgentMetrics(model="m")], 700)
    spool.close()
    (segment,) = tmp_path.rglob("*.seg")
    os.chown(tmp_path / "Sink" if whose == "the folder" else segment, 12345, 12345)
    monkeypatch.setattr(counts, "_counters", {})
    later = Spool(str(tmp_path), "Sink", max_bytes=2**20)
    if whose == "the folder":
        with pytest.raises(PermissionError):
            later.append([AgentMetrics(model="m")], 700)
    else:
        assert later.adopt().waiting == 0
        assert later.read_adopted()[0] is None
    later.close()


@pytest.mark.security(10)
def test_what_is_in_a_spool_is_data_and_not_code(tmp_path: Path) -> None:
    """Bytes that a pickle would run are refused as what they are: no frame."""
    payload = b"cos\nsystem\n(S'touch " + str(tmp_path / "owned").encode() + b"'\ntR."
    holding = tmp_path / "Sink" / "1-0123456789abcdef"
    holding.mkdir(parents=True, mode=0o700)
    (holding / "00000001.seg").write_bytes(b"tmspool1" + payload * 10)
    (holding / "ack").write_bytes(payload)
    spool = Spool(str(tmp_path), "Sink", max_bytes=2**20)
    assert spool.adopt().waiting == 0
    spool.close()
    assert not (tmp_path / "owned").exists()
