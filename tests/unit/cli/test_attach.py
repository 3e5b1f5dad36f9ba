"""attach() in processes of its own: it changes signal handlers and hooks modules."""

import signal
import subprocess
import sys
import textwrap

import pytest

START = "import os, signal, sys\nfrom tellmeter.cli import attach\n"


def python(code, **environment):
    import os

    known = {name: value for name, value in os.environ.items() if not name.startswith("TELLMETER_")}
    return subprocess.run(
        [sys.executable, "-c", START + textwrap.dedent(code)],
        env={**known, **{name: str(value) for name, value in environment.items()}},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_it_leaves_a_mark_with_the_pid(tmp_path):
    run = python("attach.attach(); print(os.getpid())", TELLMETER_RUN_DIR=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == run.stdout.split()


def test_a_run_that_is_over_is_no_error(tmp_path):
    assert python("attach.attach()", TELLMETER_RUN_DIR=tmp_path / "gone").returncode == 0
    assert not (tmp_path / "gone").exists()


def test_it_meters_and_imports_no_http_library_for_it():
    code = """
    attach.attach()
    print({"httpx", "httpx2", "openai", "anthropic"} & sys.modules.keys())
    from tellmeter.wire import status
    print(status()["httpx"])
    import httpx
    print(status()["httpx"])
    """
    assert python(code).stdout.splitlines() == ["set()", "waits for import", "hooked"]


@pytest.mark.parametrize("before", ["signal.SIG_IGN", "print"])
def test_a_disposition_that_is_not_the_default_stays(before):
    code = (
        f"signal.signal(signal.SIGTERM, {before}); attach.attach(); print(signal.getsignal(signal.SIGTERM) is {before})"
    )
    assert python(code).stdout.split()[-1] == "True"


def test_off_the_main_thread_it_meters_all_the_same():
    code = """
    import threading
    thread = threading.Thread(target=attach.attach); thread.start(); thread.join()
    from tellmeter.wire import status
    print(signal.getsignal(signal.SIGTERM) is signal.SIG_DFL, status()["httpx"])
    """
    run = python(code)
    assert (run.stdout, run.stderr) == ("True waits for import\n", "")


def test_sigterm_delivers_what_waits_and_kills_as_ever(tmp_path):
    code = """
    attach.attach()
    import tellmeter
    tellmeter.get_metrics_collector().record(tellmeter.AgentMetrics(model="m"))
    os.kill(os.getpid(), signal.SIGTERM)
    """
    run = python(code, TELLMETER_SINKS=f"jsonl:///{tmp_path}/calls.jsonl")
    assert run.returncode == -signal.SIGTERM
    assert (tmp_path / "calls.jsonl").read_text().count('"model":"m"') == 1


def test_sigterm_without_any_call_kills_at_once():
    run = python("attach.attach(); os.kill(os.getpid(), signal.SIGTERM)")
    assert (run.returncode, run.stderr) == (-signal.SIGTERM, "")


def test_a_ctrl_c_that_was_caught_is_no_death():
    code = """
    attach.attach()
    try:
        raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    """
    assert python(code).returncode == 0
