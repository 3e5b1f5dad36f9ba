"""Receivers of OTLP metrics: our own with faults, rotel's and Datadog's; and what they got, in one shape."""

from __future__ import annotations

import base64
import json
import re
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tellmeter.registry.names import clean_label, prometheus_name
from tellmeter.testing import FaultServer

from .ports import free_port
from .servers import require_python

_BOUND = re.compile(r"^(?:ExplicitBounds|Buckets) #\d+(?:, Count)?: (.*)$")


class Point(NamedTuple):
    """One data point. `value` is a number, or (count, sum, bucket counts); exemplars are (trace, span, value)."""

    name: str
    unit: str
    kind: str
    delta: bool
    monotonic: bool
    resource: Mapping[str, Any]
    attributes: tuple[tuple[str, Any], ...]
    start: int
    time: int
    value: Any
    bounds: tuple[float, ...] = ()
    exemplars: tuple[tuple[str, str, float], ...] = ()

    @property
    def series(self) -> tuple[Any, ...]:
        return self.name, self.attributes


def points_in(requests: Iterable[Mapping[str, Any]]) -> list[Point]:
    """The points of export requests in protobuf's JSON with its own field names."""
    found = []
    for request in requests:
        for resource_metrics in request.get("resource_metrics", ()):
            resource = dict(_attributes(resource_metrics["resource"].get("attributes", ())))
            for scope_metrics in resource_metrics["scope_metrics"]:
                assert scope_metrics["scope"]["name"] == "tellmeter"
                for metric in scope_metrics.get("metrics", ()):
                    found += list(_points(metric, resource))
    return found


def _points(metric: Mapping[str, Any], resource: Mapping[str, Any]) -> Iterable[Point]:
    kind = next(kind for kind in ("sum", "gauge", "histogram") if kind in metric)
    data = metric[kind]
    for one in data["data_points"]:
        if kind == "histogram":
            value: Any = (int(one.get("count", 0)), float(one.get("sum", 0)), tuple(map(int, one["bucket_counts"])))
        else:
            value = float(one["as_double"]) if "as_double" in one else int(one["as_int"])
        yield Point(
            metric["name"],
            metric.get("unit", ""),
            kind,
            data.get("aggregation_temporality") == "AGGREGATION_TEMPORALITY_DELTA",
            data.get("is_monotonic", False),
            resource,
            tuple(sorted(_attributes(one.get("attributes", ())))),
            int(one.get("start_time_unix_nano", 0)),
            int(one["time_unix_nano"]),
            value,
            tuple(one.get("explicit_bounds", ())),
            tuple(
                (
                    base64.b64decode(exemplar.get("trace_id", "")).hex(),
                    base64.b64decode(exemplar.get("span_id", "")).hex(),
                    float(exemplar.get("as_double", exemplar.get("as_int", 0))),
                )
                for exemplar in one.get("exemplars", ())
            ),
        )


def _attributes(pairs: Iterable[Mapping[str, Any]]) -> list[tuple[str, Any]]:
    return [(pair["key"], next(iter(pair["value"].values()), "")) for pair in pairs]


def settled(points: Iterable[Point]) -> dict[tuple[Any, ...], Any]:
    """(name, attributes) -> the value after all of them: delta points add up, of cumulative ones the last counts.

    Instances of the service, and an instance that began again, add up.
    """
    last: dict[tuple[Any, ...], Any] = {}
    for point in points:
        key = (point.series, point.resource.get("service.instance.id"), point.start)
        last[key] = _add(last[key], point.value) if point.delta and key in last else point.value
    found: dict[tuple[Any, ...], Any] = {}
    for (series, _, _), value in last.items():
        found[series] = _add(found[series], value) if series in found else value
    return found


def _add(one: Any, other: Any) -> Any:
    if not isinstance(one, tuple):
        return one + other
    return one[0] + other[0], one[1] + other[1], tuple(a + b for a, b in zip(one[2], other[2], strict=True))


