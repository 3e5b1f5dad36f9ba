"""The simulator as a process: one line when it is ready, a clean end by signal."""

import http.client
import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest

from tellmeter.simulator.__main__ import main


@contextmanager
def running(*arguments):
    command = [sys.executable, "-W", "error", "-m", "tellmeter.simulator", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_says_its_url_serves_and_ends_by_a_signal(number):
    with running("--seed", "3", "--speed", "0", "--faults", "500, 429;retry-after=1") as process:
        line = process.stdout.readline()
        assert line.startswith("simulator ready at http://127.0.0.1:")
        connection = http.client.HTTPConnection("127.0.0.1", int(line.rpartition(":")[2]), timeout=10)
        statuses = []
        for _ in range(3):
            connection.request("POST", "/v1/embeddings", '{"model": "text-embedding-3-small", "input": "secret"}')
            answer = connection.getresponse()
            answer.read()
            statuses.append(answer.status)
        assert statuses == [500, 429, 200]
        process.send_signal(number)
        out, err = process.communicate(timeout=10)
        connection.close()
    assert (process.returncode, out, err) == (0, "", "")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--error-rate", "7"], "error_rate"),
        (["--faults", "explode"], "no such fault"),
        (["--exchanges", "/no/such/folder"], "no recorded exchanges"),
    ],
)
def test_what_cannot_work_is_one_line(arguments, said, capsys, monkeypatch):
    monkeypatch.setattr(signal, "signal", lambda *handler: None)
    assert main(arguments) == 1
    assert said in capsys.readouterr().err
