"""`tellmeter grafana`: lists the dashboards, prints one, writes all."""

import json

import pytest

from tellmeter.cli.commands import run_command_line
from tellmeter.serve.dashboards import dashboard, names


@pytest.mark.parametrize("arguments", [[], ["--list"], ["cost", "--list"]])
def test_it_lists_them(arguments, capsys):
    assert run_command_line(["grafana", *arguments]) == 0
    out, err = capsys.readouterr()
    assert ([line.split()[0] for line in out.splitlines()], err) == (names(), "")
    assert "tellmeter: cost: Dollars and tokens by model" in out


def test_it_prints_one(capsysbinary):
    assert run_command_line(["grafana", "streams"]) == 0
    out, err = capsysbinary.readouterr()
    assert (out, err) == (dashboard("streams"), b"")
    assert json.loads(out)["uid"] == "tellmeter-streams"


def test_it_writes_all_of_them_to_a_folder_that_it_makes(tmp_path, capsys):
    folder = tmp_path / "new" / "boards"
    assert run_command_line(["grafana", "--out", str(folder)]) == 0
    assert capsys.readouterr().out == "".join(f"{folder / name}.json\n" for name in names())
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        f"{name}.json": dashboard(name) for name in names()
    }
    assert run_command_line(["grafana", "--out", str(folder)]) == 0  # again, over the old ones


def test_it_writes_one(tmp_path):
    assert run_command_line(["grafana", "cost", "--out", str(tmp_path)]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["cost.json"]


def test_what_cannot_be_is_one_line(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    for arguments, told in (
        (["costs"], "tellmeter: there is no dashboard costs; there are cost, overview"),
        (["costs", "--out", str(tmp_path / "none")], "tellmeter: there is no dashboard costs"),
        (["--out", str(tmp_path / "file")], f"tellmeter: --out {tmp_path / 'file'}: it is no folder\n"),
    ):
        assert run_command_line(["grafana", *arguments]) == 2
        out, err = capsys.readouterr()
        assert (out, err.count("\n")) == ("", 1)
        assert err.startswith(told)
    assert not (tmp_path / "none").exists()


def test_its_help_has_examples(capsys):
    assert run_command_line(["grafana", "-h"]) == 0
    assert "tellmeter grafana overview > overview.json" in capsys.readouterr().out
