"""DatadogMetricsSink: metrics to Datadog's API, without an Agent."""

from __future__ import annotations

import json
import os
import re
import socket
import time
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Unpack

from ...errors import ConfigError
from ...pipeline.outcome import Delivered, Outcome, Rejected, RetryLater, TooLarge
from ...records import AgentMetrics
from ...secret import Secret
from ..address import LANE_PARSERS, Parser, parse, whole
from ..base import BatchingMetricsSink, LaneOptions
from ..checks import check_whole
from ..sending.answers import HTTPAnswer
from ..sending.sender import HTTP_PARSERS, HTTPSender
from .buckets import Buckets, forget
from .labels import Labels, listed, namespaced
from .payloads import Form, Series, fitting, forms, halves, samples, sums
from .schema import added_up, in_sums

# https://docs.datadoghq.com/getting_started/site/
_SITE = re.compile(r"[a-z0-9-]+(\.[a-z0-9-]+)+")
_COUNTS = ("distributions", "series", "series-v1")
_KEY_VARIABLE = "DD_API_KEY"


class DatadogMetricsSink(BatchingMetricsSink):
    """Sends what records say to Datadog as metrics: see docs/datadog.md for their names, types, units and tags.

    Datadog adds distributions up, whoever sends them, and of a count keeps the last value written for one metric, host,
    set of tags and second. So by default everything is a distribution, and totals (`sum:llm.tokens.input{*}`) are exact
    for any number of threads, processes and hosts. `counts="series"` sends what adds up as counts, which cost a fifth,
    for one process a host: as running sums of an interval, so that a repeated request changes nothing.

    Datadog cannot tell a distribution point that is sent twice. A request whose answer was lost is sent again, and then
    counts twice; one that was refused or could not be sent never does.

    Args:
        api_key: None takes `DD_API_KEY`.
        site: as `datadoghq.eu`; None takes `DD_SITE`, else datadoghq.com.
        url: the whole address in place of the site's, for proxies and tests; None takes `DD_URL`, if set.
        namespace: what the metrics' names begin with.
        tags: constant ones, as `team:search`; None takes `DD_TAGS`.
        tag_names: the tags of records that become tags of metrics. Every value of one is a metric that is paid for.
        service, env, version: tags; None takes `DD_SERVICE`, `DD_ENV`, `DD_VERSION`.
        hostname: None takes `DD_HOSTNAME`, else the system's name; "" sends none.
        counts: "distributions"; "series"; "series-v1" for what speaks only the older API, as VictoriaMetrics: without
            distributions, so that what is measured becomes two counts, `.sum` and `.count`.
        interval_seconds: of counts.
        compress: "deflate", or None.
        timeout_seconds, ca, verify, allow_link_local: as `HTTPMetricsSink`.
        lane: settings for this sink alone, as `spool="folder"`; see `LaneOptions`.

    Raises:
        ConfigError: an argument that cannot work.
        MissingExtra: httpx2 is not installed.
    """

    def __init__(
        self,
        api_key: str | Secret | None = None,
        site: str | None = None,
        *,
        url: str | None = None,
        namespace: str = "llm",
        tags: Iterable[str] | None = None,
        tag_names: Iterable[str] = (),
        service: str | None = None,
        env: str | None = None,
        version: str | None = None,
        hostname: str | None = None,
        counts: str = "distributions",
        interval_seconds: int = 10,
        compress: str | None = "deflate",
        timeout_seconds: float = 5.0,
        ca: str | os.PathLike[str] | None = None,
        verify: bool = True,
        allow_link_local: bool = False,
        **lane: Unpack[LaneOptions],
    ) -> None:
        super().__init__(**lane)
        key = Secret.of("api_key", api_key) or _key_from_environment()
        if counts not in _COUNTS:
            raise ConfigError(f"counts = {str(counts)[:40]!r}: it must be one of {', '.join(_COUNTS)}")
        if compress not in ("deflate", None):
            raise ConfigError("compress: it must be 'deflate' or None")
        check_whole("interval_seconds", interval_seconds)
        if interval_seconds > 600:
            raise ConfigError(f"interval_seconds = {interval_seconds}: it must be 600 or less")
        self._labels = Labels(tags, tag_names, (service, env, version))
        self._counts = counts
        self._compress = compress is not None
        self._sender = HTTPSender(
            _address(url, site),
            name=type(self).__name__,
            headers={"DD-API-KEY": key},
            compress=None,  # Datadog's endpoints have deflate in common, which is packed here
            timeout_seconds=timeout_seconds,
            ca=ca,
            verify=verify,
            allow_link_local=allow_link_local,
            extra="datadog",
        )
        base, question, _ = self._sender.url.target.partition("?")
        if question:
            raise ConfigError(f"{self._sender.url.shown}: the address of the API has no parameters")
        host = _hostname() if hostname is None else hostname
        if not isinstance(host, str):
            raise ConfigError(f"hostname = {host!r}: it must be a text")
        self._forms = {
            kind: form._replace(path=base.rstrip("/") + form.path)
            for kind, form in forms(namespaced(namespace), host, interval_seconds).items()
        }
        self.destination = f"{self._sender.destination}#{namespace}"
        self._place = f"{self.destination}#{host}"
        self._buckets = Buckets.shared(self._place, interval_seconds)
        self._pending = _Pending((), [])

    @classmethod
    def from_url(cls, url: str) -> DatadogMetricsSink:
        """The sink that a `datadog:` URL names: `datadog://?counts=series`, `datadog://datadoghq.eu`.

        After the slashes stands a site, or the API's host (`api.datadoghq.eu`), or nothing. `api_key_env` names an
        environment variable that holds the key, in place of `DD_API_KEY`. Lists (`tags`, `tag_names`) have commas.
        """
        address = parse(url)
        options = address.read(**_PARSERS)
        place = address.location.removeprefix("//").rstrip("/")
        if "@" in place:
            raise ConfigError(f"{address.shown}: a key has no place in a URL; name its variable, as ?api_key_env=NAME")
        if place.startswith("api.") or ":" in place or "/" in place:
            options.setdefault("url", f"https://{place}")
        elif place:
            options["site"] = place
        variable = options.pop("api_key_env", None)
        if variable is not None:
            try:
                options["api_key"] = Secret.from_env(variable)
            except ConfigError as error:
                raise ConfigError(f"api_key_env in {address.shown}: {error}") from None
        return cls(**options)

    def open(self) -> None:
        """Warn of what is not safe."""
        self._sender.open()

    def send(self, batch: Sequence[AgentMetrics], deadline: float) -> Outcome:
        """Send the batch, in as many requests as it takes. When it comes again, what has arrived is not sent again."""
        ids = tuple(record.id for record in batch)
        if self._pending.ids != ids:
            self._pending = _Pending(ids, self._parts(batch, time.time()))
        outcome = self._send_parts(self._pending.parts, deadline)
        if not isinstance(outcome, RetryLater):
            self._pending = _Pending((), [])
        return outcome

    def close(self) -> None:
        """Close the connections."""
        self._sender.close()

    def after_fork(self) -> None:
        """Connections and sums are the parent's."""
        self._sender.after_fork()
        forget()
        self._buckets = Buckets.shared(self._place, self._buckets.interval)
        self._pending = _Pending((), [])

    def _parts(self, batch: Sequence[AgentMetrics], now: float) -> list[_Part]:
        if self._counts == "distributions":
            return [_Part(self._forms["distributions"], samples(batch, self._labels, now, measures_only=False))]
        old = self._counts == "series-v1"
        second = self._buckets.opened(now)
        changes = in_sums(batch, self._labels) if old else added_up(batch, self._labels)
        parts = [_Part(self._forms[self._counts], sums(self._buckets.with_more(changes), second))]
        if not old:
            measured = samples(batch, self._labels, now, measures_only=True)
            parts.append(_Part(self._forms["distributions"], measured))
        return parts

    def _send_parts(self, parts: list[_Part], deadline: float) -> Outcome:
        now, pending = time.time(), self._pending
        waiting = [
            (part.form, series, packed)
            for part in parts
            for series, packed in fitting(part.form, part.series, now, compress=self._compress)
        ]
        parts[:] = [_Part(form, series) for form, series, _ in waiting]
        while parts:
            form, series, packed = waiting[0]
            outcome = Rejected("too_large") if packed is None else self._post(form.path, packed, deadline)
            match outcome:
                case RetryLater():
                    return outcome
                case TooLarge() if not pending.begun:
                    return outcome  # nothing has arrived yet: the lane's smaller batches repeat nothing
                case TooLarge():
                    smaller = [
                        piece
                        for half in halves(series) or ()
                        for piece in fitting(form, half, now, compress=self._compress)
                    ]
                    waiting[:1] = [(form, *piece) for piece in smaller]
                    parts[:1] = [_Part(form, piece) for piece, _ in smaller]
                    pending.refused = pending.refused if smaller else Rejected("too_large")
                    continue
                case Delivered():
                    self._note_written(form, series)
                case Rejected():
                    pending.refused = outcome
            pending.begun = True
            del waiting[0], parts[0]
        return pending.refused or Delivered()

    def _note_written(self, form: Form, series: list[Series]) -> None:
        if form is self._forms[self._counts] and self._counts != "distributions":
            self._buckets.written(series[0].second, {(one.metric, one.tags): one.values[0] for one in series})

    def _post(self, path: str, packed: bytes, deadline: float) -> Outcome:
        headers = {"content-type": "application/json"} | ({"content-encoding": "deflate"} if self._compress else {})
        answer = self._sender.exchange(packed, deadline, target=path, headers=headers)
        if not isinstance(answer, HTTPAnswer):
            return answer
        outcome = self._sender.judged(answer)
        return Rejected("partly_refused") if isinstance(outcome, Delivered) and has_errors(answer.body) else outcome


