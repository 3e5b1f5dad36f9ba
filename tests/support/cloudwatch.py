"""A real moto server for CloudWatch and its Logs, what is in it, and the limits that AWS has and moto does not enforce."""

from __future__ import annotations

import atexit
import functools
import json
import math
import os
import re
import signal
import subprocess
import tempfile
import time
import urllib.request
import uuid
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from .ports import free_port
from .servers import require_python

SECRET = "hunter2-canary"
REGION = "us-east-1"
Series = tuple[str, tuple[tuple[str, str], ...]]


class Moto:
    """A server that keeps what CloudWatch is given; `close()` ends it."""

    def __init__(self) -> None:
        command = require_python("bin/moto_server")
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._log = Path(tempfile.mkstemp(prefix="tellmeter-moto-")[1])
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [command, "-H", "127.0.0.1", "-p", str(self.port)], stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + 60
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                said = self._log.read_text("utf-8", "replace")
                self.close()
                raise RuntimeError(said)
            time.sleep(0.05)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/moto-api/data.json", timeout=5):
                return True
        except OSError:
            return False

    def reset(self) -> None:
        """Forget everything."""
        with urllib.request.urlopen(urllib.request.Request(f"{self.url}/moto-api/reset", method="POST"), timeout=30):
            pass

    def close(self) -> None:
        """Kill it with its children."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(30)
        self._log.unlink(missing_ok=True)


@functools.cache
def shared() -> Moto:
    """The server of all tests; they have namespaces of their own."""
    server = Moto()
    atexit.register(server.close)
    return server


def namespace() -> str:
    """A namespace that no other test has."""
    return f"Test/{uuid.uuid4().hex[:12]}"


def session() -> Any:
    """A session with made-up keys."""
    import boto3

    return boto3.Session(aws_access_key_id="AKIATESTING", aws_secret_access_key=SECRET, region_name=REGION)


def client(server: Moto, service: str = "cloudwatch") -> Any:
    """A client of boto3, to read with."""
    return session().client(service, endpoint_url=server.url)


# ---------------------------------------------------------------------- the limits

_ASCII = re.compile(r"[ -~]*[!-~][ -~]*")
_UNITS = {"Count", "Milliseconds", "None"}
_MEGABYTE = 1_000_000


def broken_limits(
    parameters: Mapping[str, Any], body: bytes = b"", packed: bytes = b"", now: float | None = None
) -> list[str]:
    """What AWS would refuse of a PutMetricData request; its sources are in sinks/cloudwatch/limits.py."""
    now, wrong = time.time() if now is None else now, []
    space, data = parameters["Namespace"], parameters["MetricData"]
    if not 1 <= len(space) <= 255 or space.startswith(("AWS/", ":")) or not _ASCII.fullmatch(space):
        wrong.append(f"namespace {space!r}")
    if not 1 <= len(data) <= 1000:
        wrong.append(f"{len(data)} data")
    wrong += [f"{len(one)} bytes" for one in (body, packed) if len(one) > _MEGABYTE]
    for datum in data:
        wrong += _broken_by(datum, now)
    return wrong


def _broken_by(datum: Mapping[str, Any], now: float) -> list[str]:
    wrong = []
    values, counts = datum["Values"], _counts(datum)
    if not 1 <= len(values) <= 150 or len(values) != len(counts) or len(set(values)) < len(values):
        wrong.append(f"{len(values)} values, {len(counts)} counts")
    wrong += [f"value {one!r}" for one in values if not math.isfinite(one) or abs(one) > 2.0**360]
    wrong += [f"value {one!r}" for one in values if one and abs(one) < 2.0**-360]
    wrong += [f"count {one!r}" for one in counts if not (math.isfinite(one) and one > 0)]
    if not 1 <= len(datum["MetricName"]) <= 255:
        wrong.append("name of a metric")
    wrong += [] if datum["Unit"] in _UNITS and datum["StorageResolution"] in (1, 60) else ["unit or resolution"]
    dimensions = datum["Dimensions"]
    names = [one["Name"] for one in dimensions]
    if len(dimensions) > 30 or len(set(names)) < len(names):
        wrong.append(f"{len(dimensions)} dimensions")
    for one in dimensions:
        name, value = one["Name"], one["Value"]
        if not 1 <= len(name) <= 255 or name.startswith(":") or not _ASCII.fullmatch(name):
            wrong.append(f"name {name!r}")
        if not 1 <= len(value) <= 1024 or not _ASCII.fullmatch(value):
            wrong.append(f"value {value[:60]!r}")
    if not now - 14 * 86_400 <= datum["Timestamp"].timestamp() <= now + 2 * 3600:
        wrong.append(f"time {datum['Timestamp']}")
    return wrong


class Watched:
    """A session whose clients' requests are kept in `requests`, and held to the limits: breaking one raises."""

    def __init__(self) -> None:
        self.session = session()
        self.requests: list[dict[str, Any]] = []
        self.sizes: list[int] = []
        events = self.session.events
        events.register("provide-client-params.cloudwatch.PutMetricData", self._parameters)
        events.register("before-call.cloudwatch.PutMetricData", self._body)
        events.register("before-send.cloudwatch.PutMetricData", self._packed)

    def _parameters(self, params: dict[str, Any], **more: Any) -> None:
        self._hold(broken_limits(params))
        self.requests.append(params)

    def _body(self, params: Mapping[str, Any], **more: Any) -> None:
        body = params["body"]
        self.sizes.append(len(body))
        self._hold([f"{len(body)} bytes"] if len(body) > _MEGABYTE else [])

    def _packed(self, request: Any, **more: Any) -> None:
        self._hold([f"{len(request.body)} bytes"] if len(request.body) > _MEGABYTE else [])

    @staticmethod
    def _hold(wrong: list[str]) -> None:
        assert not wrong, wrong[:5]


