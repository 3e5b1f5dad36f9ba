import json
import os
import pty
import signal
import subprocess
import sys

import pytest

from tellmeter.cli.process import NOT_EXECUTABLE, NOT_FOUND, CannotStart, run_command

# The runner under test, in a process of its own: it says its exit code on descriptor 2.
RUNNER = (
    "import os, sys; from tellmeter.cli.process import run_command; sys.exit(run_command(sys.argv[1:], os.environ))"
)
# As on macOS, where nobody says who sent a signal.
RUNNER_WITHOUT_SENDERS = f"import signal; del signal.sigwaitinfo; {RUNNER}"


def runner(*command, code=RUNNER, **options):
    return subprocess.Popen([sys.executable, "-c", code, *command], **options)


def python(code):
    return [sys.executable, "-u", "-c", code]


@pytest.mark.parametrize("code", [0, 1, 7, 255])
def test_the_exit_code_is_the_commands(code):
    assert run_command(["sh", "-c", f"exit {code}"], os.environ) == code


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_death_by_a_signal_is_128_and_its_number(number):
    assert run_command(["sh", "-c", f"kill -{number.value} $$"], os.environ) == 128 + number


def test_a_command_that_is_not_there():
    with pytest.raises(CannotStart, match="no-such-command: command not found") as error:
        run_command(["no-such-command"], os.environ)
    assert error.value.exit_code == NOT_FOUND


def test_a_script_whose_interpreter_is_not_there(tmp_path):
    script = tmp_path / "script"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    with pytest.raises(CannotStart, match="interpreter") as error:
        run_command([str(script)], os.environ)
    assert error.value.exit_code == NOT_FOUND


@pytest.mark.parametrize("make", [lambda path: path.mkdir(), lambda path: path.write_text("plain text")])
def test_what_cannot_be_executed(tmp_path, make):
    path = tmp_path / "thing"
    make(path)
    with pytest.raises(CannotStart, match="cannot be executed") as error:
        run_command([str(path)], os.environ)
    assert error.value.exit_code == NOT_EXECUTABLE


def test_the_commands_environment_is_the_one_given():
    code = "import os, sys; sys.exit({*os.environ} - {'LC_CTYPE'} != {'ONLY'})"
    assert run_command(python(code), {"ONLY": "this"}) == 0


def test_signal_mask_and_dispositions_are_as_without_us():
    code = """
import json, signal
print(json.dumps([sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
                  [signal.getsignal(n) == signal.SIG_DFL for n in (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD)]]))
"""
    through = subprocess.run([sys.executable, "-c", RUNNER, *python(code)], capture_output=True, check=True).stdout
    assert json.loads(through) == [[], [True, True, True]]
    # SIGPIPE: Python ignores it for itself and a child must not inherit that.
    blocked = "yes | head -1; exit ${PIPESTATUS[0]}"
    assert run_command(["bash", "-c", blocked + " 2>/dev/null"], os.environ) == 128 + signal.SIGPIPE


def test_input_and_output_pass_through_byte_for_byte():
    data = bytes(range(256)) * 4096
    code = """
import shutil, sys
shutil.copyfileobj(sys.stdin.buffer, sys.stdout.buffer)
sys.stderr.buffer.write(b'\\xff\\x00')
"""
    run = subprocess.run([sys.executable, "-c", RUNNER, *python(code)], input=data, capture_output=True, check=False)
    assert (run.returncode, run.stdout, run.stderr) == (0, data, b"\xff\x00")


CATCHER = """
import signal, sys, time
def caught(number, frame):
    print("got", signal.Signals(number).name)
    if number in (signal.SIGTERM, signal.SIGINT):
        sys.exit(40)
for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGQUIT"):
    signal.signal(getattr(signal, name), caught)
print("ready")
while True:
    time.sleep(0.05)
"""


def test_signals_sent_to_us_reach_the_command():
    with runner(*python(CATCHER), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        for name in ("SIGHUP", "SIGUSR1", "SIGUSR2", "SIGQUIT"):
            process.send_signal(getattr(signal, name))
            assert process.stdout.readline() == f"got {name}\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "got SIGTERM\n"
        assert process.wait(10) == 40


@pytest.mark.parametrize("code", [RUNNER, RUNNER_WITHOUT_SENDERS])
def test_sigint_sent_to_us_alone_reaches_the_command(code):
    # In a session of its own there is no terminal that could have sent it to both.
    process = runner(*python(CATCHER), code=code, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=10)[0] == "got SIGINT\n"
    assert process.returncode == 40


@pytest.mark.parametrize("runner_code", [RUNNER, RUNNER_WITHOUT_SENDERS])
def test_ctrl_c_of_a_terminal_reaches_the_command_once(runner_code):
    code = """
import signal, time
seen = []
signal.signal(signal.SIGINT, lambda *_: seen.append(1))
print("ready")
end = time.monotonic() + 1.0
while time.monotonic() < end:
    time.sleep(0.05)
print(f"seen={len(seen)}.")
"""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [sys.executable, "-c", runner_code, *python(code)])
    output = b""
    pressed = False
    while b"." not in output:
        output += os.read(terminal, 1024)
        if b"ready" in output and not pressed:
            pressed = True
            os.write(terminal, b"\x03")
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 0
    assert b"seen=1." in output


def test_what_the_command_sends_to_its_group_does_not_come_back():
    code = """
import os, signal, time
seen = []
signal.signal(signal.SIGUSR1, lambda *_: seen.append(1))
os.killpg(os.getpgrp(), signal.SIGUSR1)
time.sleep(0.3)
print(len(seen))
"""
    process = runner(*python(code), stdout=subprocess.PIPE, start_new_session=True)
    assert process.communicate(timeout=20)[0] == b"1\n"


def test_a_command_that_ignores_sigterm_is_waited_for():
    code = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready")
input()
print("done")
"""
    process = runner(*python(code), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    # The command ends only when it is told to, after the signal: whoever did not wait for it dies of SIGTERM before.
    assert process.communicate("go\n", timeout=10)[0] == "done\n"
    assert process.returncode == 0
