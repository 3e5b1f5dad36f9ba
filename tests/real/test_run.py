"""`tellmeter run` with real programs: what they do is as without it, and their calls are in the store."""

import json
import os
import signal
import subprocess
import sys
import sysconfig
import textwrap
from pathlib import Path

import httpx
import pytest

from tests.support.tiny_llm import CALL, INPUT_TOKENS, OUTPUT_TOKENS, tiny_llm

TELLMETER = str(Path(sysconfig.get_path("scripts")) / "tellmeter")


@pytest.fixture(scope="module")
def llm():
    with tiny_llm() as url:
        yield url


@pytest.fixture
def shell(llm, tmp_path):
    """Runs `tellmeter` in a folder and a home of its own."""
    return Shell(llm, tmp_path)


class Shell:
    def __init__(self, llm, folder):
        self.folder = folder
        self.store = f"sqlite:///{folder}/calls.db"
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("TELLMETER_")},
            "TINY_LLM": llm,
            "HOME": str(folder),
            "XDG_DATA_HOME": str(folder / "data"),
        }

    def program(self, code, name="app.py"):
        path = self.folder / name
        path.write_text(CALL + textwrap.dedent(code))
        return path

    def start(self, *arguments, **options):
        given = {"cwd": self.folder, "env": self.environment, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen([TELLMETER, *map(str, arguments)], **{**given, **options})

    def tellmeter(self, *arguments, **options):
        given = {"cwd": self.folder, "env": self.environment, "capture_output": True, "timeout": 60}
        return subprocess.run([TELLMETER, *map(str, arguments)], check=False, **{**given, **options})

    def run(self, *command, **options):
        return self.tellmeter("run", "--store", self.store, "--", *command, **options)

    def calls(self, *options):
        """What `tellmeter summary` says, over everything."""
        done = self.tellmeter("summary", "--store", self.store, "--since", "all", "--json", *options)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


def test_a_program_is_metered_and_a_table_is_printed(shell):
    app = shell.program("call(); call('gpt-4o')")
    run = shell.run(sys.executable, app)
    assert run.returncode == 0, run.stderr
    assert run.stdout == b""
    text = run.stderr.decode()
    assert [word in text for word in ("gpt-4o-mini", "gpt-4o", "total", "p95", "TTFT", "$")] == [True] * 6
    found = shell.calls()
    assert {name: group["count"] for name, group in found["groups"].items()} == {"gpt-4o-mini": 1, "gpt-4o": 1}
    assert (found["total"]["input_tokens"], found["total"]["output_tokens"]) == (2 * INPUT_TOKENS, 2 * OUTPUT_TOKENS)
    assert found["total"]["total_cost"] > 0


def test_the_run_is_a_tag_that_summary_finds_again(shell):
    app = shell.program("call()")
    shell.run(sys.executable, app)
    told = shell.run(sys.executable, app).stderr.decode()
    run_id = told.rpartition("--run ")[2].split()[0]
    assert shell.calls("--run", run_id)["total"]["count"] == 1
    assert shell.calls()["total"]["count"] == 2
    assert shell.calls("--by", "tag:run")["groups"].keys() >= {run_id}


def test_tags_are_added_to_those_of_the_environment(shell):
    shell.environment["TELLMETER_TAGS"] = "team=search,feature=old"
    app = shell.program("call()")
    shell.tellmeter("run", "--store", shell.store, "--tag", "feature=new", "--", sys.executable, app)
    assert list(shell.calls("--by", "tag:feature")["groups"]) == ["new"]
    assert list(shell.calls("--by", "tag:team")["groups"]) == ["search"]


def test_the_default_store_joins_the_commands(shell):
    app = shell.program("call()")
    assert shell.tellmeter("run", "--", sys.executable, app).returncode == 0
    assert json.loads(shell.tellmeter("summary", "--json").stdout)["total"]["count"] == 1
    assert (shell.folder / "data" / "tellmeter" / "calls.db").exists()


def test_a_relative_store_is_one_file_wherever_the_program_goes(shell):
    app = shell.program("os.mkdir('elsewhere'); os.chdir('elsewhere'); call()")
    assert shell.tellmeter("run", "--store", "sqlite:///calls.db", "--", sys.executable, app).returncode == 0
    assert shell.calls()["total"]["count"] == 1
    assert list((shell.folder / "elsewhere").iterdir()) == []


def test_sinks_of_the_environment_get_the_calls_too(shell):
    shell.environment["TELLMETER_SINKS"] = f"jsonl:///{shell.folder}/calls.jsonl"
    shell.run(sys.executable, shell.program("call()"))
    assert shell.calls()["total"]["count"] == 1
    assert len((shell.folder / "calls.jsonl").read_text().splitlines()) == 1


# ---------------------------------------------------------------------- the program is as without us


@pytest.mark.parametrize("code", [0, 3, 255])
def test_exit_codes(shell, code):
    assert shell.run(sys.executable, "-c", f"raise SystemExit({code})").returncode == code


def test_an_exception_ends_as_ever_and_its_calls_are_there(shell):
    run = shell.run(sys.executable, shell.program("call(); raise KeyError('secret')"))
    assert run.returncode == 1
    assert b"KeyError" in run.stderr
    assert shell.calls()["total"]["count"] == 1


def test_death_by_a_signal(shell):
    run = shell.run(sys.executable, shell.program("import signal; os.kill(os.getpid(), signal.SIGKILL)"))
    assert run.returncode == 128 + signal.SIGKILL


def test_binary_input_and_output_pass_through(shell):
    data = bytes(range(256)) * 1000
    app = shell.program(
        """
        import shutil, sys
        shutil.copyfileobj(sys.stdin.buffer, sys.stdout.buffer)
        call()
        """
    )
    run = shell.run(sys.executable, app, input=data)
    assert (run.returncode, run.stdout) == (0, data)


def test_arguments_need_no_dashes_before_them(shell):
    run = shell.tellmeter(
        "run", "--store", shell.store, sys.executable, "-c", "import sys; print(sys.argv)", "--store", "x"
    )
    assert run.stdout == b"['-c', '--store', 'x']\n"


def test_sys_path_and_argv_are_as_without_us(shell):
    app = shell.program("import sys; print([path for path in sys.path if '_site' in path], sys.argv[1:])")
    assert shell.run(sys.executable, app, "a", "--b").stdout == b"[] ['a', '--b']\n"


def test_the_folders_of_pythonpath_stay(shell):
    (shell.folder / "lib").mkdir()
    (shell.folder / "lib" / "mine.py").write_text("value = 42")
    shell.environment["PYTHONPATH"] = str(shell.folder / "lib")
    assert shell.run(sys.executable, "-c", "import mine; print(mine.value)").stdout == b"42\n"


def test_sigterm_ends_the_program_as_ever_and_its_calls_are_there(shell):
    app = shell.program("call(); print('ready', flush=True); import time; time.sleep(60)")
    with shell.start("run", "--store", shell.store, "--", sys.executable, app) as process:
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 128 + signal.SIGTERM
        assert b"gpt-4o-mini" in process.stderr.read()
    assert shell.calls()["total"]["count"] == 1


def test_sigterm_during_a_call_records_it(shell):
    app = shell.program(
        """
        import socket, threading, time
        silent = socket.create_server(("127.0.0.1", 0))
        os.environ["TINY_LLM"] = f"http://127.0.0.1:{silent.getsockname()[1]}"
        threading.Timer(0.7, print, ["ready"], {"flush": True}).start()
        call()
        """
    )
    with shell.start("run", "--store", shell.store, "--", sys.executable, app) as process:
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 128 + signal.SIGTERM
    assert shell.calls("--by", "status")["groups"].keys() == {"abandoned"}


def test_a_handler_of_the_program_wins(shell):
    app = shell.program(
        """
        import signal, sys, time
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(42))
        call(); print("ready", flush=True); time.sleep(60)
        """
    )
    with shell.start("run", "--store", shell.store, "--", sys.executable, app) as process:
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 42
    assert shell.calls()["total"]["count"] == 1


def test_an_ignored_sigterm_stays_ignored(shell):
    code = "import signal; print(signal.getsignal(signal.SIGTERM) is signal.SIG_IGN)"
    run = shell.run("sh", "-c", f"trap '' TERM; exec {sys.executable} -c '{code}'")
    assert run.stdout == b"True\n"


def test_sigint_ends_the_program_and_the_table_is_printed(shell):
    app = shell.program("call(); print('ready', flush=True); import time; time.sleep(60)")
    with shell.start("run", "--store", shell.store, "--", sys.executable, app) as process:
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGINT)
        told = process.stderr.read().decode()
        assert process.wait(20) == 128 + signal.SIGINT, told
        assert "gpt-4o-mini" in told


