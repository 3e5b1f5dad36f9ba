"""The backends that the guides' blocks write to: real servers with what their clients read from the environment, or ports
that refuse.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from tellmeter.testing import FaultServer

from . import cloudwatch, datadog, influxdb, otlp, postgresql
from .ports import free_port


class Backend(NamedTuple):
    environ: dict[str, str]
    arrived: Callable[[], Any]

    def wait(self, otherwise: str) -> None:
        """Until something is there: some can be read a second after they are written."""
        assert self.has_come(30), otherwise

    def has_come(self, seconds: float) -> bool:
        """Whether something is there, within so many seconds."""
        end = time.monotonic() + seconds
        while not (there := bool(self.arrived())) and time.monotonic() < end:
            time.sleep(0.05)
        return there


# What is asked before there is a server, because it says where that is. {port} is the server's, or one that refuses.
_KEYS = {"AWS_ACCESS_KEY_ID": "AKIATESTING", "AWS_SECRET_ACCESS_KEY": cloudwatch.SECRET}
_ENVIRON = {
    "cloudwatch": {
        **_KEYS,
        "AWS_DEFAULT_REGION": cloudwatch.REGION,
        "AWS_ENDPOINT_URL": "http://127.0.0.1:{port}",
        "AWS_EC2_METADATA_DISABLED": "true",
    },
    "datadog": {"DD_API_KEY": datadog.KEY, "DD_URL": "http://127.0.0.1:{port}"},
    "http": {"HTTP_URL": "http://127.0.0.1:{port}"},
    "influxdb": {"INFLUX_URL": "http://127.0.0.1:{port}"},
    "otlp": {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:{port}",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
    },
    "postgresql": {"PGPORT": "{port}"},  # the guide's address has none
}


@contextlib.contextmanager
def _cloudwatch() -> Iterator[tuple[int, Callable[[], Any]]]:
    with contextlib.closing(cloudwatch.Moto()) as server:
        yield server.port, lambda: cloudwatch.client(server).list_metrics()["Metrics"]


@contextlib.contextmanager
def _datadog() -> Iterator[tuple[int, Callable[[], Any]]]:
    with datadog.Intake() as server:
        yield server.server.port, lambda: server.server.received


@contextlib.contextmanager
def _http() -> Iterator[tuple[int, Callable[[], Any]]]:
    with FaultServer() as server:
        yield server.port, lambda: [one for request in server.requests for one in request.json()["metrics"]]


@contextlib.contextmanager
def _influxdb() -> Iterator[tuple[int, Callable[[], Any]]]:
    server = influxdb.VictoriaMetrics()
    with contextlib.closing(server):
        server.start()
        yield server.port, lambda: server.samples('{__name__=~"llm_request_.*"}')


@contextlib.contextmanager
def _otlp() -> Iterator[tuple[int, Callable[[], Any]]]:
    with contextlib.closing(otlp.Rotel()) as server:
        yield server.port, server.points


@contextlib.contextmanager
def _postgresql() -> Iterator[tuple[int, Callable[[], Any]]]:
    """With the user, the password and the database of the guide's address."""
    server = postgresql.shared()
    if not server.run("SELECT 1 FROM pg_roles WHERE rolname = 'user'"):
        server.run("CREATE ROLE \"user\" LOGIN PASSWORD 'pass'")
    server.run("DROP DATABASE IF EXISTS metrics WITH (FORCE)")
    server.run('CREATE DATABASE metrics OWNER "user"')

    def tables() -> Any:
        import psycopg

        with psycopg.connect(server.url(database="metrics")) as connection:
            return connection.execute("SELECT 1 FROM pg_tables WHERE tablename = 'llm_metrics'").fetchall()

    yield server.port, tables


_SERVERS = {
    "cloudwatch": _cloudwatch,
    "datadog": _datadog,
    "http": _http,
    "influxdb": _influxdb,
    "otlp": _otlp,
    "postgresql": _postgresql,
}


@contextlib.contextmanager
def backend(name: str, *, up: bool) -> Iterator[Backend]:
    """A backend by its name, or a port that refuses in its place."""
    with contextlib.ExitStack() as stack:
        port, arrived = stack.enter_context(_SERVERS[name]()) if up else (free_port(), lambda: None)
        yield Backend({key: value.format(port=port) for key, value in _ENVIRON[name].items()}, arrived)
