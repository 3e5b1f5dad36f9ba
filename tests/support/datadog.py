"""What Datadog would keep: its metrics API and an Agent's DogStatsD, by their documents; and a real VictoriaMetrics."""

from __future__ import annotations

import atexit
import contextlib
import json
import math
import os
import re
import selectors
import shutil
import socket
import struct
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
import zlib
from collections import defaultdict
from pathlib import Path
from typing import Any

import msgspec

from tellmeter.testing import Answer, FaultServer

from .ports import free_port
from .servers import require

KEY = "canary-datadog-key"

# https://docs.datadoghq.com/api/latest/metrics/#submit-metrics
SENT_BYTES, PLAIN_BYTES = 512_000, 5_242_880
PAST_SECONDS, FUTURE_SECONDS = 3600, 600
# https://docs.datadoghq.com/metrics/custom_metrics/ and https://docs.datadoghq.com/getting_started/tagging/
NAME = re.compile(r"[a-zA-Z][a-zA-Z0-9_.]{0,199}")
TAG = re.compile(r"[^\W\d_][\w:./-]*(?<!_)")

Place = tuple[str, str, frozenset[str]]  # name, host, tags


class _Strict(msgspec.Struct, forbid_unknown_fields=True):
    metric: str
    tags: list[str]


class _Resource(msgspec.Struct, forbid_unknown_fields=True):
    type: str
    name: str


class _Point(msgspec.Struct, forbid_unknown_fields=True):
    timestamp: int
    value: float


class _CountV2(_Strict):
    points: list[_Point]
    type: int
    interval: int
    unit: str = ""
    resources: list[_Resource] = []

    def kept(self) -> tuple[str, list[tuple[int, float]]]:
        assert self.type == 1
        return "".join(one.name for one in self.resources), [(one.timestamp, one.value) for one in self.points]


class _CountV1(_Strict):
    points: list[tuple[int, float]]
    type: str
    interval: int
    host: str = ""

    def kept(self) -> tuple[str, list[tuple[int, float]]]:
        assert self.type == "count"
        return self.host, self.points


class _Distribution(_Strict):
    points: list[tuple[int, list[float]]]
    type: str
    host: str = ""


class _Series(msgspec.Struct, forbid_unknown_fields=True):
    series: list[dict[str, Any]]


_KINDS: dict[str, type[_Strict]] = {
    "/api/v2/series": _CountV2,
    "/api/v1/series": _CountV1,
    "/api/v1/distribution_points": _Distribution,
}


class Kept:
    """What arrived. Of counts the last value for a metric, host, tags and second; of distributions every value."""

    def __init__(self) -> None:
        self.counts: dict[Place, dict[int, float]] = defaultdict(dict)
        self.distributions: dict[Place, list[tuple[int, float]]] = defaultdict(list)
        self.unclean: list[str] = []
        """Names and tags that Datadog would have changed."""
        self.late: list[str] = []
        """Metrics with points that Datadog throws away without a word."""
        self._checked: set[tuple[str, ...]] = set()

    def check(self, name: str, tags: list[str]) -> None:
        if (seen := (name, *tags)) in self._checked:
            return
        self._checked.add(seen)
        self.unclean += [] if NAME.fullmatch(name) else [name]
        self.unclean += [
            tag for tag in tags if not TAG.fullmatch(tag) or len(tag) > 200 or tag != tag.lower() or "__" in tag
        ]

    def values(self) -> dict[tuple[str, frozenset[str]], list[float]]:
        """What a query finds for each metric and its tags, in no order."""
        found: dict[tuple[str, frozenset[str]], list[float]] = defaultdict(list)
        for (name, _, tags), points in self.counts.items():
            found[name, tags] += points.values()
        for (name, _, tags), values in self.distributions.items():
            found[name, tags] += [value for _, value in values]
        return dict(found)

    def total(self, name: str, *tags: str) -> float:
        """`sum:<name>{<tags>}` over all time."""
        return sum(
            math.fsum(values) for (metric, has), values in self.values().items() if metric == name and has >= {*tags}
        )