def _counts(datum: Mapping[str, Any]) -> Sequence[float]:
    return datum.get("Counts", [1.0] * len(datum["Values"]))


# ---------------------------------------------------------------------- what was sent, and what is there


class Statistics:
    """Count, sum, minimum and maximum of values, exactly."""

    def __init__(self) -> None:
        self.count = 0
        self.sum = Fraction(0)
        self.minimum = math.inf
        self.maximum = -math.inf

    def add(self, value: float, count: int = 1) -> None:
        """Add a value that came `count` times."""
        self.count += count
        self.sum += Fraction(value) * count
        self.minimum, self.maximum = min(self.minimum, value), max(self.maximum, value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Statistics) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash(self.sum)

    def __repr__(self) -> str:
        return f"({self.count}, {float(self.sum)!r}, {self.minimum!r}, {self.maximum!r})"


def sent(requests: Iterable[Mapping[str, Any]]) -> dict[tuple[Series, int], Statistics]:
    """What requests come to, by series and period (Unix seconds)."""
    found: dict[tuple[Series, int], Statistics] = {}
    for request in requests:
        for datum in request["MetricData"]:
            key = (_series(datum["MetricName"], datum["Dimensions"]), int(datum["Timestamp"].timestamp()))
            statistics = found.setdefault(key, Statistics())
            for value, count in zip(datum["Values"], _counts(datum), strict=True):
                statistics.add(value, int(count))
    return found


def series_in(server: Moto, space: str, name: str) -> list[Series]:
    """All series of a metric. moto names those without dimensions often, and its time grows with the square."""
    pages = client(server).get_paginator("list_metrics").paginate(Namespace=space, MetricName=name)
    return sorted({_series(one["MetricName"], one["Dimensions"]) for page in pages for one in page["Metrics"]})


def statistics_of(server: Moto, space: str, series: Sequence[Series], start: float, end: float) -> Any:
    """By series and minute: (count, sum, minimum, maximum), as GetMetricStatistics says.

    moto takes dimensions for a filter: it adds up all series of that name that have these and more.
    """
    reading = client(server)
    found = {}
    for one in series:
        answer = reading.get_metric_statistics(
            Namespace=space,
            MetricName=one[0],
            Dimensions=_dimensions(one),
            StartTime=int(start),
            EndTime=int(end),
            Period=60,
            Statistics=list(_STATISTICS),
        )
        for point in answer["Datapoints"]:
            found[one, int(point["Timestamp"].timestamp())] = tuple(point[name] for name in _STATISTICS)
    return found


def sums_of(server: Moto, space: str, series: Sequence[Series]) -> dict[Series, float]:
    """The sum of each series, as GetMetricData says. moto looks at the dimensions, and not at the namespace."""
    reading, now, found = client(server), time.time(), Counter[Series]()
    for at in range(0, len(series), 500):
        some = series[at : at + 500]
        queries = [
            {
                "Id": f"q{number}",
                "MetricStat": {
                    "Metric": {"Namespace": space, "MetricName": one[0], "Dimensions": _dimensions(one)},
                    "Period": 30 * 86_400,
                    "Stat": "Sum",
                },
            }
            for number, one in enumerate(some)
        ]
        start, end = int(now - 15 * 86_400), int(now + 3 * 3600)
        answer = reading.get_metric_data(MetricDataQueries=queries, StartTime=start, EndTime=end)
        for result in answer["MetricDataResults"]:
            found[some[int(result["Id"][1:])]] += math.fsum(result["Values"])
    return dict(found)


def totals(server: Moto, space: str = "LLM/Metrics") -> dict[str, Any]:
    """Calls, tokens, dollars and errors of a namespace, by its series per provider (one of the default dimensions)."""
    ours = [
        dimensions for _, dimensions in series_in(server, space, "Requests") if dict(dimensions).keys() == {"Provider"}
    ]
    kinds = {"calls": "Requests", "tokens": "TokenUsage", "dollars": "Cost", "errors": "Errors"}
    found: dict[str, Any] = {}
    for kind, name in kinds.items():
        label = (("TokenType", "total"),) if name == "TokenUsage" else ()
        sums = sums_of(server, space, [(name, one + label) for one in ours])
        found[kind] = math.fsum(sums.values()) if kind == "dollars" else int(math.fsum(sums.values()))
    return found


