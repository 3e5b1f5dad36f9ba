"""Records to any HTTP endpoint, as JSON: `{"metrics": [record, ...]}`."""

from __future__ import annotations

import hashlib
import hmac
import os
import time
from collections.abc import Mapping, Sequence
from typing import Unpack

from ..errors import ConfigError
from ..pipeline.outcome import Outcome
from ..records import AgentMetrics
from ..secret import Secret
from .address import LANE_PARSERS
from .base import BatchingMetricsSink, LaneOptions
from .json_record import columns, encode
from .sending.sender import HTTP_PARSERS, HTTPSender
from .sending.url import split_options, without_user

_ENV_OPTIONS = ("token", "signing_key")


class HTTPMetricsSink(BatchingMetricsSink):
    """POSTs batches of records to a URL. What is delivered is what was answered with 2xx.

    The body is `{"metrics": [record, ...]}` (JSON, gzip from 1 KiB). Each request has an `Idempotency-Key`, which is
    the same whenever the same batch is sent again; each record has its `id`. Delivery is at least once: tell duplicates
    by `id`. Redirects are never followed. Through the proxy that `HTTP_PROXY`, `HTTPS_PROXY` or `ALL_PROXY` names.

    Args:
        url: http or https; what follows its `?` is sent as it is. `user:password@` becomes Basic authorization.
        token: sent as `Authorization: Bearer <token>`.
        endpoint, api_key: other names of `url` and `token`.
        signing_key: adds `X-Tellmeter-Timestamp` (Unix seconds) and `X-Tellmeter-Signature: v1=` with the HMAC-SHA256
            of `<timestamp>.<body as sent>` in hex.
        headers: more headers; their values are never shown.
        compress: "gzip", or None.
        timeout_seconds: for connecting, and for each read and write; one attempt has 10 s in all.
        ca: a file (PEM) of the authorities that are trusted instead of the system's.
        verify: False takes any certificate, and logs a warning at each start.
        allow_link_local: allow 169.254.0.0/16 and fe80::/10, where clouds keep their credentials.
        lane: settings for this sink alone, as `spool="folder"`; see `LaneOptions`.

    Raises:
        ConfigError: an argument that cannot work.
        MissingExtra: httpx2 is not installed.
    """

    def __init__(
        self,
        url: str | None = None,
        token: str | Secret | None = None,
        *,
        endpoint: str | None = None,
        api_key: str | Secret | None = None,
        signing_key: str | Secret | None = None,
        headers: Mapping[str, str | Secret] | None = None,
        compress: str | None = "gzip",
        timeout_seconds: float = 5.0,
        ca: str | os.PathLike[str] | None = None,
        verify: bool = True,
        allow_link_local: bool = False,
        **lane: Unpack[LaneOptions],
    ) -> None:
        super().__init__(**lane)
        if (url is None) == (endpoint is None):
            raise ConfigError("url: give one, as https://metrics.example.com/v1/ingest (endpoint is its other name)")
        if token is not None and api_key is not None:
            raise ConfigError("token and api_key are two names of one thing: give one")
        bearer = Secret.of("token", api_key if token is None else token)
        self._signing_key = Secret.of("signing_key", signing_key)
        more = dict(headers or {})
        if bearer is not None:
            if "authorization" in {name.lower() for name in more}:
                raise ConfigError("headers: Authorization is the token's; give one of them")
            more["Authorization"] = Secret(f"Bearer {bearer.reveal()}")
        self._sender = HTTPSender(
            url or endpoint or "",
            name=type(self).__name__,
            headers=more,
            compress=compress,
            timeout_seconds=timeout_seconds,
            ca=ca,
            verify=verify,
            allow_link_local=allow_link_local,
        )
        self.destination = self._sender.destination

    @classmethod
    def from_url(cls, url: str) -> HTTPMetricsSink:
        """The sink that an `http:` or `https:` URL names.

        Options of ours are taken out of the URL, all other parameters stay in it: `token_env` and `signing_key_env`
        name environment variables that hold the secrets; `compress` (gzip or none), `timeout_seconds`, `ca`, `verify`,
        `allow_link_local`, and the lane's.
        """
        parsers = {f"{name}_env": str for name in _ENV_OPTIONS} | HTTP_PARSERS | LANE_PARSERS
        address, options = split_options(url, parsers)
        for name in _ENV_OPTIONS:
            variable = options.pop(f"{name}_env", None)
            if variable is not None:
                try:
                    options[name] = Secret.from_env(variable)
                except ConfigError as error:
                    raise ConfigError(f"{name}_env in {without_user(url)}: {error}") from None
        return cls(address, **options)

    def open(self) -> None:
        """Warn of what is not safe."""
        self._sender.open()

    def send(self, batch: Sequence[AgentMetrics], deadline: float) -> Outcome:
        """POST the batch."""
        headers = {"content-type": "application/json", "idempotency-key": batch_key(batch)}
        return self._sender.send(
            payload(batch), deadline, headers=headers, sign=None if self._signing_key is None else self._signature
        )

    def close(self) -> None:
        """Close the connections."""
        self._sender.close()

    def after_fork(self) -> None:
        """The connections are the parent's."""
        self._sender.after_fork()

    def _signature(self, body: bytes) -> dict[str, str]:
        assert self._signing_key is not None
        timestamp = str(int(time.time()))
        # As the environment has it: what is no UTF-8 there is the same bytes again here.
        key = self._signing_key.reveal().encode("utf-8", "surrogateescape")
        signature = hmac.new(key, timestamp.encode() + b"." + body, hashlib.sha256)
        return {"x-tellmeter-timestamp": timestamp, "x-tellmeter-signature": f"v1={signature.hexdigest()}"}


def payload(batch: Sequence[AgentMetrics]) -> bytes:
    """A batch as it is sent, before it is packed."""
    return encode({"metrics": [columns(record) for record in batch]})


def batch_key(batch: Sequence[AgentMetrics]) -> str:
    """The same for the same records in the same order: 64 hex digits."""
    return hashlib.sha256("\n".join(record.id for record in batch).encode()).hexdigest()
