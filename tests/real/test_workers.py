"""Real servers with several workers: whoever is asked shows the sum of all, exact and never falling, whoever is killed."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.support.ports import free_port

SECONDS = 60
WORKERS = 4
APP = """
import os
from tellmeter.registry.page import page
from tellmeter.registry.registry import get_metrics_registry

registry = get_metrics_registry()
requests = registry.counter("requests", "Requests.", ["path"])
bound = registry.counter("bound", "Requests, counted by a series that was bound at the import.", []).labels()
seconds = registry.histogram("seconds", "Seconds.", [])

def answer(path):
    if path == "/metrics":
        return b"".join(page())
    if path == "/pid":
        return str(os.getpid()).encode()
    requests.labels(path).inc()
    bound.inc()
    seconds.observe(0.1)
    return b"ok"

def wsgi(environ, start):
    start("200 OK", [("content-type", "text/plain")])
    return [answer(environ["PATH_INFO"])]

async def asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            kind = (await receive())["type"]
            await send({"type": kind + ".complete"})
            if kind == "lifespan.shutdown":
                return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": answer(scope["path"])})
"""
GUNICORN = ("-m", "gunicorn", "-w", "4", "--access-logfile", "/dev/null", "--log-level", "warning", "--timeout", "60")
SERVERS = {
    "gunicorn": (*GUNICORN, "-b", "127.0.0.1:{port}", "app:wsgi"),
    "gunicorn --preload": (*GUNICORN, "--preload", "-b", "127.0.0.1:{port}", "app:wsgi"),
    "gunicorn, threads": (*GUNICORN, "-k", "gthread", "--threads", "4", "-b", "127.0.0.1:{port}", "app:wsgi"),
    "gunicorn, uvicorn": (*GUNICORN, "-k", "uvicorn.workers.UvicornWorker", "-b", "127.0.0.1:{port}", "app:asgi"),
    "uvicorn": ("-m", "uvicorn", "--workers", "4", "--log-level", "warning", "--port", "{port}", "app:asgi"),
}


class Service:
    """A server and what was seen of it."""

    def __init__(self, folder: Path, server: str) -> None:
        (folder / "app.py").write_text(textwrap.dedent(APP))
        self.shared = folder / "shared"
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.log = folder / "log"
        with self.log.open("wb") as log:
            self.server = subprocess.Popen(
                [sys.executable, "-W", "ignore", *(part.format(port=port) for part in SERVERS[server])],
                cwd=folder,
                env={**os.environ, "TELLMETER_MULTIPROC_DIR": str(self.shared)},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.sent = 0
        self.seen: dict[str, float] = {}
        self.wait(self.worker)
        self.wait(lambda: len(self.processes()) >= WORKERS)

    def wait(self, what):
        deadline = time.monotonic() + SECONDS
        while True:
            try:
                if found := what():
                    return found
            except httpx.TransportError:
                pass
            assert self.server.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()

    def worker(self) -> int:
        """The process of whichever worker answers."""
        return int(httpx.get(f"{self.url}/pid", timeout=SECONDS).text)

    def processes(self) -> set[str]:
        return set(Path(f"/proc/{self.server.pid}/task/{self.server.pid}/children").read_text().split())

    def send(self, number: int) -> None:
        """So many requests on several connections, all of which are answered."""

        def one_connection(times: int) -> None:
            with httpx.Client(timeout=SECONDS) as client:
                for _ in range(times):
                    assert client.get(f"{self.url}/a").text == "ok"

        with ThreadPoolExecutor(8) as connections:
            list(connections.map(one_connection, [number // 8] * 8))
        self.sent += number // 8 * 8

    def scrape(self) -> dict[str, float]:
        """What any worker shows. Nothing ever falls."""
        page = httpx.get(f"{self.url}/metrics", timeout=SECONDS).text
        found = {name: float(value) for name, value in re.findall(r"^([^#\s]\S*) (\S+)$", page, re.MULTILINE)}
        for name, value in self.seen.items():
            assert found[name] >= value, name
        self.seen = found
        assert found.get('requests_total{path="/a"}', 0) <= self.sent
        return found

    def all_are_shown(self) -> bool:
        found = self.scrape()
        names = ('requests_total{path="/a"}', "bound_total", "seconds_count", 'seconds_bucket{le="0.1"}')
        return [found.get(name) for name in names] == [self.sent] * 4

    def files(self, kind: str = "snap") -> list[str]:
        return sorted(path.name for path in self.shared.glob(f"*.{kind}"))

    def stop(self) -> None:
        self.server.send_signal(signal.SIGTERM)
        self.server.wait(SECONDS)

    def kill(self) -> None:
        try:
            os.killpg(self.server.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.server.wait(SECONDS)


@pytest.fixture
def serve(tmp_path):
    started = []

    def start(server: str) -> Service:
        started.append(Service(tmp_path, server))
        return started[-1]

    yield start
    for service in started:
        service.kill()


def available(server: str) -> bool:
    wanted = "uvicorn.workers" if "UvicornWorker" in str(SERVERS[server]) else "uvicorn"
    try:
        return importlib.util.find_spec(wanted) is not None
    except ImportError:
        return False


@pytest.mark.heavy
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="no /proc here")
@pytest.mark.parametrize("server", SERVERS)
def test_counts_are_exact_and_never_fall_whoever_is_killed(serve, server):
    if not available(server):
        pytest.skip("this uvicorn has no worker for gunicorn")
    service = serve(server)
    service.send(200)
    service.wait(service.all_are_shown)  # also: every worker that counted has written
    for _ in range(3):
        before, victim = service.processes(), service.worker()
        os.kill(victim, signal.SIGKILL)
        service.wait(lambda before=before: service.processes() - before and len(service.processes()) == len(before))
        service.wait(service.worker)
        for _ in range(8):
            assert service.all_are_shown()  # nothing of the dead one is lost, and nothing counts twice
        service.send(200)
        service.wait(service.all_are_shown)
        for _ in range(8):
            assert service.all_are_shown()
    # Three have died, and one file tells of them.
    service.wait(lambda: service.scrape() and len(service.files()) <= 6)
    assert "dead.snap" in service.files()
    service.send(80)
    if "uvicorn" in server:  # which ends its workers by SIGTERM: they have no last words
        service.wait(service.all_are_shown)
    service.stop()
    # What those that ended had to say is heard by whoever comes next.
    page = subprocess.run(
        [sys.executable, "-c", "from tellmeter.registry.page import page; print(b''.join(page()).decode())"],
        env={**os.environ, "TELLMETER_MULTIPROC_DIR": str(service.shared)},
        capture_output=True,
        text=True,
        check=True,
        timeout=SECONDS,
    ).stdout
    assert f'requests_total{{path="/a"}} {service.sent}.0\n' in page
    assert f"seconds_count {service.sent}.0\n" in page
    assert service.files() == ["dead.snap"]
    assert service.files("corrupt") == []