class _Part(NamedTuple):
    """Series for one endpoint, which have not arrived yet."""

    form: Form
    series: list[Series]


class _Pending:
    """What is left to be sent of a batch; `begun` when something of it is settled, `refused` when that was lost."""

    def __init__(self, ids: tuple[str, ...], parts: list[_Part]) -> None:
        self.ids = ids
        self.parts = parts
        self.begun = False
        self.refused: Rejected | None = None


def has_errors(body: bytes) -> bool:
    """Whether an answer that accepts a payload has `errors` in it: then some of it was thrown away."""
    try:
        answer: Any = json.loads(body)
    except (ValueError, RecursionError):
        return False
    return isinstance(answer, dict) and bool(answer.get("errors"))


def _key_from_environment() -> Secret:
    try:
        return Secret.from_env(_KEY_VARIABLE)
    except ConfigError:
        raise ConfigError(f"api_key: give one, or set the environment variable {_KEY_VARIABLE}") from None


def _address(url: str | None, site: str | None) -> str:
    url = url or (None if site else os.environ.get("DD_URL")) or None
    if url is not None:
        return url
    site = site or os.environ.get("DD_SITE") or "datadoghq.com"
    if not isinstance(site, str) or not _SITE.fullmatch(site):
        raise ConfigError(
            f"site = {str(site)[:60]!r}: it must be as datadoghq.com or datadoghq.eu (url takes addresses)"
        )
    return f"https://api.{site.removeprefix('app.').removeprefix('api.')}"


def _hostname() -> str:
    return os.environ.get("DD_HOSTNAME") or socket.gethostname()


def _packing(text: str) -> str | None:
    if text not in ("deflate", "none"):
        raise ValueError("deflate or none")
    return None if text == "none" else text


_PARSERS: dict[str, Parser] = {
    **dict.fromkeys(("api_key_env", "url", "namespace", "service", "env", "version", "hostname", "counts"), str),
    **dict.fromkeys(("tags", "tag_names"), listed),
    "interval_seconds": whole,
    **HTTP_PARSERS,
    "compress": _packing,
    **LANE_PARSERS,
}
