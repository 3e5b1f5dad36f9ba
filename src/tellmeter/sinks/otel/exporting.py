"""A MeterProvider of our own, set up from OTEL_* variables: never global, ended by whoever made it, safe to fork."""

from __future__ import annotations

import logging
import math
import os
import time
import uuid
from collections import deque
from importlib import import_module
from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    MetricExporter,
    MetricExportResult,
    MetricsData,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.resources import OTELResourceDetector, Resource

from ...counts import count
from ...guard import note
from .halves import halves, points_of
from .settings import GRPC, GRPC_PORT, HTTP_PORT, ExportSettings, port_of
from .timer import ExportTimer

logger = logging.getLogger(__name__)

COLLECT_MILLIS = 30_000.0  # the specification's default of OTEL_METRIC_EXPORT_TIMEOUT
# Of delta exports that failed; cumulative ones are replaced by the next. An hour of outage at the default interval.
KEPT_EXPORTS = 60
GRPC_POINTS = 2000.0
_RETRIED = (401, 403, 408, 425, 429)  # of 4xx: someone may mend the key, or the receiver recover
_NAMELESS = "unknown_service"  # the specification's default
_CREDENTIALS = (
    "OTEL_PYTHON_EXPORTER_OTLP_HTTP_CREDENTIAL_PROVIDER",
    "OTEL_PYTHON_EXPORTER_OTLP_HTTP_METRICS_CREDENTIAL_PROVIDER",
)


class OwnMeterProvider:
    """A MeterProvider that exports over OTLP, once per interval and on demand.

    Args:
        settings: where to, and how.
        service_name: the resource's service.name; without one, OTEL_SERVICE_NAME.
        namespace: the resource's service.namespace.
    """

    def __init__(
        self, settings: ExportSettings, *, service_name: str | None = None, namespace: str | None = None
    ) -> None:
        self._exporter = CountingExporter(settings)
        reader = PeriodicExportingMetricReader(self._exporter, export_interval_millis=math.inf)
        self.provider = MeterProvider([reader], own_resource(service_name, namespace), shutdown_on_exit=False)
        self.measured = True
        """Whether there may be something that no export since the last `flush` has; for whoever measures to set."""
        self._closing = False
        self._timer = ExportTimer(self._export, settings.interval_seconds)

    def start(self) -> None:
        """Export once per interval from now on."""
        self._timer.start()

    def flush(self, seconds: float) -> bool:
        """Export what was measured so far; whether that ended, well or not, within `seconds`."""
        self.measured = False
        return self._timer.flush(seconds)

    def close(self, seconds: float) -> None:
        """End, within about `seconds`; flush first, unless that was just done and went well. Again, it does nothing."""
        if self._closing:
            return
        self._closing = True
        deadline = time.monotonic() + seconds
        done = self.flush(seconds) if self.measured or self._exporter.has_unsent else True
        self._timer.stop(deadline if done else 0.0)
        if done:
            self.provider.shutdown(timeout_millis=max(1.0, 1000 * (deadline - time.monotonic())))
        else:
            self._exporter.shutdown()  # ends an exporter that waits to try again; the provider would wait for it

    def _export(self) -> None:
        self._exporter.tried = False
        self.provider.force_flush(timeout_millis=COLLECT_MILLIS)
        if not self._exporter.tried:  # nothing new was measured, and delta exports may wait
            self._exporter.resend()


