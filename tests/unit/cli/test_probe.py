from tellmeter.cli import probe


def test_what_is_hooked_and_what_is_not():
    found = probe.probe_apart(["httpx", "httpx2", "openai", "json"])
    assert {name: one.state for name, one in found.items()} == {
        "httpx": "hooked",
        "httpx2": "hooked",
        "openai": "hooked",
        "json": "not hooked",
    }


def test_a_library_whose_import_fails(tmp_path, monkeypatch):
    (tmp_path / "breaks.py").write_text("print('noise'); raise RuntimeError('secret')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    found = probe.probe_apart(["breaks", "httpx"])
    assert found["breaks"].error == "RuntimeError"
    assert found["httpx"].state == "hooked"


def test_a_library_that_ends_the_process(tmp_path, monkeypatch):
    (tmp_path / "dies.py").write_text("import os; os._exit(3)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert probe.probe_apart(["dies"]) == {}
