"""`tellmeter run`: meters a Python program and its Python child processes, which know nothing of it."""

from __future__ import annotations

import os
import shlex
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..config import RUN_VARIABLE, SINKS_VARIABLE, default_store_url
from ..errors import ConfigError, TellmeterError
from ..records import uuid7
from ..sinks.address import redact
from .process import CannotStart, run_command
from .stores import ask, chosen_url, opened, run_filter

TAGS_VARIABLE = "TELLMETER_TAGS"
SITE = Path(__file__).parent / "_site"
_NOT_ATTACHED = "no Python process was metered (python -I, -S and -E cannot be; nor can what is not Python)"


def run(command: Sequence[str], store: str | None = None, tags: Sequence[str] = ()) -> int:
    """Run `command` metered; print a table of its calls on standard error; return its exit code."""
    url = chosen_url(store)
    opened(url)  # a store that cannot work is told before the program starts, not after
    run_id = uuid7()
    with tempfile.TemporaryDirectory(prefix="tellmeter-run-", ignore_cleanup_errors=True) as folder:
        environment = metered(os.environ, url, [*map(_checked_tag, tags), f"run={run_id}"], folder)
        try:
            code = run_command(command, environment)
        except CannotStart as error:
            say(str(error))
            return error.exit_code
        attached = any(mark.name.isdigit() for mark in Path(folder).iterdir())
    report(url, run_id, attached=attached)
    return code


def metered(environment: Mapping[str, str], url: str, tags: Sequence[str], folder: str) -> dict[str, str]:
    """The environment in which Python programs meter themselves into the store at `url`.

    Sinks and tags that the environment names already stay. `folder` is where each metered process leaves its mark.

    Raises:
        ConfigError: a URL that cannot stand in a list.
    """
    if "," in url:
        raise ConfigError(f"{redact(url)}: a comma separates sinks; choose a store without one in its URL")
    changed = dict(environment)
    paths = [str(SITE), *filter(None, [environment.get("PYTHONPATH")])]
    changed["PYTHONPATH"] = os.pathsep.join(paths)
    sinks = [known for known in environment.get(SINKS_VARIABLE, "").split(",") if known.strip() not in {"", url}]
    changed[SINKS_VARIABLE] = ",".join([*sinks, url])
    changed[TAGS_VARIABLE] = ",".join([*filter(None, [environment.get(TAGS_VARIABLE, "").strip(" ,")]), *tags])
    changed[RUN_VARIABLE] = folder
    return changed


def report(url: str, run_id: str, *, attached: bool) -> None:
    """Say on standard error what was metered. Never raises: the program's exit code is what counts."""
    try:
        store = opened(url)
        answers = ask(store, "model", **run_filter(run_id, None, 0.0)) if store is not None else None
        if answers is None or not answers.total.count:
            say("no LLM call was metered" if attached else _NOT_ATTACHED)
            return
        from .tables import print_table

        sys.stderr.write("\n")
        print_table(answers, "model", to=sys.stderr)
        say(where(url, run_id))
    except TellmeterError as error:
        say(f"no table: {error}")
    except Exception as error:
        say(f"no table: {type(error).__name__}")


def where(url: str, run_id: str) -> str:
    """Where the records of a run are, and the command that shows them again."""
    if url == default_store_url():
        return f"records are in {redact(url)}; again: tellmeter summary --run {run_id}"
    return f"again: tellmeter summary --store {shlex.quote(redact(url))} --run {run_id}"


def say(message: str) -> None:
    """One line on standard error, wherever that leads."""
    try:
        sys.stderr.write(f"tellmeter: {message}\n")
        sys.stderr.flush()
    except (OSError, ValueError):
        pass


def _checked_tag(tag: str) -> str:
    name, sign, value = tag.partition("=")
    if not sign or not name.strip() or "," in tag or name.strip() == "run":
        raise ConfigError(f"--tag {tag}: it must be name=value without a comma, and not the name run")
    return f"{name.strip()}={value.strip()}"