class Intake(Kept):
    """Datadog's metrics API on loopback: refuses, alters, throws away and overwrites as its documents say.

    `url` is its address; `server` the FaultServer that it is, whose script goes first.
    """

    def __init__(self) -> None:
        super().__init__()
        self.server = FaultServer(self.take)
        self.url = self.server.url

    def take(self, request: Any) -> Answer:
        if request.headers.get("dd-api-key") != KEY:
            return _refused(403, "Forbidden")
        if request.method != "POST" or request.path not in _KINDS:
            return _refused(404, "Not found")
        encoding = request.headers.get("content-encoding")
        if encoding not in (None, "deflate") or request.headers.get("content-type") != "application/json":
            return _refused(415, "Unsupported media type")
        if len(request.body) > SENT_BYTES:
            return _refused(413, "Payload too large")
        body = zlib.decompress(request.body) if encoding else request.body
        if len(body) >= PLAIN_BYTES:
            return _refused(413, "Payload too large")
        try:
            series = [msgspec.convert(one, _KINDS[request.path]) for one in json.loads(body)["series"]]
        except (ValueError, KeyError):
            return _refused(400, "Bad request")
        for one in series:
            self._keep(one)
        return Answer(202, b'{"errors": []}' if "v2" in request.path else b'{"status": "ok"}')

    def _keep(self, one: Any) -> None:
        self.check(one.metric, one.tags)
        host, points = (one.host, one.points) if isinstance(one, _Distribution) else one.kept()
        place, now = (one.metric, host, frozenset(one.tags)), time.time()
        for second, value in points:
            if not now - PAST_SECONDS <= second <= now + FUTURE_SECONDS:
                self.late.append(one.metric)
            elif isinstance(value, list):
                self.distributions[place] += [(second, each) for each in value]
            else:
                self.counts[place][second] = value

    def close(self) -> None:
        self.server.close()

    def __enter__(self) -> Intake:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _refused(status: int, why: str) -> Answer:
    return Answer(status, json.dumps({"errors": [why]}).encode())


