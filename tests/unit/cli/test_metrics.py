"""`tellmeter metrics`: serves what other processes write to a folder; says in one line what it needs."""

import http.client
import os
import signal
import subprocess
import sys

import pytest

from tellmeter.cli.commands import run_command_line
from tellmeter.cli.metrics import chosen_folder
from tellmeter.errors import ConfigError

VARIABLE = "TELLMETER_MULTIPROC_DIR"


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch):
    for name in (VARIABLE, "PROMETHEUS_HOST", "PROMETHEUS_PORT"):
        monkeypatch.delenv(name, raising=False)


def test_the_folder_is_the_one_given_else_the_environments(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match=f"set {VARIABLE} .*for the programs and for this command.*--dir"):
        chosen_folder(None)
    monkeypatch.setenv(VARIABLE, f" {tmp_path} ")
    assert chosen_folder(None) == str(tmp_path)
    with pytest.raises(ConfigError, match=f"--dir = {tmp_path}/typo: there is no such folder"):
        chosen_folder(f"{tmp_path}/typo")
    monkeypatch.setenv(VARIABLE, f"{tmp_path}/typo")
    with pytest.raises(ConfigError, match=f"{VARIABLE} = "):
        chosen_folder(None)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], f"tellmeter: set {VARIABLE} to one folder"),
        (["--dir", ".", "--host", "0.0.0.0"], "tellmeter: 0.0.0.0:9090: others than this machine could read"),
        (["--dir", ".", "--token-env", "NO_SUCH"], "tellmeter: --token-env NO_SUCH: there is no such environment"),
        (["--dir", ".", "--basic-auth-env", "EMPTY"], "tellmeter: --basic-auth-env EMPTY: there is no such"),
        (["--dir", ".", "--basic-auth-env", "WRONG"], "tellmeter: basic_auth: it must be a user"),
        (["--dir", ".", "--port", "70000"], "tellmeter: Invalid value for '--port'"),
    ],
)
def test_what_cannot_be_is_one_line(arguments, told, monkeypatch, capsys):
    monkeypatch.setenv("EMPTY", " ")
    monkeypatch.setenv("WRONG", "hunter2")
    monkeypatch.setenv(VARIABLE, "")
    assert run_command_line(["metrics", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(told)
    assert err.count("\n") == 1
    assert "hunter2" not in err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_until_a_signal(number, tmp_path):
    code = "import sys; from tellmeter.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "metrics", "--dir", str(tmp_path), "--port", "0", "--token-env", "TOKEN"]
    environment = {**os.environ, "TOKEN": "s3cret\n"}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            told = process.stdout.readline()
            url, _, rest = told.partition(" ")
            assert rest == f"serves the metrics in {tmp_path} (Ctrl-C ends it)\n"
            connection = http.client.HTTPConnection("127.0.0.1", int(url.split(":")[2].split("/")[0]), timeout=20)
            connection.request("GET", "/metrics", headers={"authorization": "Bearer s3cret"})
            assert connection.getresponse().status == 200
            connection.close()
        finally:
            process.send_signal(number)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (0, "", "")


def test_its_help_has_examples(capsys):
    assert run_command_line(["metrics", "-h"]) == 0
    assert "tellmeter metrics --host 0.0.0.0 --token-env METRICS_TOKEN" in capsys.readouterr().out
    assert run_command_line(["--help"]) == 0
    assert "tellmeter metrics --dir /run/app/metrics" in capsys.readouterr().out
