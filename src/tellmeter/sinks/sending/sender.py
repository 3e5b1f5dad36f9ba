"""HTTPSender: one batch, one HTTP request, by its deadline. For every sink whose backend speaks HTTP."""

from __future__ import annotations

import base64
import gzip
import logging
import os
import re
import sys
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from ...errors import ConfigError
from ...pipeline.outcome import Outcome, RetryLater
from ...secret import Secret
from ..address import Parser, flag, positive
from ..checks import check_positive
from .answers import ANSWER_BYTES, PAUSE_SECONDS, HTTPAnswer, NoAnswer, outcome_of
from .tls import tls_context
from .url import http_url

if TYPE_CHECKING:
    import httpcore2

logger = logging.getLogger(__name__)

_GZIP_FROM_BYTES = 1024  # below, packing costs more than it saves
# Not imported: the package's own file stands above all floors.
_USER_AGENT = f"tellmeter/{sys.modules[__name__.partition('.')[0]].__version__}"
_GZIP_LEVEL = 6
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_HEADER_VALUE = re.compile(r"[\x21-\x7e]+(?:[ \t]+[\x21-\x7e]+)*")
# How a request is framed is the sender's business.
_NOT_YOURS = {"connection", "content-encoding", "content-length", "expect", "host", "transfer-encoding", "upgrade"}

# What a person can do about a reason, where only a person can: these are logged, once until something is delivered.
_ADVICE = {
    "unauthorized": "it answers 401: check the token or key",
    "forbidden": "it answers 403: the token or key may not write there",
    "tls": "TLS failed ({detail}): check the certificate and the host's name, or give the file of the authority as ca=",
    "link_local": "its name leads to a link-local address, which is refused unless allow_link_local=True",
    "proxy": "its proxy does not work: check HTTP_PROXY, HTTPS_PROXY and ALL_PROXY (socks5 needs the package socksio)",
    "redirected": "it answers with a redirect, and redirects are never followed: give the address it leads to",
}
_PAUSING = ("tls", "link_local")