_STATISTICS = ("SampleCount", "Sum", "Minimum", "Maximum")


def _dimensions(series: Series) -> list[dict[str, str]]:
    """In the order of the sink's sets here: moto takes others for others."""
    order = {"Provider": 0, "Model": 1, "ErrorType": 3, "TokenType": 3}
    names = sorted(series[1], key=lambda one: order.get(one[0], 2))
    return [{"Name": name, "Value": value} for name, value in names]


def _series(name: str, dimensions: Iterable[Mapping[str, str]]) -> Series:
    return name, tuple(sorted((one["Name"], one["Value"]) for one in dimensions))


# ---------------------------------------------------------------------- the Embedded Metric Format

# After the schema in the specification: what each part must be and how much of it.
EMF_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["_aws"],
    "properties": {
        "_aws": {
            "type": "object",
            "required": ["Timestamp", "CloudWatchMetrics"],
            "properties": {
                "Timestamp": {"type": "integer"},
                "CloudWatchMetrics": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "required": ["Namespace", "Dimensions", "Metrics"],
                        "properties": {
                            "Namespace": {"type": "string", "minLength": 1, "maxLength": 1024},
                            "Dimensions": {
                                "type": "array",
                                "minItems": 1,
                                "items": {
                                    "type": "array",
                                    "minItems": 0,
                                    "maxItems": 30,
                                    "items": {"type": "string", "minLength": 1, "maxLength": 250},
                                },
                            },
                            "Metrics": {
                                "type": "array",
                                "minItems": 1,
                                "maxItems": 100,
                                "items": {
                                    "type": "object",
                                    "required": ["Name"],
                                    "properties": {
                                        "Name": {"type": "string", "minLength": 1, "maxLength": 1024},
                                        "Unit": {"type": "string", "enum": sorted(_UNITS)},
                                        "StorageResolution": {"type": "integer", "enum": [1, 60]},
                                    },
                                },
                            },
                        },
                    },
                },
            },
        },
    },
}
_TYPES = {"object": dict, "array": list, "string": str, "integer": int}


def faults_of(value: Any, schema: Mapping[str, Any], where: str = "") -> list[str]:
    """Where a value breaks a schema, of the words of JSON Schema that EMF's uses."""
    if not isinstance(value, _TYPES[schema["type"]]) or isinstance(value, bool):
        return [f"{where}: no {schema['type']}"]
    wrong = [f"{where}: no {name}" for name in schema.get("required", ()) if name not in value]
    wrong += [f"{where}: {value!r}"] if value not in schema.get("enum", [value]) else []
    least, most = ("minLength", "maxLength") if isinstance(value, str) else ("minItems", "maxItems")
    if hasattr(value, "__len__") and not schema.get(least, 0) <= len(value) <= schema.get(most, math.inf):
        wrong.append(f"{where}: {len(value)} long")
    for number, one in enumerate(value if isinstance(value, list) else ()):
        wrong += faults_of(one, schema["items"], f"{where}[{number}]")
    if isinstance(value, dict):
        for name, inner in schema.get("properties", {}).items():
            if name in value:
                wrong += faults_of(value[name], inner, f"{where}.{name}")
    return wrong


def emf_faults(line: bytes | str) -> list[str]:
    """What CloudWatch would not take of a line: the schema, and what its directives name in the root."""
    root = json.loads(line)
    wrong = faults_of(root, EMF_SCHEMA)
    if wrong:
        return wrong
    if len(line.encode() if isinstance(line, str) else line) > 1024 * 1024 - 26:
        wrong.append("too long")
    for directive in root["_aws"]["CloudWatchMetrics"]:
        for name in {name for one in directive["Dimensions"] for name in one}:
            value = root.get(name)
            if not isinstance(value, str) or not 1 <= len(value) <= 1024 or not _ASCII.fullmatch(value):
                wrong.append(f"dimension {name}: {str(value)[:40]!r}")
        for metric in directive["Metrics"]:
            value = root.get(metric["Name"])
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 2.0**360:
                wrong.append(f"metric {metric['Name']}: {value!r}")
    return wrong


def metrics_in(lines: Iterable[bytes | str]) -> dict[tuple[Series, int], Statistics]:
    """The metrics that CloudWatch makes of lines, by series and minute (Unix seconds)."""
    found: dict[tuple[Series, int], Statistics] = {}
    for line in lines:
        root = json.loads(line)
        minute = root["_aws"]["Timestamp"] // 60_000 * 60
        for directive in root["_aws"]["CloudWatchMetrics"]:
            for names in directive["Dimensions"]:
                dimensions = tuple(sorted((name, root[name]) for name in names))
                for metric in directive["Metrics"]:
                    key = ((metric["Name"], dimensions), minute)
                    found.setdefault(key, Statistics()).add(float(root[metric["Name"]]))
    return found
