"""A PostgreSQL of one's own for a benchmark, with the durability that a server has by default."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path


def program() -> Path | None:
    """Where PostgreSQL's programs are; Debian keeps them apart, off the PATH."""
    found = shutil.which("postgres") or max(map(str, Path("/usr/lib/postgresql").glob("*/bin/postgres")), default=None)
    return None if found is None else Path(found).resolve().parent


@contextlib.contextmanager
def server(bin_folder: Path):
    """Start one on loopback; its URL. It is stopped and its data deleted at the end."""
    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        port = chosen.getsockname()[1]
    folder = Path(tempfile.mkdtemp(prefix="tellmeter-bench-"))
    folder.chmod(0o711)  # PostgreSQL refuses root, and its own user must get in
    data = folder / "data"
    data.mkdir(mode=0o700)
    user = {"cwd": folder}
    if os.getuid() == 0:
        import pwd

        who = pwd.getpwnam("postgres")
        os.chown(data, who.pw_uid, who.pw_gid)
        user |= {"user": who.pw_uid, "group": who.pw_gid, "extra_groups": []}
    made = ["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8"]
    subprocess.run([bin_folder / "initdb", "-D", data, *made], check=True, stdout=subprocess.DEVNULL, **user)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [bin_folder / "postgres", "-D", data, "-p", str(port), "-h", "127.0.0.1", "-k", ""],
            stdout=log,
            stderr=log,
            **user,
        )
    try:
        ready = [bin_folder / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)]
        deadline = time.monotonic() + 60
        while subprocess.run(ready, check=False).returncode:
            assert process.poll() is None and time.monotonic() < deadline, (folder / "log").read_text()
            time.sleep(0.05)
        yield f"postgresql://postgres@127.0.0.1:{port}/postgres"
    finally:
        process.send_signal(2)  # a fast shutdown
        process.wait(60)
        shutil.rmtree(folder, ignore_errors=True)
