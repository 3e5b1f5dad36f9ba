import io
import os
import sys

import pytest

from tellmeter import MetricsSummary, MissingExtra, StoreError
from tellmeter.cli import demo
from tellmeter.cli.demo import DemoFailed
from tellmeter.cli.stores import Answers


def test_without_its_packages_it_says_how_to_get_them(monkeypatch):
    monkeypatch.setattr(demo, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"pip install 'tellmeter\[demo\]'"):
        demo.demo(1.0)


def test_a_store_that_cannot_work_is_told_before_anything_starts(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "_process", None)
    (tmp_path / "broken.db").write_bytes(b"broken" * 1000)
    with pytest.raises(StoreError):
        demo.demo(1.0, f"sqlite:///{tmp_path}/broken.db")


def test_a_simulator_that_does_not_start(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(DemoFailed, match="simulator did not start"), demo._simulator(tmp_path):
        pass


def test_an_application_that_fails_is_told_with_its_last_words(tmp_path, monkeypatch):
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\necho first\necho the reason\nexit 3\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    with (
        pytest.raises(DemoFailed, match="exit code 3: the reason"),
        demo._application("http://x", 1.0, tmp_path, os.environ) as process,
    ):
        process.wait(10)


def test_a_process_that_ignores_sigint_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "_STOP_SECONDS", 0.2)
    with demo._process(["sh", "-c", "trap '' INT; echo up; sleep 60 & wait"], tmp_path / "log", os.environ) as process:
        while not (tmp_path / "log").read_text():
            pass
    assert process.returncode == -9


def test_where_there_is_no_terminal_a_line_tells_now_and_then():
    to = io.StringIO()
    found = Answers()
    found.total = MetricsSummary(count=7)
    with demo._display(to) as show:
        for elapsed in (0.5, 1.0, 3.1, 3.6, 6.2):
            show(found, elapsed)
    assert [line.split(",")[0] for line in to.getvalue().splitlines()] == ["3 s: 7 calls", "6 s: 7 calls"]


def test_the_simulators_url_is_read_from_its_words(tmp_path):
    log = tmp_path / "log"
    log.write_text("")
    assert demo._url_in(log) is None
    log.write_text("simulator ready at http://127.0.0.1:4711\n")
    assert demo._url_in(log) == "http://127.0.0.1:4711"
