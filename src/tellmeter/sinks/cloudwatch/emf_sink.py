"""Records as lines of which CloudWatch Logs makes metrics: for Lambda and for the CloudWatch agent."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import TextIO, Unpack
from urllib.parse import urlsplit

from ...errors import ConfigError
from ...pipeline.outcome import Delivered, Outcome, Partial, Rejected, RetryLater
from ...records import AgentMetrics
from ..address import LANE_PARSERS, Address, file_path, flag, parse, redact
from ..base import BatchingMetricsSink, LaneOptions, file_reason
from .abandon import TimedThread
from .emf import EMFEncoder
from .limits import EMF_EVENT_BYTES, check_namespace, refused_time
from .metrics import check_dimensions, check_metrics, dimension_sets, names_in
from .targets import FileTarget, StreamTarget, Target, TCPTarget, UDPTarget

_AGENT_PORT = 25888
_SOCKETS: dict[str, type[TCPTarget | UDPTarget]] = {"tcp": TCPTarget, "udp": UDPTarget}
_LATE = RetryLater(reason="timeout")


class EMFMetricsSink(BatchingMetricsSink):
    """Writes one JSON object per call in CloudWatch's Embedded Metric Format. It needs no package and no credentials.

    CloudWatch Logs makes metrics of the lines, wherever they reach it: standard output of a Lambda function, a file or
    a socket of the CloudWatch agent. The lines are logs too: all fields of the record but what the provider sent.
    Delivery is at least once.

    Args:
        target: `tcp://host:25888` or `udp://host:25888` of the agent, the path of a file, or a text stream. Without
            one: what AWS_EMF_AGENT_ENDPOINT names, else (and always in Lambda) standard output.
        namespace: of the metrics; without one, AWS_EMF_NAMESPACE, else LLM/Metrics.
        dimensions, metrics, high_resolution: as of `CloudWatchMetricsSink`.
        properties: False leaves out all but metrics, dimensions and id: less to pay for.
        log_group, log_stream: where the agent puts the lines; without them, AWS_EMF_LOG_GROUP_NAME and
            AWS_EMF_LOG_STREAM_NAME.
        lane: settings for this sink alone, as `spool="folder"`; see `LaneOptions`.

    Raises:
        ConfigError: an argument that cannot work.
    """

    def __init__(
        self,
        target: str | os.PathLike[str] | TextIO | None = None,
        *,
        namespace: str | None = None,
        dimensions: Sequence[Sequence[str]] | None = None,
        metrics: Sequence[str] | None = None,
        high_resolution: bool = False,
        properties: bool = True,
        log_group: str | None = None,
        log_stream: str | None = None,
        **lane: Unpack[LaneOptions],
    ) -> None:
        super().__init__(**lane)
        self.namespace = check_namespace(namespace or os.environ.get("AWS_EMF_NAMESPACE") or "LLM/Metrics")
        chosen = check_metrics(metrics)
        places = {
            "log_group_name": log_group or os.environ.get("AWS_EMF_LOG_GROUP_NAME"),
            "log_stream_name": log_stream or os.environ.get("AWS_EMF_LOG_STREAM_NAME"),
        }
        self._encoder = EMFEncoder(
            self.namespace,
            chosen,
            check_dimensions(dimensions, chosen),
            high_resolution=bool(high_resolution),
            properties=bool(properties),
            log_places={name: value for name, value in places.items() if value},
        )
        self._target = _target(target)
        self.destination = f"emf:{self._target.shown}"
        self._most = min(EMF_EVENT_BYTES, self._target.most_bytes or EMF_EVENT_BYTES)
        self._thread = TimedThread("tellmeter-emf")

    @classmethod
    def from_url(cls, url: str) -> EMFMetricsSink:
        """`emf:` (as without a target), `emf:///relative`, `emf:////absolute`, `emf+tcp://host:port`, `emf+udp://host:port`.

        Options: `namespace`, `dimensions` and `metrics` (as in `cloudwatch:` URLs), `high_resolution`, `properties`,
        `log_group`, `log_stream`, and the lane's.
        """
        address = parse(url)
        options = address.read(
            namespace=str,
            dimensions=dimension_sets,
            metrics=names_in,
            high_resolution=flag,
            properties=flag,
            log_group=str,
            log_stream=str,
            **LANE_PARSERS,
        )
        return cls(_place(address), **options)

    def __repr__(self) -> str:
        return f"EMFMetricsSink({self.destination!r})"

    def send(self, batch: Sequence[AgentMetrics], deadline: float) -> Outcome:
        """Write the batch."""
        now = time.time()
        indexes, lines, refused = [], [], {}
        for index, record in enumerate(batch):
            reason = refused_time(record.timestamp, now)
            line = b"" if reason else self._encoder.line(record)
            if not reason and len(line) <= self._most:
                indexes.append(index)
                lines.append(line)
            else:
                refused[index] = reason or "too_large"
        outcome: Outcome = Delivered()
        written = 0
        if lines:
            try:
                written = self._thread.run(lambda: self._target.write(lines, deadline), deadline)
            except TimeoutError:
                outcome = _LATE
            except ValueError:
                outcome = Rejected("stream_closed")
            except OSError as error:
                outcome = RetryLater(
                    reason=file_reason(error) if isinstance(self._target, FileTarget) else "unreachable"
                )
        return _told(outcome, indexes, written, refused)

    def close(self) -> None:
        """Close the connection."""
        self._target.close()

    def after_fork(self) -> None:
        """A connection is the parent's: the child closes its own end of it, which the parent does not notice."""
        self._target.close()
        self._thread.after_fork()