# ---------------------------------------------------------------------- children


def test_a_child_of_a_child(shell):
    app = shell.program(
        "call(); import subprocess, sys; subprocess.run(['sh', '-c', f'{sys.executable} inner.py; true'])"
    )
    shell.program("call('inner')", "inner.py")
    assert shell.run(sys.executable, app).returncode == 0
    assert shell.calls()["groups"].keys() == {"gpt-4o-mini", "inner"}


def test_a_module_by_name(shell):
    shell.program("call()", "tool.py")
    assert shell.run(sys.executable, "-m", "tool").returncode == 0
    assert shell.calls()["total"]["count"] == 1


@pytest.mark.parametrize("method", ["spawn", "fork", "forkserver"])
def test_multiprocessing(shell, method):
    app = shell.program(
        f"""
        import multiprocessing
        if __name__ == "__main__":
            multiprocessing.set_start_method({method!r})
            call("parent")
            workers = [multiprocessing.Process(target=call, args=("worker",)) for _ in range(3)]
            for worker in workers: worker.start()
            for worker in workers: worker.join()
        """
    )
    run = shell.run(sys.executable, app)
    assert run.returncode == 0, run.stderr
    found = shell.calls()["groups"]
    assert {name: group["count"] for name, group in found.items()} == {"worker": 3, "parent": 1}, run.stderr


