"""Sinks that SinkContract is tried on: right ones, one for each shape, and what breaks in them."""

import asyncio
import http.client
import json
import socket
import threading
import time
from contextlib import contextmanager

from tellmeter import BatchingMetricsSink, Delivered, MetricsSink, Partial, Rejected, RetryLater, TooLarge
from tellmeter.testing import Answer, Dribble, FaultServer, Hang, Reset, SinkContract

KEY = "key-7f3a91"


class PostSink(BatchingMetricsSink):
    """Posts a batch of ids as JSON, within its deadline to the byte."""

    def __init__(self, url, key=KEY):
        super().__init__()
        self.address = (url.split("//")[1].split(":")[0], int(url.rsplit(":", 1)[1]))
        self.key = key

    def send(self, batch, deadline):
        body = json.dumps([record.id for record in batch])
        try:
            status, headers, data = self.exchange(body.encode(), deadline)
        except (OSError, http.client.HTTPException) as error:
            return self.failed(error)
        return self.outcome(status, headers, data)

    def outcome(self, status, headers, data):
        if status == 200:
            return Delivered()
        if status == 207:
            return Partial(retry=tuple(json.loads(data)))
        if status == 413:
            return TooLarge()
        if status in (401, 503):
            return RetryLater(after=float(headers.get("retry-after", 60)), reason="unauthorized")
        return Rejected(f"http_{status}")

    def failed(self, error):
        return RetryLater(reason="unreachable")

    def exchange(self, body, deadline):
        request = (
            f"POST / HTTP/1.1\r\nHost: here\r\nAuthorization: Bearer {self.key}\r\nConnection: close\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        ).encode() + body
        answer = b""
        with socket.create_connection(self.address, self.left(deadline)) as connection:
            connection.settimeout(self.left(deadline))
            connection.sendall(request)
            while b"\r\n\r\n" not in answer or len(answer.partition(b"\r\n\r\n")[2]) < length(answer):
                connection.settimeout(self.left(deadline))
                part = connection.recv(65536)
                if not part:
                    raise ConnectionError
                answer += part
        head, _, data = answer.partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
        return int(lines[0].split()[1]), headers, data

    def left(self, deadline):
        if (seconds := deadline - time.monotonic()) <= 0:
            raise TimeoutError
        return seconds


def length(answer):
    for line in answer.partition(b"\r\n\r\n")[0].decode().lower().split("\r\n"):
        if line.startswith("content-length:"):
            return int(line.partition(":")[2])
    return 0


class Backend:
    """A FaultServer that takes ids, and fails in every kind of way."""

    def __init__(self):
        self.ids = []
        self.server = FaultServer(self.take)

    def take(self, request):
        self.ids += request.json()
        return Answer(200)

    def take_even(self, request):
        ids = request.json()
        self.ids += ids[::2]
        return Answer(207, json.dumps(list(range(1, len(ids), 2))).encode())

    def take_ten(self, request):
        return Answer(413) if len(request.json()) > 10 else self.take(request)

    @contextmanager
    def fails(self, kind):
        server = self.server
        if kind == "down":
            server.stop_listening()
            yield
            server.start_listening()
            return
        server.default = {
            "error": Answer(503, headers={"Retry-After": "2"}),
            "reset": Reset(),
            "hang": Hang(),
            "dribble": Dribble(1.0),
            "retry_after": Answer(503, headers={"Retry-After": "120"}),
            "too_large": self.take_ten,
            "partial": self.take_even,
            "reject": Answer(400),
            "unauthorized": Answer(401),
        }[kind]
        yield 120
        server.default = self.take


class PostContract(SinkContract):
    """The contract of a PostSink; `make` is what is broken in it."""

    secrets = (KEY,)
    make = PostSink

    def make_sink(self):
        return type(self).make(self.backend.server.url)

    def read_back(self):
        return self.backend.ids

    def fault(self, kind):
        return self.backend.fails(kind)


class BufferedSink(MetricsSink):
    """As the guide of custom sinks shows them: async, with a buffer and a lock of asyncio, written at a flush."""

    def __init__(self, path):
        self.path, self.buffer, self.lock = path, [], asyncio.Lock()

    async def record(self, metrics):
        async with self.lock:
            self.buffer.append(metrics.id)
            if len(self.buffer) >= 10:
                self.save()

    async def flush(self):
        async with self.lock:
            self.save()

    def save(self):
        with open(self.path, "a") as file:
            file.writelines(f"{one}\n" for one in self.buffer)
        self.buffer.clear()


class PlainSink:
    """The least: a synchronous record()."""

    def __init__(self, path):
        self.path = path

    def record(self, metrics):
        with open(self.path, "a") as file:
            file.write(f"{metrics.id}\n")


class MemorySink:
    """write(): called on the router's thread."""

    def __init__(self, records):
        self.records = records
        self.lock = threading.Lock()

    def write(self, record):
        with self.lock:
            self.records.append(record)
