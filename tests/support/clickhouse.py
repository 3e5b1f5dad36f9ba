"""A real ClickHouse engine (chDB) behind ClickHouse's HTTP interface on loopback, its data in a folder of its own."""

from __future__ import annotations

import atexit
import functools
import json
import shutil
import subprocess
import tempfile
import time
import urllib.parse
import urllib.request
import uuid
from pathlib import Path
from typing import Any

from .ports import free_port

SCRIPT = Path(__file__).with_name("clickhouse_server.py")
USER, PASSWORD = "me", "hunter2-canary"  # its other user is `default`, without a password
_NO_PROXY = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class ClickHouse:
    """Started with `start()`, which `stop()` undoes and may be called again; `close()` ends it for good."""

    def __init__(self, python: str) -> None:
        self._python = python
        self.port = free_port()
        self._folder = Path(tempfile.mkdtemp(prefix="tellmeter-clickhouse-"))
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        log = self._folder / "log"
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                [self._python, SCRIPT, str(self.port), self._folder],
                stdout=errors,
                stderr=errors,
                cwd=self._folder,
                start_new_session=True,
            )
        deadline = time.monotonic() + 60
        while True:
            try:
                with _NO_PROXY.open(f"{self.url}/ping", timeout=5):
                    return
            except OSError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    said = log.read_text("utf-8", "replace")
                    self.close()
                    raise RuntimeError(said) from None
                time.sleep(0.02)

    def stop(self) -> None:
        """End it at once, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(30)
            self._process = None

    def close(self) -> None:
        """End it and delete its data."""
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    def store(self, table: str = "llm_metrics", query: str = "", who: str = "") -> str:
        """The URL of a store on it."""
        return f"clickhouse://{who}127.0.0.1:{self.port}/default?table={table}{query}"

    def run(self, sql: str, **values: Any) -> list[dict[str, Any]]:
        """The rows of SQL, read by the HTTP interface as anybody may read them."""
        asked = {"default_format": "JSONEachRow", **{f"param_{name}": str(value) for name, value in values.items()}}
        request = urllib.request.Request(f"{self.url}/?{urllib.parse.urlencode(asked)}", sql.encode())
        try:
            with _NO_PROXY.open(request, timeout=120) as answer:
                return [json.loads(line) for line in answer.read().splitlines()]
        except urllib.error.HTTPError as error:
            raise RuntimeError(error.read().decode()) from None


@functools.cache
def shared() -> ClickHouse:
    """The server of all tests that need no one of their own; they have tables of their own."""
    from .servers import require_python

    require_python("lib/python3*/site-packages/chdb")
    server = ClickHouse(require_python())
    atexit.register(server.close)
    server.start()
    return server


def table() -> str:
    """A table's name that no other test has."""
    return f"calls_{uuid.uuid4().hex[:12]}"


def totals(server: ClickHouse, table: str = "llm_metrics") -> dict[str, float]:
    """What was written, added up by the server."""
    (found,) = server.run(f"""
        SELECT count() AS calls, sum(input_tokens + output_tokens) AS tokens, sumKahan(ifNull(cost_usd, 0)) AS dollars,
            countIf(status IN ('error', 'timeout', 'rejected')) AS errors
        FROM {table} FINAL
    """)
    return {name: float(value) if name == "dollars" else int(value) for name, value in found.items()}
