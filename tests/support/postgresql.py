"""A real PostgreSQL on loopback, its data in a folder of its own; it writes nothing through to the disk."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import subprocess
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

from .ports import free_port
from .servers import require

PASSWORD = "hunter2-canary"


class PostgreSQL:
    """Started with `start()`, which `stop()` undoes and may be called again; `close()` ends it for good.

    Its superuser is `postgres` without a password; every other user needs one.
    """

    def __init__(self) -> None:
        self._bin = Path(require("postgres")).resolve().parent
        self.port = free_port()
        self._folder = Path(tempfile.mkdtemp(prefix="tellmeter-postgresql-"))
        self._folder.chmod(0o711)  # PostgreSQL refuses root, and its own user must get in
        self._data = self._folder / "data"
        self._data.mkdir(mode=0o700)
        self._log = self._folder / "log"
        self._log.touch()
        self._as: dict[str, Any] = {"cwd": self._folder}
        if os.getuid() == 0:
            import pwd

            who = pwd.getpwnam("postgres")
            self._as |= {"user": who.pw_uid, "group": who.pw_gid, "extra_groups": []}
            os.chown(self._data, who.pw_uid, who.pw_gid)
        self._process: subprocess.Popen[bytes] | None = None
        subprocess.run(
            [
                self._bin / "initdb",
                "-D",
                self._data,
                *["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"],
            ],
            check=True,
            stdout=subprocess.DEVNULL,
            **self._as,
        )
        (self._data / "pg_hba.conf").write_text(
            "host all postgres 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n", "utf-8"
        )

    def start(self) -> None:
        """Start it, and wait until it answers."""
        settings = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "fsync": "off",
            "full_page_writes": "off",
            "max_connections": "40",
            "shared_buffers": "64MB",
            "max_wal_size": "512MB",
        }
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [self._bin / "postgres", "-D", self._data, "-p", str(self.port)]
                + [word for name, value in settings.items() for word in ("-c", f"{name}={value}")],
                stdout=log,
                stderr=log,
                **self._as,
            )
        deadline = time.monotonic() + 60
        ready = [self._bin / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        while subprocess.run(ready, check=False).returncode:
            if self._process.poll() is not None or time.monotonic() > deadline:
                said = self._log.read_text("utf-8")
                self.close()
                raise RuntimeError(said)
            time.sleep(0.02)

    def stop(self) -> None:
        """End it at once, as a crash would."""
        if self._process is not None:
            self._process.send_signal(3)  # immediate shutdown: connections are cut
            self._process.wait(30)
            self._process = None

    def close(self) -> None:
        """End it and delete its data."""
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def url(self, user: str = "postgres", password: str = "", database: str = "postgres", query: str = "") -> str:
        """Its address for a user."""
        who = f"{user}:{password}" if password else user
        return f"postgresql://{who}@127.0.0.1:{self.port}/{database}{query}"

    def run(self, sql: str, *arguments: Any) -> list[tuple[Any, ...]]:
        """The rows of SQL, as the superuser."""
        import psycopg

        with psycopg.connect(self.url(), autocommit=True) as connection:
            cursor = connection.execute(sql, arguments or None)
            return cursor.fetchall() if cursor.description else []


@functools.cache
def shared() -> PostgreSQL:
    """The server of all tests that need no one of their own; they have tables of their own."""
    server = PostgreSQL()
    atexit.register(server.close)
    server.start()
    return server


def table() -> str:
    """A table's name that no other test has."""
    return f"calls_{uuid.uuid4().hex[:12]}"
