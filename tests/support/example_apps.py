"""The web applications of examples/, served by uvicorn in a process of their own."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.ports import free_port

EXAMPLES = Path(__file__).parents[2] / "examples"


class Served:
    """An application that answers at `url`."""

    def __init__(self, port: int, process: subprocess.Popen[bytes]) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.process = process

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any, str]:
        """Status, headers and text of an answer."""
        data = None if body is None else json.dumps(body).encode()
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        if data is not None:
            given["content-type"] = "application/json"
        request = urllib.request.Request(self.url + path, data, given, method=method)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, answer.headers, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.headers, error.read().decode()

    def get(self, path: str) -> Any:
        """The JSON of an answer that must be well."""
        status, _, text = self.ask("GET", path)
        assert status == 200, text
        return json.loads(text)


@contextmanager
def served(app: str, environment: Mapping[str, str], folder: Path) -> Iterator[Served]:
    """Serve `module:app` of examples/ with `folder` as its own; what it prints is in `folder / "log"`."""
    port = free_port()
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                *(sys.executable, "-W", "error", "-m", "uvicorn", app),
                *("--app-dir", EXAMPLES, "--port", str(port)),
            ],
            cwd=folder,
            env=environment,
            stdout=output,
            stderr=output,
        )
    found = Served(port, process)
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                found.ask("GET", "/")
                break
            except OSError:
                assert process.poll() is None and time.monotonic() < deadline, log.read_text("utf-8")
                time.sleep(0.02)
        yield found
    finally:
        process.kill()
        process.wait(30)
