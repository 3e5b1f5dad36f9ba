"""Calls as points in InfluxDB 1, 2 or 3, by line protocol over HTTP."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from typing import Unpack
from urllib.parse import urlencode

from ...errors import ConfigError
from ...pipeline.outcome import Delivered, Outcome, Partial, Rejected, RetryLater
from ...records import AgentMetrics
from ...secret import Secret
from ..address import LANE_PARSERS, Parser, flag
from ..base import BatchingMetricsSink, LaneOptions
from ..sending.answers import PAUSE_SECONDS, HTTPAnswer
from ..sending.sender import HTTP_PARSERS, HTTPSender
from .answers import ANSWER_BYTES, REFUSING, Refused, is_missing, refusal
from .lines import Lines
from .place import from_url, place

logger = logging.getLogger(__name__)

_TEXT = {"content-type": "text/plain; charset=utf-8"}
_FORM = {"content-type": "application/x-www-form-urlencoded"}


def _list(text: str) -> tuple[str, ...]:
    return tuple(filter(None, text.split(",")))


_PARSERS: dict[str, Parser] = {"measurement": str, "tags": _list, "create_database": flag}


class InfluxDBMetricsSink(BatchingMetricsSink):
    """Writes one point per call to InfluxDB. What is written again, with the same id, is the same point.

    Args:
        url: of the server, as http://localhost:8086.
        token: of InfluxDB 2 and 3.
        org, bucket: of InfluxDB 2.
        database: of InfluxDB 1 and 3.
        username, password: of InfluxDB 1, where it asks for them.
        retention_policy: of InfluxDB 1; the database's own without.
        version: "1", "2" or "3"; without, 2 where there is an org or bucket, 3 where there is a token and a database,
            1 where there is a database alone.
        measurement: the name of the points.
        tags: the names of tags of records that become tags of points. Each combination of values is a series of its
            own, and InfluxDB 1 and 2 keep an index of all series in memory: none that has a value per user or request.
            All tags are in the field `tags` as well, as JSON.
        create_database: have InfluxDB 1 make its database where it is missing.
        headers, compress, timeout_seconds, ca, verify, allow_link_local: as `HTTPMetricsSink` has them.
        lane: settings for this sink alone, as `spool="folder"`; see `LaneOptions`.

    What is not given is taken from `INFLUXDB_V2_URL`, `_TOKEN`, `_ORG` and `_BUCKET` for version 2, from `INFLUX_HOST`,
    `INFLUX_TOKEN` and `INFLUX_DATABASE` for version 3.

    Raises:
        ConfigError: an argument that is missing or cannot work.
        MissingExtra: httpx2 is not installed.
    """

    def __init__(
        self,
        url: str | None = None,
        token: str | Secret | None = None,
        org: str | None = None,
        bucket: str | None = None,
        *,
        database: str | None = None,
        username: str | None = None,
        password: str | Secret | None = None,
        retention_policy: str | None = None,
        version: str | None = None,
        measurement: str = "llm_request",
        tags: Sequence[str] = (),
        create_database: bool = False,
        headers: Mapping[str, str | Secret] | None = None,
        compress: str | None = "gzip",
        timeout_seconds: float = 5.0,
        ca: str | os.PathLike[str] | None = None,
        verify: bool = True,
        allow_link_local: bool = False,
        **lane: Unpack[LaneOptions],
    ) -> None:
        super().__init__(**lane)
        found = place(
            version,
            {
                "url": url,
                "token": token,
                "org": org,
                "bucket": bucket,
                "database": database,
                "username": username,
                "password": password,
                "retention_policy": retention_policy,
            },
        )
        if create_database and found.version != "1":
            raise ConfigError("create_database: only InfluxDB 1 makes databases this way")
        self._lines = Lines(measurement, tags)
        more = dict(headers or {})
        if found.authorization is not None:
            if "authorization" in {name.lower() for name in more}:
                raise ConfigError("headers: Authorization is the token's or the user's; give one of them")
            more["Authorization"] = found.authorization
        self._sender = HTTPSender(
            found.url + found.write,
            name=type(self).__name__,
            headers=more,
            compress=compress,
            timeout_seconds=timeout_seconds,
            ca=ca,
            verify=verify,
            allow_link_local=allow_link_local,
            extra="influxdb",
        )
        self._make = str(database) if create_database else None
        self.destination = f"{self._sender.destination}/{found.name}/{measurement}"
        self._told = False

    @classmethod
    def from_url(cls, url: str) -> InfluxDBMetricsSink:
        """The sink that an `influxdb:` URL (over http) or an `influxdbs:` URL (over https) names.

        `influxdb://host:8086/bucket?org=...&token_env=...` is InfluxDB 2, `influxdb://host:8086/database` InfluxDB 1,
        and `influxdb://host:8181/database?version=3&token_env=...` InfluxDB 3. The other options are the arguments of
        the class; `token_env` and `password_env` name environment variables, `tags` has commas.
        """
        return cls(**from_url(url, _PARSERS | HTTP_PARSERS | LANE_PARSERS))

    def open(self) -> None:
        """Warn of what is not safe."""
        self._sender.open()

    def send(self, batch: Sequence[AgentMetrics], deadline: float) -> Outcome:
        """Write the batch; where InfluxDB refuses lines and does not say which, in halves until they are found."""
        lines = self._lines.encode(batch)
        waiting, rejected, reason = [(0, len(lines))], list[int](), "rejected"
        while waiting:
            start, stop = waiting.pop()
            outcome = self._write(lines[start:stop], deadline)
            if isinstance(outcome, Refused):
                reason = outcome.reason
                if outcome.lines is not None:
                    rejected += [start + line for line in outcome.lines]
                else:
                    middle = (start + stop) // 2
                    waiting += [(middle, stop), (start, middle)]
            elif not isinstance(outcome, Delivered):
                left = tuple(sorted(index for one in [*waiting, (start, stop)] for index in range(*one)))
                if len(left) == len(lines):
                    return outcome
                return Partial(left, tuple(sorted(rejected)), getattr(outcome, "reason", reason))
        if len(rejected) == len(lines):
            return Rejected(reason)
        return Partial((), tuple(sorted(rejected)), reason) if rejected else Delivered()

    def close(self) -> None:
        """Close the connections."""
        self._sender.close()

    def after_fork(self) -> None:
        """The connections are the parent's."""
        self._sender.after_fork()

    def _write(self, lines: Sequence[str], deadline: float) -> Outcome | Refused:
        body = "\n".join(lines).encode()
        answer = self._sender.exchange(body, deadline, headers=_TEXT, answer_bytes=ANSWER_BYTES)
        if isinstance(answer, HTTPAnswer) and self._make and answer.status == 404 and self._made(deadline):
            answer = self._sender.exchange(body, deadline, headers=_TEXT, answer_bytes=ANSWER_BYTES)
        if not isinstance(answer, HTTPAnswer):
            return answer
        if answer.status in REFUSING:
            return refusal(answer, len(lines))
        if is_missing(answer):
            return self._missing()
        outcome = self._sender.judged(answer)
        self._told = self._told and not isinstance(outcome, Delivered)
        return outcome

    def _made(self, deadline: float) -> bool:
        """Whether InfluxDB 1 has made its database."""
        name = str(self._make).replace("\\", "\\\\").replace('"', '\\"')
        body = urlencode({"q": f'CREATE DATABASE "{name}"'}).encode()
        path = self._sender.url.target.partition("?")[0].removesuffix("/write") + "/query"
        answer = self._sender.exchange(body, deadline, target=path, headers=_FORM)
        return isinstance(answer, HTTPAnswer) and answer.status == 200 and _is_well(answer.body)

    def _missing(self) -> RetryLater:
        if not self._told:
            self._told = True
            logger.warning(
                "%s: %s: it answers that this is not there: make the database or bucket, "
                "or give the version of the server as version=",
                type(self).__name__,
                self.destination,
            )
        return RetryLater(PAUSE_SECONDS, "not_found")


def _is_well(body: bytes) -> bool:
    """Whether InfluxDB 1 did what a query asked for; it answers 200 when it did not, too."""
    try:
        return all("error" not in result for result in json.loads(body)["results"])
    except (ValueError, LookupError, TypeError):
        return False