def test_a_pool_whose_workers_are_terminated(shell):
    app = shell.program(
        """
        import multiprocessing
        if __name__ == "__main__":
            with multiprocessing.get_context("spawn").Pool(2) as pool:  # leaving it terminates the workers
                pool.map(call, ["worker"] * 6)
        """
    )
    run = shell.run(sys.executable, app)
    assert run.returncode == 0, run.stderr
    assert shell.calls()["total"]["count"] == 6, run.stderr


def test_os_fork(shell):
    app = shell.program(
        """
        call("parent")
        if os.fork() == 0:
            call("child")
            raise SystemExit(0)
        os.wait()
        """
    )
    assert shell.run(sys.executable, "-W", "ignore", app).returncode == 0
    assert {name: group["count"] for name, group in shell.calls()["groups"].items()} == {"parent": 1, "child": 1}


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("workers", [1, 2])
def test_uvicorn(shell, workers, ending):
    shell.program(
        """
        async def app(scope, receive, send):
            if scope["type"] != "http":
                return
            call("served")
            await send({"type": "http.response.start", "status": 200, "headers": [(b"connection", b"close")]})
            await send({"type": "http.response.body", "body": str(os.getpid()).encode()})
        """
    )
    command = ["uvicorn", "app:app", "--port", "0", "--workers", workers, "--no-access-log", "--lifespan", "off"]
    log = shell.folder / "log"
    with log.open("wb") as stderr:
        process = shell.start("run", "--store", shell.store, "--", sys.executable, "-m", *command, stderr=stderr)
        with process:
            url = wait_for_url(log, workers)
            for _ in range(6):
                assert httpx.get(url).status_code == 200
            process.send_signal(ending)
            assert process.wait(30) in {0, 128 + ending}
    assert shell.calls()["groups"]["served"]["count"] == 6
    assert "served" in log.read_text()


def wait_for_url(log, workers):
    """Where uvicorn says it listens, once all its workers are up."""
    import re
    import time

    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        text = log.read_text()
        found = re.search(r"running on (http://[\d.:]+)", text)
        if found and text.count("Application startup complete") >= workers:
            return found[1]
        if found and workers > 1 and text.count("Started server process") >= workers:
            return found[1]
        if found and workers == 1 and "Started server process" in text:
            return found[1]
        time.sleep(0.05)
    raise AssertionError(log.read_text())


# ---------------------------------------------------------------------- what cannot be metered


def test_a_sitecustomize_that_was_there_still_runs(shell):
    (shell.folder / "site").mkdir()
    (shell.folder / "site" / "sitecustomize.py").write_text("import os; ran_in = os.getpid()")
    shell.environment["PYTHONPATH"] = str(shell.folder / "site")
    app = shell.program(
        "call(); import sitecustomize; print(sitecustomize.__file__, sitecustomize.ran_in == os.getpid())"
    )
    assert shell.run(sys.executable, app).stdout.decode().split() == [f"{shell.folder}/site/sitecustomize.py", "True"]
    assert shell.calls()["total"]["count"] == 1


