import asyncio
import http.client
import threading
import time
from contextlib import contextmanager

import pytest

import tellmeter.serve.page as page_module
from tellmeter.registry.registry import MetricsRegistry

DEADLINE = 20.0


@pytest.fixture
def registry():
    made = MetricsRegistry()
    requests = made.counter("request_count", "Requests", labels=("endpoint",))
    for number in range(50):
        requests.labels(f"/v1/{number}").inc(number)
    return made


class FakePage:
    """Stands for the registry's page: what it yields, whether it waits or raises, and how often it was asked."""

    def __init__(self):
        self.pieces = [b"one 1.0\n", b"two 2.0\n"]
        self.error = None
        self.gate = None
        self.asked = []
        self.started = threading.Semaphore(0)

    def __call__(self, registry=None, *, openmetrics=False):
        self.asked.append((registry, openmetrics))
        self.started.release()
        if self.gate is not None:
            assert self.gate.wait(DEADLINE)
        yield from self.pieces
        if self.error is not None:
            raise self.error


@pytest.fixture
def page(monkeypatch):
    fake = FakePage()
    monkeypatch.setattr(page_module, "page", fake)
    return fake


@pytest.fixture
def until():
    def wait(condition):
        deadline = time.monotonic() + DEADLINE
        while not (found := condition()):
            assert time.monotonic() < deadline
            time.sleep(0.005)
        return found

    return wait


@pytest.fixture
def ask():
    def request(port, path="/metrics", method="GET", host="127.0.0.1", **headers):
        connection = http.client.HTTPConnection(host, port, timeout=DEADLINE)
        try:
            connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
            answer = connection.getresponse()
            answer.body = answer.read()
            return answer
        finally:
            connection.close()

    return request


@pytest.fixture
def uvicorn_server(until):
    """A real uvicorn for an application; its port."""
    import uvicorn

    @contextmanager
    def serving(app, **settings):
        config = uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, ws="none", **settings)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=lambda: asyncio.run(server.serve()))
        thread.start()
        try:
            until(lambda: server.started or not thread.is_alive())
            yield server.servers[0].sockets[0].getsockname()[1]
        finally:
            server.should_exit = True
            thread.join(DEADLINE)
            assert not thread.is_alive()

    return serving
