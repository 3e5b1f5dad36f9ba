"""`tellmeter metrics`: serves the metrics of other processes, from the folder that they write to."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from ..config import MULTIPROC_VARIABLE
from ..errors import ConfigError
from ..serve.server import start_metrics_server
from .signals import stopped_by_signals


def metrics(
    folder: str | None = None,
    host: str | None = None,
    port: int | None = None,
    token_env: str | None = None,
    basic_auth_env: str | None = None,
) -> int:
    """Serve what the processes write to `folder` until Ctrl-C or SIGTERM, which are its normal end."""
    found = chosen_folder(folder)
    token, basic_auth = _secret("--token-env", token_env), _secret("--basic-auth-env", basic_auth_env)
    os.environ[MULTIPROC_VARIABLE] = found  # where the process's registry looks for the others
    with stopped_by_signals():
        try:
            with start_metrics_server(host, port, token=token, basic_auth=basic_auth) as server:
                sys.stdout.write(f"{server.url} serves the metrics in {found} (Ctrl-C ends it)\n")
                sys.stdout.flush()
                while True:
                    time.sleep(1)  # a signal that came just before the sleep acts at its end
        except KeyboardInterrupt:
            return 0


def chosen_folder(folder: str | None) -> str:
    """The folder as it is given, else as the environment says.

    Raises:
        ConfigError: neither says one, or there is none.
    """
    name, found = "--dir", folder
    if not found:
        name, found = MULTIPROC_VARIABLE, os.environ.get(MULTIPROC_VARIABLE, "").strip()
    if not found:
        raise ConfigError(
            f"set {MULTIPROC_VARIABLE} to one folder, for the programs and for this command (here also --dir); "
            "programs without it keep their metrics to themselves"
        )
    if not Path(found).is_dir():
        raise ConfigError(f"{name} = {found}: there is no such folder; the programs write to it once it is there")
    return found


def _secret(option: str, variable: str | None) -> str | None:
    """What the environment variable has that an option names: on the command line, others could read it."""
    if variable is None:
        return None
    value = os.environ.get(variable, "").strip()
    if not value:
        raise ConfigError(f"{option} {variable}: there is no such environment variable, or it is empty")
    return value