def _told(outcome: Outcome, indexes: list[int], written: int, refused: dict[int, str]) -> Outcome:
    """What the batch comes to: `written` of the lines of `indexes` are taken."""
    rest = indexes[written:]
    if not refused:
        if not rest:
            return Delivered()
        if not written:
            return outcome if not isinstance(outcome, Delivered) else RetryLater(reason="disk_full")
    # One outcome has one reason: what was refused for another one comes again, and is refused again.
    reason = next(iter(refused.values()), getattr(outcome, "reason", "disk_full"))
    rejected = [index for index, why in refused.items() if why == reason]
    rest += [index for index, why in refused.items() if why != reason]
    return Partial(retry=tuple(sorted(rest)), rejected=tuple(rejected), reason=reason)


def _target(target: str | os.PathLike[str] | TextIO | None) -> Target:
    if target is None:
        endpoint = None if "AWS_LAMBDA_FUNCTION_NAME" in os.environ else os.environ.get("AWS_EMF_AGENT_ENDPOINT")
        return StreamTarget() if not endpoint else _socket(endpoint, "AWS_EMF_AGENT_ENDPOINT")
    if isinstance(target, str) and "://" in target:
        return _socket(target, "target")
    if isinstance(target, (str, os.PathLike)):
        return FileTarget(file_path(os.fsdecode(target)))
    if not callable(getattr(target, "write", None)):
        raise ConfigError(f"target = {str(target)[:40]!r}: tcp://host:port, udp://host:port, a path or a text stream")
    return StreamTarget(target)


def _socket(url: str, name: str) -> Target:
    try:
        parts = urlsplit(url)
        kind: type[TCPTarget | UDPTarget] | None = _SOCKETS[parts.scheme]
        host, port = parts.hostname, _AGENT_PORT if parts.port is None else parts.port
    except (ValueError, KeyError):
        host, port, kind = None, 0, None
    if kind is None or not host or not port or parts.path.strip("/") or parts.query or "@" in parts.netloc:
        raise ConfigError(f"{name} = {redact(url)[:80]!r}: write tcp://host:25888 or udp://host:25888")
    return kind(host, port)


def _place(address: Address) -> str | os.PathLike[str] | None:
    if address.scheme != "emf":
        return f"{address.scheme.removeprefix('emf+')}:{address.location}"
    return None if address.location in ("", "//") else address.file()
