"""The boto3 client: made on the sink's thread, one attempt a request, and connections that can be cut."""

from __future__ import annotations

import os
import socket
import weakref
from typing import Any

from ...guard import note

_CONNECT_SECONDS = 3.0
_DEFAULT_REGION = "us-east-1"  # the seed guide's


def region_of(region: str | None) -> str | None:
    """The region that was asked for, or that the environment names; a profile may name one later."""
    return region or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")


def make_client(
    session: Any, profile: str | None, region: str | None, endpoint_url: str | None, timeout_seconds: float
) -> Any:
    """A client for CloudWatch that tries once and waits `timeout_seconds` at most for each read."""
    import boto3  # type: ignore[import-untyped]
    from botocore.config import Config  # type: ignore[import-untyped]

    if session is None:
        session = boto3.Session(profile_name=profile)
    config = Config(
        connect_timeout=min(_CONNECT_SECONDS, timeout_seconds),
        read_timeout=timeout_seconds,
        retries={"total_max_attempts": 1, "mode": "standard"},  # retries are the lane's
        max_pool_connections=1,
        user_agent_extra="tellmeter",
    )
    region = region_of(region) or session.region_name or _DEFAULT_REGION
    return session.client("cloudwatch", region_name=region, endpoint_url=endpoint_url, config=config)


class Connections:
    """The open connections of one client of ours, so that a server that dribbles can be left.

    botocore's timeouts are for each read. A thread that waits for one more byte ends when its socket is shut down;
    where botocore's insides are not as they were, it ends by its own timeouts.
    """

    def __init__(self) -> None:
        self._open: weakref.WeakSet[Any] = weakref.WeakSet()

    def watch(self, client: Any) -> None:
        """Notice each connection that `client` opens from now on."""
        try:
            pools = client._endpoint.http_session._pool_classes_by_scheme
            for scheme, pool in list(pools.items()):
                pools[scheme] = type(pool.__name__, (pool,), {"ConnectionCls": self._noticed(pool.ConnectionCls)})
        except Exception as error:
            note("cloudwatch connections", error)

    def cut(self) -> None:
        """Shut all of them down: whoever reads or writes there is woken up."""
        for connection in list(self._open):
            opened = getattr(connection, "sock", None)
            if opened is not None:
                try:
                    opened.shutdown(socket.SHUT_RDWR)
                except (OSError, ValueError):
                    pass

    def _noticed(self, kind: Any) -> Any:
        opened = self._open

        def connect(connection: Any) -> Any:
            opened.add(connection)
            return kind.connect(connection)

        return type(kind.__name__, (kind,), {"connect": connect})