def prometheus_samples(points: Iterable[Point]) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """What a collector makes of points for Prometheus: (name, labels) -> value.

    By the specification, "Prometheus and OpenMetrics compatibility"; without the resource's labels.
    """
    points = list(points)
    meta = {point.name: point for point in points}
    found: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
    for (name, attributes), value in settled(points).items():
        point = meta[name]
        kind = "histogram" if point.kind == "histogram" else "counter" if point.monotonic else "gauge"
        exposed = prometheus_name(name, point.unit, kind)
        labels = tuple(sorted((clean_label(key), str(text)) for key, text in attributes))
        if kind != "histogram":
            found[exposed, labels] = float(value)
            continue
        count, total, buckets = value
        below = 0
        for bound, number in zip((*point.bounds, float("inf")), buckets, strict=True):
            below += number
            le = "+Inf" if bound == float("inf") else str(bound)
            found[f"{exposed}_bucket", tuple(sorted((*labels, ("le", le))))] = float(below)
        found[f"{exposed}_count", labels] = float(count)
        found[f"{exposed}_sum", labels] = total
    return found


class Receiver(FaultServer):
    """An OTLP receiver that takes everything, but for what its script says."""

    def export_requests(self) -> list[dict[str, Any]]:
        """What has arrived at /v1/metrics, accepted or not, in protobuf's JSON."""
        from google.protobuf.json_format import MessageToDict
        from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

        return [
            MessageToDict(
                ExportMetricsServiceRequest.FromString(request.content),
                preserving_proto_field_name=True,
            )
            for request in self.requests
            if request.path.endswith("/v1/metrics")
        ]

    def points(self) -> list[Point]:
        """The points of all requests, in the order of their arrival."""
        return points_in(self.export_requests())


def partial_success(refused: int) -> bytes:
    """The body of an answer that says how many points were refused."""
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse

    answer = ExportMetricsServiceResponse()
    answer.partial_success.rejected_data_points = refused
    answer.partial_success.error_message = "canary: too many"
    return bytes(answer.SerializeToString())


def totals(server: Any) -> dict[str, float]:
    """Over everything that was written to a receiver with `points()`."""
    return totals_of(server.points())


def totals_of(points: Iterable[Point]) -> dict[str, float]:
    """As `totals`, of points."""
    found = {"calls": 0.0, "tokens": 0.0, "dollars": 0.0, "errors": 0.0}
    names = {"llm_requests": "calls", "llm_cost_dollars": "dollars", "llm_errors": "errors", "llm_tokens": "tokens"}
    for (name, attributes), value in settled(points).items():
        if name == "llm_tokens" and dict(attributes).get("type") not in ("input", "output"):
            continue  # parts of those
        if name in names:
            found[names[name]] += value
    return {name: value if name == "dollars" else round(value) for name, value in found.items()}


class _Agent:
    """A program that receives OTLP over HTTP at `url`; `close()` ends it."""

    seconds = 60.0  # within which it is there

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="tellmeter-otlp-"))
        self.port, self.grpc_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.grpc_url = f"http://127.0.0.1:{self.grpc_port}"
        with (self.folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                self._command(), stdout=log, stderr=log, cwd=self.folder, start_new_session=True
            )
        try:
            for port in (self.port, self.grpc_port):
                self._wait_for(port)
        except BaseException:
            self.close()
            raise

    def _command(self) -> list[str]:
        raise NotImplementedError

    def _wait_for(self, port: int) -> None:
        deadline = time.monotonic() + self.seconds
        while True:
            with socket.socket() as one:
                if one.connect_ex(("127.0.0.1", port)) == 0:
                    return
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((self.folder / "log").read_text("utf-8", "replace"))
            time.sleep(0.05)

    def close(self) -> None:
        """End it and delete its folder."""
        import shutil

        self._process.kill()
        self._process.wait(30)
        shutil.rmtree(self.folder, ignore_errors=True)


