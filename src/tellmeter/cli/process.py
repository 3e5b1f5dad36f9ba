"""Runs one command as if nobody stood before it: its input, output, signals and exit code are the caller's own."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Mapping, Sequence

NOT_EXECUTABLE = 126
NOT_FOUND = 127
_FORWARDED_NAMES = ("SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM", "SIGUSR1", "SIGUSR2", "SIGALRM")


class CannotStart(Exception):
    """The command cannot be started; `exit_code` is what a shell would say."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def run_command(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run `command` to its end and return its exit code (128 + n for a death by signal n).

    Raises:
        CannotStart: there is no such command, or it may not be executed.
    """
    if sys.platform == "win32":
        import subprocess

        try:
            return subprocess.call(command, env=environment)  # noqa: S603
        except OSError as error:
            raise _cannot_start(command[0], error) from None
    forwarded = {getattr(signal, name) for name in _FORWARDED_NAMES}
    # A signal that is ignored by default is not kept while blocked everywhere; one with a handler is.
    former = signal.signal(signal.SIGCHLD, lambda number, frame: None)
    # Blocked and waited for, not handled: no signal is lost between the start of the child and the wait for it.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD, *forwarded})
    try:
        pid = _spawn(command, environment, before)
        while True:
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                code = os.waitstatus_to_exitcode(status)
                return code if code >= 0 else 128 - code
            number, for_us_alone = _next_signal({signal.SIGCHLD, *forwarded}, pid)
            if number in forwarded and for_us_alone:
                os.kill(pid, number)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        signal.signal(signal.SIGCHLD, former)


def _spawn(command: Sequence[str], environment: Mapping[str, str], mask: set[int]) -> int:
    # Python ignores these two for itself, which a child would inherit.
    default = [getattr(signal, name) for name in ("SIGPIPE", "SIGXFSZ") if hasattr(signal, name)]
    try:
        return os.posix_spawnp(command[0], list(command), environment, setsigmask=mask, setsigdef=default)
    except OSError as error:
        raise _cannot_start(command[0], error) from None


def _next_signal(awaited: set[int], child: int) -> tuple[int, bool]:
    """Wait for a signal; say whether it was meant for this process alone, so that the child does not have it already.

    A terminal sends Ctrl-C to the whole process group, the child included; the kernel is then the sender. What the
    child itself sends to its group must not come back to it either. (sudo has the same two rules.)
    """
    if not hasattr(signal, "sigwaitinfo"):  # macOS: whose terminal it is must do
        number = int(signal.sigwait(awaited))
        return number, not (number in {signal.SIGINT, signal.SIGQUIT} and _in_foreground())
    info = signal.sigwaitinfo(awaited)
    assert info is not None
    return info.si_signo, info.si_code <= 0 and info.si_pid != child


def _in_foreground() -> bool:
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)


def _cannot_start(name: str, error: OSError) -> CannotStart:
    if isinstance(error, FileNotFoundError):
        if shutil.which(name):
            return CannotStart(f"{name}: the interpreter that its first line names is not there", NOT_FOUND)
        return CannotStart(f"{name}: command not found", NOT_FOUND)
    return CannotStart(f"{name}: cannot be executed ({error.strerror})", NOT_EXECUTABLE)
