"""ClickHouse's HTTP interface before its real engine (chDB, in this process): argv: PORT FOLDER.

Run by the Python of .venv-servers, which has chDB and nothing of ours. SQL, types, engines, settings, formats and the
codes of exceptions are the engine's. The rest is as ClickHouse's HTTPHandler does it: where query, data, settings and
parameters are, users, headers, statuses. There are no quotas, no sessions and no native protocol, one query runs at a
time, and an answer is sent when it is complete.
"""

from __future__ import annotations

import base64
import contextlib
import gzip
import json
import os
import re
import sys
import tempfile
import threading
import urllib.parse
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from chdb import session

USERS = {"default": "", "me": "hunter2-canary"}
# What is in the URL and no setting of the engine.
_NO_SETTINGS = {
    "buffer_size", "client_protocol_version", "compress", "database", "decompress", "default_format", "enable_http_compression",
    "http_headers_progress_interval_ms", "param_", "password", "query", "query_id", "quota_key", "role",
    "send_progress_in_http_headers", "session_check", "session_id", "session_timeout", "user", "wait_end_of_query",
}  # fmt: skip
_STATUSES = {194: 401, 192: 403, 193: 403, 516: 403, 48: 501, 209: 503, 159: 408, 62: 400, 158: 400}
_NOT_FOUND = {46, 47, 50, 56, 60, 81, 115}
_BAD_REQUEST = {6, 16, 26, 27, 33, 36, 38, 41, 43, 53, 70, 72, 117, 386, 456, 457}
_FORMAT = re.compile(r"\bFORMAT\s+(\w+)\s*;?\s*$", re.IGNORECASE)
_INSERT = re.compile(r"\s*INSERT\b", re.IGNORECASE)
_SELECT = re.compile(r"\s*(SELECT|WITH)\b", re.IGNORECASE)

LOCK = threading.Lock()


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        """A ping, or a query in the URL."""
        if self.path.partition("?")[0] == "/ping":
            self._answer(200, b"Ok.\n")
        else:
            self._work(b"")

    def do_POST(self) -> None:
        """A query in the body, or one in the URL with data in the body."""
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        self._work(gzip.decompress(body) if self.headers.get("content-encoding") == "gzip" else body)

    def _work(self, body: bytes) -> None:
        place = urllib.parse.urlsplit(self.path)
        if place.path != "/":
            self._answer(404, b"There is no handle " + place.path.encode() + b"\n")
            return
        asked = dict(urllib.parse.parse_qsl(place.query, keep_blank_values=True))
        if not self._known(asked):
            self._refuse(
                516, "Code: 516. DB::Exception: Authentication failed: password is incorrect. (AUTHENTICATION_FAILED)"
            )
            return
        sql, data = asked.get("query", ""), body
        if not sql:
            sql, data = body.decode(), b""
        settings = {
            name: value for name, value in asked.items() if name not in _NO_SETTINGS and not name.startswith("param_")
        }
        values = {name[6:]: value for name, value in asked.items() if name.startswith("param_")}
        try:
            with LOCK:
                kind, found = self.server.run(sql, data, asked.get("default_format", "TabSeparated"), settings, values)
        except Exception as error:
            told = str(error)
            code = re.search(r"Code: (\d+)", told)
            self._refuse(int(code[1]) if code else 1002, told)
        else:
            written = data.count(b"\n") + 1 if data else 0
            summary = json.dumps({"read_rows": "0", "written_rows": str(written), "written_bytes": str(len(data))})
            self._answer(200, found, {"X-ClickHouse-Format": kind, "X-ClickHouse-Summary": summary})

    def _known(self, asked: dict[str, str]) -> bool:
        user = self.headers.get("x-clickhouse-user") or asked.get("user") or "default"
        password = self.headers.get("x-clickhouse-key") or asked.get("password") or ""
        basic = self.headers.get("authorization", "")
        if basic.startswith("Basic "):
            user, _, password = base64.b64decode(basic[6:]).decode().partition(":")
        return USERS.get(user) == password

    def _refuse(self, code: int, told: str) -> None:
        status = _STATUSES.get(code) or (404 if code in _NOT_FOUND else 400 if code in _BAD_REQUEST else 500)
        self._answer(status, f"{told}\n".encode(), {"X-ClickHouse-Exception-Code": str(code)})

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        always = {
            "X-ClickHouse-Server-Display-Name": "localhost",
            "X-ClickHouse-Query-Id": str(uuid.uuid4()),
            "X-ClickHouse-Timezone": "UTC",
            "Content-Length": str(len(body)),
        }
        self.send_response(status)
        for name, value in {**always, **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        """Nothing to nobody."""


class Server(ThreadingHTTPServer):
    """The engine, and who listens before it."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port: int, folder: Path) -> None:
        self._engine = session.Session(str(folder / "engine"))
        self._files = Path(tempfile.mkdtemp(dir=folder))
        super().__init__(("127.0.0.1", port), Handler)

    def run(
        self, sql: str, data: bytes, default: str, settings: dict[str, str], values: dict[str, str]
    ) -> tuple[str, bytes]:
        """The format of an answer, and the answer."""
        found = _FORMAT.search(sql)
        kind = found[1] if found else default
        bare = sql[: found.start()] if found else sql.rstrip().rstrip(";")
        with contextlib.ExitStack() as end:
            if _INSERT.match(sql) and data:
                bare, values = self._insert(bare, kind, data, settings, end), {}
                kind = "TabSeparated"
            elif _SELECT.match(sql):
                bare += _settings(settings)
            elif _INSERT.match(sql) and found:
                bare = sql
            answer = self._engine.query(bare, kind, params=values)
        return kind, answer.bytes() if answer is not None else b""

    def _insert(self, bare: str, kind: str, data: bytes, settings: dict[str, str], end: contextlib.ExitStack) -> str:
        if kind != "Native":
            return f"{bare}{_settings(settings)} FORMAT {kind}\n{data.decode()}"
        # The engine takes data beside SQL as text only.
        path = self._files / uuid.uuid4().hex
        path.write_bytes(data)
        end.callback(path.unlink)
        return f"{bare}{_settings(settings)} SELECT * FROM file('{path}', 'Native')"


def _settings(settings: dict[str, str]) -> str:
    given = ", ".join(f"{name} = '{value}'" for name, value in settings.items() if re.fullmatch(r"\w+", name))
    return f" SETTINGS {given}" if given else ""


def main() -> None:
    """Serve until the parent is gone."""
    parent = os.getppid()
    server = Server(int(sys.argv[1]), Path(sys.argv[2]))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print("ready", flush=True)
    never = threading.Event()
    while os.getppid() == parent:
        never.wait(1.0)
    os._exit(0)


if __name__ == "__main__":
    main()
