"""Numbers to Amazon CloudWatch, by PutMetricData."""

from __future__ import annotations

import importlib.util
import logging
import os
import time
from collections.abc import Sequence
from typing import Any, Unpack
from urllib.parse import unquote, urlsplit

from ...errors import ConfigError, MissingExtra
from ...pipeline.outcome import Delivered, Outcome, RetryLater
from ...records import AgentMetrics
from ..address import LANE_PARSERS, flag, parse, positive, redact
from ..base import BatchingMetricsSink, LaneOptions, lane_options_in
from ..checks import check_positive
from .abandon import TimedThread
from .client import Connections, make_client, region_of
from .delivery import Delivery
from .encoder import Encoder
from .errors import cause_of
from .limits import check_namespace
from .metrics import check_dimensions, check_metrics, dimension_sets, names_in

logger = logging.getLogger(__name__)

# A request is paid for ($0.01 a thousand), and CloudWatch keeps a minute's numbers as one.
_LANE: LaneOptions = {"batch_size": 1000, "batch_timeout_seconds": 10.0}


class CloudWatchMetricsSink(BatchingMetricsSink):
    """Adds up records by metric, dimensions and minute, and puts the numbers into CloudWatch.

    Nothing happens before the first batch, which imports boto3 and makes a client. Each value goes out with its count,
    so that CloudWatch gives percentiles too. Delivery is at least once: CloudWatch knows no ids, so a batch whose
    answer was lost is counted twice.

    Args:
        namespace: of the metrics.
        region: without one, AWS_REGION, AWS_DEFAULT_REGION, the profile's, else us-east-1.
        endpoint_url: another address of CloudWatch, as a VPC endpoint's.
        dimensions: lists of names: provider, model, response_model, operation, method, status, finish_reason; any other
            is a tag's (`tag:model` is the tag `model`). Each combination of values of each list is one billed metric
            per metric name. A record that lacks a tag is left out of the lists that have it.
        metrics: names of those that are wanted, instead of all; docs/cloudwatch.md has them.
        high_resolution: by the second instead of the minute.
        profile: of ~/.aws/config.
        session: a `boto3.Session` in place of a profile.
        client: a CloudWatch client in place of all of these.
        timeout_seconds: for connecting (3 s at most) and for each read; one attempt has 10 s in all.
        lane: settings for this sink alone, as `spool="folder"`; see `LaneOptions`. Here, batches are of 1000 records or
            10 seconds.

    Raises:
        ConfigError: an argument that cannot work.
        MissingExtra: boto3 is not installed.
    """

    def __init__(
        self,
        namespace: str = "LLM/Metrics",
        region: str | None = None,
        *,
        endpoint_url: str | None = None,
        dimensions: Sequence[Sequence[str]] | None = None,
        metrics: Sequence[str] | None = None,
        high_resolution: bool = False,
        profile: str | None = None,
        session: Any = None,
        client: Any = None,
        timeout_seconds: float = 5.0,
        **lane: Unpack[LaneOptions],
    ) -> None:
        super().__init__(**lane_options_in(_LANE, lane))
        self.namespace = check_namespace(namespace)
        self._metrics = check_metrics(metrics)
        self._sets = check_dimensions(dimensions, self._metrics)
        self._high_resolution = bool(high_resolution)
        if client is not None and (session or profile or region or endpoint_url):
            raise ConfigError("client: it has its own region, endpoint and credentials; give nothing else of these")
        if session is not None and profile is not None:
            raise ConfigError("session and profile: give one of them")
        for name, value in (("region", region), ("profile", profile)):
            if value is not None and (not isinstance(value, str) or not value.isprintable() or not value.strip()):
                raise ConfigError(f"{name} = {str(value)[:40]!r}: it must be a text that is not empty")
        if client is None:
            if importlib.util.find_spec("boto3") is None:
                raise MissingExtra("boto3", "cloudwatch")
            # A short program's first batch is sent at its exit. boto3 needs this module, which then refuses to load.
            import concurrent.futures.thread  # noqa: F401
        self._made_from = (
            session,
            profile,
            region,
            _endpoint(endpoint_url),
            check_positive("timeout_seconds", timeout_seconds),
        )
        self._given_client = client
        if client is not None:
            endpoint_url = getattr(getattr(client, "meta", None), "endpoint_url", None)
        where = urlsplit(endpoint_url).netloc if endpoint_url else region_of(region)
        self.destination = f"cloudwatch://{where or profile or 'default'}/{self.namespace}"
        self._client: Any = None
        self._encoder: Encoder | None = None
        self._connections = Connections()
        self._thread = TimedThread("tellmeter-cloudwatch")
        self._process = os.getpid()
        self._told: set[str] = set()

    @classmethod
    def from_url(cls, url: str) -> CloudWatchMetricsSink:
        """`cloudwatch://region/namespace`, each of which may be missing.

        Options: `dimensions` (`provider+model;provider;`: sets with ; between them, the last one here is empty),
        `metrics` (`Cost+Requests`), `high_resolution`, `profile`, `endpoint_url`, `timeout_seconds`, and the lane's.
        """
        address = parse(url)
        region, _, namespace = address.location.removeprefix("//").partition("/")
        options = address.read(
            dimensions=dimension_sets,
            metrics=names_in,
            high_resolution=flag,
            profile=str,
            endpoint_url=str,
            timeout_seconds=positive,
            **LANE_PARSERS,
        )
        if "@" in region or ":" in region:
            raise ConfigError(f"{address.shown}: write cloudwatch://region/namespace; credentials are AWS's own")
        if namespace:
            options["namespace"] = unquote(namespace)
        return cls(region=region or None, **options)

    def __repr__(self) -> str:
        return f"CloudWatchMetricsSink({self.destination!r})"

    def send(self, batch: Sequence[AgentMetrics], deadline: float) -> Outcome:
        """Put the batch's numbers, in as many requests as CloudWatch's limits make of them."""
        if self._process != os.getpid():  # forked without a collector that would have told us
            self.after_fork()
        delivery = Delivery(batch, time.time())
        try:
            self._thread.run(lambda: self._deliver(delivery, deadline), deadline)
        except TimeoutError:
            outcome = delivery.outcome()  # before its requests fail because of what follows
            self._connections.cut()
            return outcome
        except Exception as error:  # of making the client
            return self._outcome_of(error)
        return delivery.outcome()

    def close(self) -> None:
        """Close the connections. A second call does nothing; a later `send` opens them anew."""
        client, self._client = self._client, None
        # A client that was given is its owner's.
        if client is not None and client is not self._given_client and self._process == os.getpid():
            client.close()

    def after_fork(self) -> None:
        """In the child: the parent's connections are dropped without a word to the server."""
        self._process = os.getpid()
        self._client = None
        self._connections = Connections()
        self._thread.after_fork()
        if self._given_client is not None:
            self._given_client.close()  # its sockets here, which the parent keeps; it opens new ones

    def _deliver(self, delivery: Delivery, deadline: float) -> None:
        client, encoder = self._opened()

        def put(data: list[dict[str, Any]]) -> Outcome:
            try:
                client.put_metric_data(Namespace=self.namespace, MetricData=data)
            except Exception as error:
                return RetryLater() if delivery.is_over else self._outcome_of(error)
            self._told.clear()
            return Delivered()

        delivery.run(encoder, put, deadline)

    def _opened(self) -> tuple[Any, Encoder]:
        client, encoder = self._client, self._encoder
        if client is None:
            client = self._given_client
            if client is None:
                client = make_client(*self._made_from)
                self._connections.watch(client)
            self._client = client
            encoder = None
        if encoder is None:
            protocol = getattr(client.meta.service_model, "resolved_protocol", "")
            encoder = Encoder(self._metrics, self._sets, high_resolution=self._high_resolution, protocol=protocol)
            self._encoder = encoder
        return client, encoder

    def _outcome_of(self, error: Exception) -> Outcome:
        """What an exception comes to; what only a person can cure is logged, once until something is delivered."""
        cause = cause_of(error)
        if cause is None:
            raise error
        if cause.advice and cause.advice not in self._told:
            self._told.add(cause.advice)
            logger.warning("%s: %s (%s)", self.destination, cause.advice, type(error).__name__)
        return cause.outcome


def _endpoint(url: str | None) -> str | None:
    if url is None:
        return None
    try:
        parts = urlsplit(url) if isinstance(url, str) else None
        good = parts is not None and parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        good = False
    if not good or "@" in url:
        raise ConfigError(f"endpoint_url = {redact(str(url))[:80]!r}: an http:// or https:// URL without a user in it")
    return url
