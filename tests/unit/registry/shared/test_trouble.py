import logging

from tellmeter import counts
from tellmeter.registry.shared import trouble as module
from tellmeter.registry.shared.trouble import trouble


def test_every_time_is_counted_and_the_first_is_logged(monkeypatch, caplog):
    monkeypatch.setattr(module, "_logged", set())
    with caplog.at_level(logging.WARNING):
        trouble("write", "the disk %s", "is full")
        trouble("write", "the disk %s", "is full")
    assert counts.snapshot()["snapshot_errors"] == {"write": 2}
    assert caplog.messages == ["the disk is full"]


def test_the_same_thing_is_counted_once(monkeypatch):
    monkeypatch.setattr(module, "_noticed", set())
    for about in ("a", "b", "a"):
        trouble("unreadable", "%s", about, about=about)
    trouble("conflict", "%s", "a", about="a")
    assert counts.snapshot()["snapshot_errors"] == {"unreadable": 2, "conflict": 1}


def test_what_was_noticed_is_bounded(monkeypatch):
    monkeypatch.setattr(module, "_noticed", noticed := set())
    monkeypatch.setattr(module, "_MOST", 3)
    for about in range(10):
        trouble("unreadable", "%s", about, about=about)
    assert len(noticed) == 3