class DatadogAgent(_Agent):
    """Datadog's test agent, which gives back as JSON what it decoded."""

    def _command(self) -> list[str]:
        return [
            require_python("bin/ddapm-test-agent"),
            *["-p", str(free_port()), "--otlp-http-port", str(self.port), "--otlp-grpc-port", str(self.grpc_port)],
            *["--web-ui-port", "0", "--disable-llmobs-data-forwarding"],
        ]

    def points(self) -> list[Point]:
        """What it has, in the order in which it came."""
        with urllib.request.urlopen(f"{self.url}/test/session/metrics", timeout=30) as answer:
            return sorted(points_in(json.load(answer)), key=lambda point: point.time)


class Rotel(_Agent):
    """rotel, a receiver in Rust, which prints what it decoded."""

    def _command(self) -> list[str]:
        return [
            require_python("lib/python*/site-packages/rotel/rotel-agent"),
            "start",
            *["--otlp-grpc-endpoint", f"127.0.0.1:{self.grpc_port}", "--otlp-http-endpoint", f"127.0.0.1:{self.port}"],
            *["--exporter", "blackhole", "--debug-log", "metrics", "--debug-log-verbosity", "detailed"],
            *["--pid-file", str(self.folder / "pid"), "--log-file", str(self.folder / "agent.log")],
        ]

    def points(self) -> list[Point]:
        """What it has printed."""
        return list(_printed((self.folder / "log").read_text("utf-8", "replace")))


def _printed(log: str) -> Iterable[Point]:
    """The points in a log; a text in it may have anything but a line break."""
    resource: dict[str, Any] = {}
    metric: dict[str, str] = {}
    point: dict[str, Any] | None = None
    attributes: dict[str, Any] = {}

    def made() -> Iterable[Point]:
        if point is None:
            return
        sums = metric["DataType"] != "Histogram"
        value: Any = float(point["Value"]) if sums else (int(point["Count"]), float(point["Sum"]), tuple(point["n"]))
        yield Point(
            metric["Name"],
            metric["Unit"],
            metric["DataType"].lower(),
            metric.get("AggregationTemporality", "").endswith("DELTA"),
            metric.get("IsMonotonic") == "true",
            resource,
            tuple(sorted(attributes.items())),
            int(point["StartTimestamp"]),
            int(point["Timestamp"]),
            value,
            tuple(point["le"]),
            tuple(zip(point["Trace ID"], point["Span ID"], point["Value:"], strict=True)),
        )

    for line in log.split("\n"):
        head, mark, text = line.partition(": ")
        name = head.removeprefix("     -> ").rstrip(":")
        if line.startswith(("ResourceMetrics #", "ScopeMetrics #", "Metric #")):
            yield from made()
            point, metric = None, {}
            if line.startswith("ResourceMetrics #"):
                resource = attributes = {}
        elif re.match(r"(Number|Histogram)DataPoints #", line):
            yield from made()
            attributes = {}
            point = {"le": [], "n": [], "Trace ID": [], "Span ID": [], "Value:": []}
        elif point is None:
            if line.startswith("     -> ") and metric is not None and line.startswith("     -> Name"):
                metric = {"Name": text}
            elif line.startswith("     -> ") and metric:
                metric[name] = text
            elif line.startswith("     -> ") and mark:
                resource[name] = _text(text)
        elif line.startswith("     -> ") and name in ("Trace ID", "Span ID", "Timestamp", "Value"):
            if name != "Timestamp":
                point["Value:" if name == "Value" else name].append(float(text) if name == "Value" else text)
        elif line.startswith("     -> "):
            key, _, value = line.removeprefix("     -> ").partition(": ")
            attributes[key] = _text(value)
        elif line.startswith("ExplicitBounds #"):
            point["le"].append(float(text))
        elif line.startswith("Buckets #"):
            point["n"].append(int(text))
        elif mark and line[:1].isalpha():
            point[head] = text
    try:
        yield from list(made())
    except KeyError:  # it is still printing
        pass


def _text(shown: str) -> Any:
    kind, _, value = shown.partition("(")
    return value.removesuffix(")") == "true" if kind == "Bool" else value.removesuffix(")")