class HTTPSender:
    """Sends to one URL over kept-alive connections, never follows a redirect, and says what became of it.

    Args:
        url: where to; a user in it becomes Basic authorization, its query is sent as it is.
        name: who sends, in log lines.
        headers: more headers; their values are never shown.
        compress: gzip for bodies from 1 KiB, or None.
        timeout_seconds: for connecting, and for each read and write. The deadline of an exchange bounds them together.
        ca: the file (PEM) of the authorities that are trusted instead of the system's.
        verify: False takes any certificate, and logs a warning at each start.
        allow_link_local: allow 169.254.0.0/16 and fe80::/10, where clouds keep their credentials.
        extra: the one of tellmeter that brings httpx2 for who sends.

    Raises:
        ConfigError: an argument that cannot work; no secrets in the message.
        MissingExtra: httpx2 is not installed.
    """

    def __init__(
        self,
        url: str,
        *,
        name: str,
        headers: Mapping[str, str | Secret] | None = None,
        compress: str | None = "gzip",
        timeout_seconds: float = 5.0,
        ca: str | os.PathLike[str] | None = None,
        verify: bool = True,
        allow_link_local: bool = False,
        extra: str = "http",
    ) -> None:
        if compress not in ("gzip", None):
            raise ConfigError("compress: it must be 'gzip' or None")
        self.url = http_url(url, allow_link_local=allow_link_local, extra=extra)
        self.destination = self.url.destination
        self._name = name
        self._compress = compress
        self._verify = verify
        self._context = tls_context(ca, verify) if self.url.scheme == "https" and (ca or not verify) else None
        self._headers = checked_headers(headers or {})
        if self.url.user is not None:
            if "authorization" in self._headers:
                raise ConfigError(f"{self.url.shown}: it holds a user, and there is a token or Authorization beside it")
            user = base64.b64encode(self.url.user.reveal().encode()).decode()
            self._headers["authorization"] = Secret(f"Basic {user}")
        from .network import Network

        self._network = Network(check_positive("timeout_seconds", timeout_seconds), allow_link_local)
        self._pool: httpcore2.ConnectionPool | None = None
        self._process = os.getpid()
        self._logged: set[str] = set()

    def open(self) -> None:
        """To be called at each start, on the thread that sends."""
        if self.url.scheme == "https" and not self._verify:
            logger.warning("%s: %s: verify=False, so anybody between may read and answer", self._name, self.url.shown)

    def send(
        self,
        body: bytes,
        deadline: float,
        *,
        headers: Mapping[str, str] | None = None,
        sign: Callable[[bytes], Mapping[str, str]] | None = None,
    ) -> Outcome:
        """POST a body and judge the answer by its status; see `exchange`."""
        answer = self.exchange(body, deadline, headers=headers, sign=sign)
        return self.judged(answer) if isinstance(answer, HTTPAnswer) else answer

    def judged(self, answer: HTTPAnswer) -> Outcome:
        """What an answer's status means; what only a person can cure is logged."""
        outcome = outcome_of(answer.status, answer.headers.get("retry-after"), time.time())
        self._tell(getattr(outcome, "reason", None))
        return outcome

    def exchange(
        self,
        body: bytes,
        deadline: float,
        *,
        method: str = "POST",
        target: str | None = None,
        headers: Mapping[str, str] | None = None,
        sign: Callable[[bytes], Mapping[str, str]] | None = None,
        answer_bytes: int = ANSWER_BYTES,
    ) -> HTTPAnswer | RetryLater:
        """Send a body; the answer, or why there was none.

        A kept-alive connection that the server closed meanwhile, without a byte of an answer, is replaced by a new one
        at once: the server may then get the same request twice, as it may with every retry.

        Args:
            body: before it is packed.
            deadline: of `time.monotonic`; it returns by then.
            method: of the request.
            target: another path with its query, at the same host.
            headers: of this request; they win over the sender's.
            sign: is given the body as it is sent and returns more headers.
            answer_bytes: how much of the answer's body to read; the rest is thrown away, and the connection with it.
        """
        if self._process != os.getpid():  # forked without a collector that would have told us
            self.after_fork()
        from .exchange import HTTPRequest, exchange

        sent = {"user-agent": _USER_AGENT, "accept": "*/*", "accept-encoding": "identity"}
        sent |= {name: value.reveal() for name, value in self._headers.items()}
        sent |= {name.lower(): value for name, value in (headers or {}).items()}
        if self._compress and len(body) >= _GZIP_FROM_BYTES:
            body = gzip.compress(body, _GZIP_LEVEL, mtime=0)  # a retry sends the same bytes
            sent["content-encoding"] = "gzip"
        sent |= {name.lower(): value for name, value in (sign(body) if sign is not None else {}).items()}
        request = HTTPRequest(method, self._place(target), sent, body)
        try:
            pool = self._opened()
        except (ImportError, RuntimeError, ValueError):
            answer: HTTPAnswer | NoAnswer = NoAnswer("proxy")
        else:
            answer = exchange(pool, request, deadline, answer_bytes)
        if isinstance(answer, HTTPAnswer):
            return answer
        self._tell(answer.reason, answer.detail)
        return RetryLater(PAUSE_SECONDS if answer.reason in _PAUSING else None, answer.reason)

    def close(self) -> None:
        """Close the connections. A second call does nothing; a later `send` opens them anew."""
        pool, self._pool = self._pool, None
        if pool is not None and self._process == os.getpid():
            pool.close()

    def after_fork(self) -> None:
        """In the child: the parent's connections are dropped without a word to the server."""
        self._pool = None
        self._process = os.getpid()
        self._network.forget()
        from .network import Network

        self._network = Network(self._network.longest, self._network.allow_link_local)

    def _place(self, target: str | None) -> httpcore2.URL:
        import httpcore2

        url = self.url
        return httpcore2.URL(scheme=url.scheme, host=url.host, port=url.port, target=target or url.target)

    def _opened(self) -> httpcore2.ConnectionPool:
        if self._pool is None:
            if self._context is None and self.url.scheme == "https":
                self._context = tls_context(None, verify=True)
            from .exchange import make_pool

            self._pool = make_pool(self._network, self._context, self.url.scheme, self.url.host)
        return self._pool

    def _tell(self, reason: str | None, detail: str = "") -> None:
        if reason is None:
            self._logged.clear()
        elif reason in _ADVICE and reason not in self._logged:
            self._logged.add(reason)
            logger.warning("%s: %s: %s", self._name, self.url.shown, _ADVICE[reason].format(detail=detail))


def checked_headers(headers: Mapping[str, str | Secret]) -> dict[str, Secret]:
    """Headers by their names in lower case, fit to be sent.

    Raises:
        ConfigError: a name or value that no header can have, or a header that is the sender's; values are not shown.
    """
    checked: dict[str, Secret] = {}
    for name, given in headers.items():
        if not isinstance(name, str) or not _HEADER_NAME.fullmatch(name) or name.lower() in _NOT_YOURS:
            raise ConfigError(f"headers: {str(name)[:40]!r} is no header that can be set here")
        value = Secret.of(f"the header {name}", given)
        if value is None or not _HEADER_VALUE.fullmatch(value.reveal()):
            raise ConfigError(f"the header {name}: its value must be printable ASCII, without a line break at its end")
        checked[name.lower()] = value
    return checked


def _packing(text: str) -> str | None:
    if text.lower() not in ("gzip", "none"):
        raise ValueError("gzip or none")
    return "gzip" if text.lower() == "gzip" else None


# Options that every sink with an HTTPSender takes in its URL.
HTTP_PARSERS: dict[str, Parser] = {
    "compress": _packing,
    "timeout_seconds": positive,
    "ca": str,
    "verify": flag,
    "allow_link_local": flag,
}
