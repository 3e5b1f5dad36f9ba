"""Receivers of OTLP spans: over HTTP with faults, and over gRPC where that is installed; and what they got."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from tellmeter.testing import FaultServer


class Received(NamedTuple):
    """A span as it came, ids in hex."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    attributes: dict[str, Any]
    resource: dict[str, Any]


def spans_in(requests: Iterable[Any]) -> list[Received]:
    """The spans of export requests (protobuf), in the order of their arrival."""
    return [
        Received(
            span.name,
            span.trace_id.hex(),
            span.span_id.hex(),
            span.parent_span_id.hex(),
            _attributes(span.attributes),
            _attributes(resource_spans.resource.attributes),
        )
        for request in requests
        for resource_spans in request.resource_spans
        for scope_spans in resource_spans.scope_spans
        for span in scope_spans.spans
    ]


def _attributes(pairs: Iterable[Any]) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value") or "string_value") for pair in pairs}


def partial_success(refused: int) -> bytes:
    """The body of an answer that says how many spans were refused."""
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

    answer = ExportTraceServiceResponse()
    answer.partial_success.rejected_spans = refused
    answer.partial_success.error_message = "canary"
    return bytes(answer.SerializeToString())


class SpanReceiver(FaultServer):
    """Takes everything over HTTP, but for what its script says."""

    def spans(self) -> list[Received]:
        """What has arrived, accepted or not."""
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        return spans_in(
            ExportTraceServiceRequest.FromString(request.content)
            for request in self.requests
            if request.path.endswith("/v1/traces")
        )


class GRPCSpanReceiver:
    """Takes everything over gRPC at `url`; needs grpcio. `metadata` is what came with the last request."""

    def __init__(self) -> None:
        import grpc
        from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as messages

        self.requests: list[Any] = []
        self.metadata: dict[str, str] = {}
        self._changed = threading.Condition()
        self._server = grpc.server(ThreadPoolExecutor(2))
        export = grpc.unary_unary_rpc_method_handler(
            self._take,
            request_deserializer=messages.ExportTraceServiceRequest.FromString,
            response_serializer=messages.ExportTraceServiceResponse.SerializeToString,
        )
        service = "opentelemetry.proto.collector.trace.v1.TraceService"
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {"Export": export}),))
        self.url = f"http://127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def _take(self, request: Any, context: Any) -> Any:
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

        with self._changed:
            self.requests.append(request)
            self.metadata = dict(context.invocation_metadata())
            self._changed.notify_all()
        return ExportTraceServiceResponse()

    def spans(self) -> list[Received]:
        """What has arrived."""
        with self._changed:
            return spans_in(self.requests)

    def close(self) -> None:
        """End it."""
        self._server.stop(None)