def test_an_error_in_it_is_told_by_python_as_ever(shell):
    (shell.folder / "site").mkdir()
    (shell.folder / "site" / "sitecustomize.py").write_text("raise ValueError('theirs')")
    shell.environment["PYTHONPATH"] = str(shell.folder / "site")
    run = shell.run(sys.executable, shell.program("call()"))
    assert b"ValueError: theirs" in run.stderr
    assert shell.calls()["total"]["count"] == 1


@pytest.mark.parametrize("flag", ["-I", "-E", "-S"])
def test_a_python_that_ignores_us_is_told(shell, flag):
    run = shell.run(sys.executable, flag, "-c", "print(1)")
    assert (run.returncode, run.stdout) == (0, b"1\n")
    assert b"no Python process was metered" in run.stderr


def test_a_command_that_is_no_python_is_told(shell):
    run = shell.run("true")
    assert run.returncode == 0
    assert run.stderr.count(b"\n") == 1
    assert b"no Python process was metered" in run.stderr


def test_a_program_without_calls_is_told(shell):
    run = shell.run(sys.executable, "-c", "pass")
    assert run.stderr == b"tellmeter: no LLM call was metered\n"


def test_a_python_without_tellmeter_says_so_once(shell):
    bare = shell.folder / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", bare], check=True)
    code = "import subprocess, sys; [subprocess.run([sys.executable, '-c', 'print(1)']) for _ in range(3)]"
    run = shell.run(bare / "bin" / "python", "-c", code)
    assert run.stdout == b"1\n" * 3
    told = run.stderr.decode().splitlines()
    assert [line for line in told if "is not metered" in line and f"{bare}/bin/python -m pip install tellmeter" in line]
    assert len(told) == 2, told
    assert "no Python process was metered" in told[1]


# ---------------------------------------------------------------------- one line that says what to do


def test_a_command_that_is_not_there(shell):
    run = shell.run("no-such-command")
    assert (run.returncode, run.stderr) == (127, b"tellmeter: no-such-command: command not found\n")


def test_a_command_that_cannot_be_executed(shell):
    run = shell.run(shell.folder)
    assert run.returncode == 126
    assert run.stderr.count(b"\n") == 1


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["run"], "COMMAND"),
        (["run", "--nope", "--", "true"], "--nope"),
        (["run", "--tag", "novalue", "--", "true"], "name=value"),
        (["run", "--tag", "run=mine", "--", "true"], "run"),
        (["run", "--store", "nonsense", "--", "true"], "nonsense"),
        (["run", "--store", "nonsense://x", "--", "true"], "nonsense"),
        (["summary", "--since", "soon"], "30s"),
        (["summary", "--by", "colour"], "model, provider"),
        (["demo", "--seconds", "0"], "seconds"),
        (["nope"], "nope"),
    ],
)
def test_bad_arguments(shell, arguments, word):
    run = shell.tellmeter(*arguments)
    assert (run.returncode, run.stdout) == (2, b"")
    assert run.stderr.count(b"\n") == 1
    assert word in run.stderr.decode()


@pytest.mark.parametrize("command", [["summary"], ["run", "--", "true"]])
def test_a_store_that_cannot_be_read(shell, command):
    broken = shell.folder / "broken.db"
    broken.write_bytes(b"this is no database " * 100)
    run = shell.tellmeter(command[0], "--store", f"sqlite:///{broken}", *command[1:])
    assert run.returncode == 1
    assert run.stderr.count(b"\n") == 1
    assert str(broken) in run.stderr.decode()


def test_a_store_that_is_not_there(shell):
    run = shell.tellmeter("summary", "--store", f"sqlite:///{shell.folder}/missing.db")
    assert run.returncode == 1
    assert run.stderr.count(b"\n") == 1
    assert not (shell.folder / "missing.db").exists()


def test_a_store_that_breaks_during_the_run_leaves_the_exit_code(shell):
    app = shell.program("open('calls.db', 'wb').write(b'no database at all ' * 1000); raise SystemExit(5)")
    for name in ("calls.db-wal", "calls.db-shm"):
        app.write_text(app.read_text() + f"\nif os.path.exists({name!r}): os.remove({name!r})")
    assert shell.run(sys.executable, app).returncode == 5