class CountingExporter(MetricExporter):
    """The SDK's exporter, with its failures counted (`otlp_exports{outcome}` of `collector.stats().counts`).

    What the SDK's exporter takes for a success and is none counts as a failure: a redirect, which is not followed, and
    data points that the receiver says it refused. Delta exports that failed are sent again before the next one.

    Args:
        settings: where to, and how.
        teller: whose trouble the log lines tell of.
    """

    def __init__(self, settings: ExportSettings, teller: str = "OTelMetricsSink") -> None:
        self._teller = teller
        self._answers = _Answers()
        self._session = _session(settings, self._answers)
        self._inner = _exporter(settings, self._session, teller)
        # What a reader asks an exporter for has no public name in the SDK.
        super().__init__(self._inner._preferred_temporality, self._inner._preferred_aggregation)
        self._delta = settings.delta
        self._unsent: deque[MetricsData] = deque()
        # What the receiver takes at once, as far as it has said. Servers of gRPC take 4 MiB, and do not say so.
        self._most_points = GRPC_POINTS if settings.protocol == GRPC else math.inf
        self.tried = False
        self._shutdown = False
        self._told: set[str] = set()

    def export(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **more: Any) -> MetricExportResult:
        """Export what is unsent, oldest first, in parts where the receiver wants them smaller."""
        unsent = self._unsent
        if not self._delta:
            unsent.clear()
        elif len(unsent) >= KEPT_EXPORTS:
            unsent.popleft()
            count("otlp_exports", "lost")
        unsent.append(metrics_data)
        self.tried = True
        return self.resend(timeout_millis)

    def resend(self, timeout_millis: float = COLLECT_MILLIS) -> MetricExportResult:
        """Export what is unsent."""
        unsent = self._unsent
        result = MetricExportResult.SUCCESS
        while unsent:
            number = points_of(unsent[0])
            outcome = "too_large" if number > self._most_points else self._export_one(unsent[0], timeout_millis)
            if outcome == "too_large" and number > 1:
                self._most_points = min(self._most_points, number - number // 2)
                unsent.extendleft(reversed(halves(unsent.popleft())))
                continue
            count("otlp_exports", outcome)
            if outcome != "delivered":
                result = MetricExportResult.FAILURE
            if outcome == "failed":
                return result
            unsent.popleft()
        return result

    @property
    def has_unsent(self) -> bool:
        """Whether an export failed and may be tried again."""
        return bool(self._unsent)

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        """Nothing waits in an exporter."""
        return True

    def shutdown(self, timeout_millis: float = 30_000, **more: Any) -> None:
        """End it. A second call does nothing."""
        if not self._shutdown:
            self._shutdown = True
            self._inner.shutdown(timeout_millis)
            if self._session is not None:
                self._session.close()  # older exporters leave it open

    def _export_one(self, data: MetricsData, timeout_millis: float) -> str:
        answers = self._answers
        answers.status, answers.refused = None, 0
        try:
            result = self._inner.export(data, timeout_millis)
        except Exception as error:  # older exporters raise what they did not think of
            note("otlp_export", error)
            return "failed"
        status = answers.status or 0
        if 300 <= status < 400:
            self._tell("redirected", "the receiver of OTLP answers with a redirect, which is not followed")
            return "failed"
        if status == 413:
            return "too_large"
        if result is not MetricExportResult.SUCCESS:
            return "rejected" if 400 <= status < 500 and status not in _RETRIED else "failed"
        if answers.refused:
            self._tell("partial", f"the receiver of OTLP refused {answers.refused} data points")
            return "partial"
        self._told.clear()
        return "delivered"

    def _tell(self, kind: str, text: str) -> None:
        if kind not in self._told:
            self._told.add(kind)
            logger.warning("%s: %s", self._teller, text)


class _Answers:
    """What the receiver answered last, noted by a hook of the HTTP session: the exporter keeps it to itself."""

    status: int | None = None
    refused: int = 0

    def __call__(self, response: Any, *arguments: object, **more: object) -> None:
        self.status = response.status_code
        self.refused = refused_in(response.content) if response.status_code == 200 else 0


def refused_in(content: bytes) -> int:
    """How many data points a receiver refused, by its answer; 0 for an answer that cannot be read."""
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse

    try:
        return max(0, int(ExportMetricsServiceResponse.FromString(content).partial_success.rejected_data_points))
    except Exception:  # protobuf's DecodeError has moved between its releases
        return 0


def _session(settings: ExportSettings, answers: _Answers) -> Any:
    """A session of HTTP that notes the answers; None where the exporter makes its own."""
    if settings.protocol == GRPC or any(os.environ.get(name) for name in _CREDENTIALS):
        return None
    import requests

    session = requests.Session()
    session.max_redirects = 0  # older exporters follow them, with the headers
    session.hooks["response"].append(answers)
    return session


def _exporter(settings: ExportSettings, session: Any, teller: str) -> MetricExporter:
    headers = {name: value.reveal() for name, value in settings.headers.items()} or None
    if settings.protocol == GRPC:
        module = import_module("opentelemetry.exporter.otlp.proto.grpc.metric_exporter")  # no part of the extra
        exporter: MetricExporter = module.OTLPMetricExporter(
            **{"endpoint": settings.endpoint, "headers": headers, **settings.arguments}
        )
        return exporter
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter

    if port_of(settings.place) == GRPC_PORT:
        logger.warning(
            "%s: %d is OTLP's port for gRPC, and this is OTLP over HTTP, whose port is %d: "
            "change the port, or install opentelemetry-exporter-otlp-proto-grpc",
            teller,
            GRPC_PORT,
            HTTP_PORT,
        )
    endpoint = None if settings.endpoint is None else f"{settings.endpoint.rstrip('/')}/v1/metrics"
    return OTLPMetricExporter(**{"endpoint": endpoint, "headers": headers, "session": session, **settings.arguments})


def own_resource(service_name: str | None = None, namespace: str | None = None) -> Resource:
    """The environment's resource, with ours. Each provider is an instance of its own, unless the environment says.

    Two that are one instance (a forked child, a second sink) would each overwrite the other's cumulative counts.
    """
    given = {"service.name": service_name, "service.namespace": namespace}
    attributes = {name: value for name, value in given.items() if value}
    if "service.instance.id=" not in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", ""):
        attributes["service.instance.id"] = str(uuid.uuid4())
    try:
        return Resource.create(attributes)
    except RuntimeError:
        # The SDK's detectors want threads, of which there are no more when a short program's only record is measured at
        # its exit.
        environment = OTELResourceDetector().detect()
        return Resource({"service.name": _NAMELESS}).merge(environment).merge(Resource(attributes))