class Agent(Kept):
    """An Agent's DogStatsD: UDP on loopback, or a Unix socket of either kind. A datagram above 8192 bytes is cut off.

    What it reads is its protocol v1.1 and nothing else: a line that is not is an error, which `close` raises.
    """

    _LINE = re.compile(r"(?P<name>[^:|#@\s]+):(?P<values>[^|]+)\|(?P<type>[cd])(\|#(?P<tags>[^|#]+))?")

    def __init__(self, path: str | os.PathLike[str] | None = None, *, stream: bool = False) -> None:
        super().__init__()
        self.datagrams: list[bytes] = []
        self._stream = stream
        self._errors: list[str] = []
        kind = socket.SOCK_STREAM if stream else socket.SOCK_DGRAM
        self._socket = socket.socket(socket.AF_INET if path is None else socket.AF_UNIX, kind)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 * 1024 * 1024)
        self._socket.bind(("127.0.0.1", 0) if path is None else os.fspath(path))
        if stream:
            self._socket.listen()
        self.port = self._socket.getsockname()[1] if path is None else 0
        self._changed = threading.Condition()
        self._woken, self._waker = socket.socketpair()
        self._thread = threading.Thread(target=self._read, name="tellmeter-fault-server-agent", daemon=True)
        self._thread.start()

    def _read(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._socket, selectors.EVENT_READ)
            selector.register(self._woken, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    if key.fileobj is self._woken:
                        return
                    try:
                        if self._stream:
                            self._serve(self._socket.accept()[0])
                        else:
                            self._take(self._socket.recv(8192))
                    except Exception as error:
                        self._errors.append(repr(error))

    def _serve(self, client: socket.socket) -> None:
        with client, client.makefile("rb") as reading:
            while len(size := reading.read(4)) == 4:
                self._take(reading.read(*struct.unpack("<I", size)))

    def _take(self, datagram: bytes) -> None:
        with self._changed:
            self.datagrams.append(datagram)
            for line in datagram.decode().split("\n"):
                found = self._LINE.fullmatch(line)
                assert found, f"no line of DogStatsD: {line!r}"
                values = [float(value) for value in found["values"].split(":")]
                tags = (found["tags"] or "").split(",")
                self.check(found["name"], tags)
                place = (found["name"], "", frozenset(tags))
                if found["type"] == "d":
                    self.distributions[place] += [(0, value) for value in values]
                else:
                    self.counts[place][0] = self.counts[place].get(0, 0.0) + math.fsum(values)
            self._changed.notify_all()

    def wait(self, right: Any, seconds: float = 20.0) -> None:
        """Until `right()` holds."""
        with self._changed:
            assert self._changed.wait_for(right, seconds), f"not within {seconds} s"

    def close(self) -> None:
        """Stop; AssertionError where something came that is no DogStatsD."""
        self._waker.send(b"\0")
        self._thread.join(20)
        for one in (self._socket, self._woken, self._waker):
            one.close()
        assert not self._errors, self._errors

    def __enter__(self) -> Agent:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class VictoriaMetrics:
    """A real VictoriaMetrics, which takes Datadog's older series; `url` is what stands for the API's address."""

    INTERVAL = 10

    def __init__(self) -> None:
        program = require("victoria-metrics")
        self._folder = Path(tempfile.mkdtemp(prefix="tellmeter-victoria-"))
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/datadog"
        self._process = subprocess.Popen(
            [
                program,
                f"-storageDataPath={self._folder / 'data'}",
                f"-httpListenAddr=127.0.0.1:{self.port}",
                "-retentionPeriod=1",
                "-search.latencyOffset=0s",
                "-search.disableCache",
                "-loggerLevel=ERROR",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        atexit.register(self.close)
        self._until(lambda: self._get("/health") is not None)

    def _get(self, path: str) -> bytes | None:
        url = f"http://127.0.0.1:{self.port}{path}"
        with contextlib.suppress(urllib.error.URLError), urllib.request.urlopen(url, timeout=10) as answer:
            return answer.read()  # type: ignore[no-any-return]
        return None

    @staticmethod
    def _until(right: Any, seconds: float = 30.0) -> None:
        end = time.monotonic() + seconds
        while not right():
            assert time.monotonic() < end, f"not within {seconds} s"
            time.sleep(0.05)

    def by_tags(self, name: str) -> dict[frozenset[str], float]:
        """The sums of a count for each set of tags, by one query.

        Datadog keeps the last value written for a second; this one keeps all. They are running sums, so that the last
        is the greatest: of each interval the greatest, and of these the sum.
        """
        step = self.INTERVAL
        kept = f'sum_over_time(max_over_time({{__name__="{name}"}}[{step}s])[20m:{step}s])'
        until = (int(time.time()) // step + 1) * step
        query = urllib.parse.urlencode({"query": kept, "time": until, "nocache": 1})
        found = json.loads(self._get(f"/api/v1/query?{query}") or b"{}")["data"]["result"]
        return {
            frozenset(f"{key}:{value}" for key, value in one["metric"].items() if key not in ("__name__", "host")): (
                float(one["value"][1])
            )
            for one in found
        }

    def total(self, name: str) -> float:
        """Of all sets of tags."""
        return math.fsum(self.by_tags(name).values())

    def wait_for(self, name: str, value: float) -> None:
        """Until a total is there: what is written can be read about a second later."""
        self._until(lambda: self.total(name) == value)

    def close(self) -> None:
        atexit.unregister(self.close)
        self._process.terminate()
        self._process.wait(30)
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> VictoriaMetrics:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def totals(server: Intake | Agent | VictoriaMetrics, namespace: str = "llm") -> dict[str, float]:
    """Everything that was written there: calls, tokens, dollars and errors, as the backend adds them up."""
    return {
        "calls": int(server.total(f"{namespace}.requests")),
        "tokens": int(server.total(f"{namespace}.tokens.input") + server.total(f"{namespace}.tokens.output")),
        "dollars": server.total(f"{namespace}.cost"),
        "errors": int(server.total(f"{namespace}.errors")),
    }
