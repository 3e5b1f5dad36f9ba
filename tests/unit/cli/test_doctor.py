import json

import pytest

from tellmeter.cli import doctor
from tellmeter.cli.diagnosis import Diagnosis, Extra, Library, Problem, Setting, Store


def diagnosis(**given):
    values = {
        "tellmeter": "0.1.0",
        "python": "3.11.7",
        "executable": "/bin/python",
        "libraries": [Library("httpx", "0.28.1", "hooked")],
        "extras": [Extra("cli", [], None), Extra("demo", ["openai"], "pip install 'tellmeter[demo]'")],
        "settings": [Setting("batch_size", "500", "METRICS_BATCH_SIZE")],
        "store": Store("sqlite:////calls.db"),
        "prices": "genai-prices 1",
        "problems": [],
    }
    return Diagnosis(**{**values, **given})


@pytest.fixture
def found(monkeypatch):
    def set_to(**given):
        monkeypatch.setattr(doctor, "diagnose", lambda: diagnosis(**given))

    set_to()
    return set_to


def test_a_healthy_installation(found, capsys):
    assert doctor.doctor() == 0
    out = capsys.readouterr().out
    for text in (
        "tellmeter 0.1.0, Python 3.11.7 (/bin/python)",
        "  httpx  0.28.1  hooked",
        "  cli   installed",
        "  demo  pip install 'tellmeter[demo]'",
        "  batch_size  500  from METRICS_BATCH_SIZE",
        "  sqlite:////calls.db  nothing recorded yet",
        "Nothing is wrong.",
    ):
        assert text in out


def test_problems_are_numbered_with_their_cure(found, capsys):
    found(problems=[Problem("first", "do this"), Problem("second", "do that")])
    assert doctor.doctor() == 1
    assert capsys.readouterr().out.endswith("Wrong:\n1. first\n   -> do this\n2. second\n   -> do that\n")


def test_json(found, capfdbinary):
    found(problems=[Problem("first", "do this")])
    assert doctor.doctor(as_json=True) == 1
    told = json.loads(capfdbinary.readouterr().out)
    assert told["problems"] == [{"what": "first", "cure": "do this"}]
    assert told.keys() == set(Diagnosis.__struct_fields__)


@pytest.mark.parametrize(
    ("store", "text"),
    [
        (Store("x", exists=True, records=1, bytes=2_000_000, schema_version=3), "1 record, 2.0 MB, schema version 3"),
        (Store("x", exists=True, records=1200), "1,200 records"),
        (Store("x", exists=True), "cannot be read"),
    ],
)
def test_the_state_of_a_store(store, text):
    assert doctor._state(store) == text
