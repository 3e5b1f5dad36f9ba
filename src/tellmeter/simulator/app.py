"""The simulator as an ASGI application: reads a request, decides what happens to it, and has the answer played."""

from __future__ import annotations

import asyncio
import hashlib
import random
import re
from collections import OrderedDict, deque
from collections.abc import Iterable
from email.utils import formatdate
from typing import Any

import msgspec

from ..errors import ConfigError
from . import gemini_formats as gemini
from .answer import Answer, Ask, Event, Usage, make_answer
from .anthropic_formats import ANTHROPIC, COUNT_TOKENS, MESSAGES
from .bedrock_formats import BEDROCK, CONVERSE
from .cache import PromptCache
from .exchanges import RecordedExchanges
from .faults import OK, Fault, for_attempt, parse_fault, parse_script
from .formats import Format, Provider, Refused, encode
from .model_lists import MODEL_LISTS, PATHS
from .openai_formats import CHAT, COMPLETIONS, EMBEDDINGS, OPENAI
from .openai_responses import RESPONSES
from .playing import HEADERS_SHARE, Receive, Reply, Scope, Send, Served, play
from .traffic import Traffic

# The end of a path -> its format. Providers put different things before it: /v1, /openai/v1, /v1beta/models/<model>.
ROUTES: dict[str, Format] = {
    "/chat/completions": CHAT,
    "/completions": COMPLETIONS,
    "/responses": RESPONSES,
    "/embeddings": EMBEDDINGS,
    "/messages": MESSAGES,
    "/messages/count_tokens": COUNT_TOKENS,
    ":generateContent": gemini.GENERATE,
    ":streamGenerateContent": gemini.GENERATE,
    ":embedContent": gemini.EMBED,
    ":batchEmbedContents": gemini.EMBED,
    ":countTokens": gemini.COUNT_TOKENS,
    "/converse": CONVERSE,
    "/converse-stream": CONVERSE,
}
_MOST_REMEMBERED = 10_000
_AWS_ATTEMPT = re.compile(r"\battempt=([1-9][0-9]{0,3})\b")
# The fields of every format that are objects where they are given.
_OBJECTS = (
    "cache_control",
    "output_config",
    "output_format",
    "reasoning",
    "response_format",
    "stream_options",
    "text",
    "thinking",
)
_JSON = {"content-type": "application/json"}


class Simulator:
    """The application.

    `faults` (texts, statuses or `Fault`s) hit the next requests in their order. With `exchanges` it answers with
    recordings only, events `pause` seconds apart. `served` tells what happened, the latest 10,000 requests.
    """

    def __init__(
        self,
        traffic: Traffic | None = None,
        *,
        faults: Iterable[Fault | str | int] = (),
        exchanges: RecordedExchanges | None = None,
        pause: float = 0.0,
    ) -> None:
        self.traffic = traffic or Traffic()
        self.faults: deque[Fault] = deque(map(parse_fault, faults))
        self.served: deque[Served] = deque(maxlen=_MOST_REMEMBERED)
        self._exchanges = exchanges
        self._pause = pause
        self._cache = PromptCache(self.traffic.cache_minimum)
        self._times: OrderedDict[str, int] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; stop as soon as the client is gone."""
        if scope["type"] != "http" or (body := await _read(receive)) is None:
            return
        answering = asyncio.ensure_future(self._answer(scope, body, send))
        leaving = asyncio.ensure_future(_gone(receive))
        try:
            await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if answering.done():
                answering.result()
        finally:
            answering.cancel()
            leaving.cancel()

    async def _answer(self, scope: Scope, body: bytes, send: Send) -> None:
        method, path = scope["method"], scope["path"]
        served = Served(path=path)
        if path.startswith("/__"):  # not a provider's
            await play(scope, self._control(method, path, body), send, served)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        digest = hashlib.blake2b(body, digest_size=16).hexdigest()
        rng = self.traffic.rng(path, digest, self._repeats(path + digest))
        wire = _route(path)
        provider = wire.provider if wire else _provider(path, headers)
        served.attempt = _attempt(headers)
        served.request_id = provider.request_id(rng)
        self.served.append(served)
        fault = OK
        try:
            fault = self._scripted(headers, served.attempt)
            if fault is OK and self._exchanges is None and (chance := self.traffic.error(provider.name, rng)):
                fault = parse_fault(chance)
            served.fault = str(fault)
            reply = self._decide(scope, headers, body, wire, provider, fault, rng, served)
        except Refused as refused:
            reply = _refusal(provider, refused, fault, served.request_id)
        await play(scope, reply, send, served, fault)

    def _decide(
        self,
        scope: Scope,
        headers: dict[str, str],
        body: bytes,
        wire: Format | None,
        provider: Provider,
        fault: Fault,
        rng: random.Random,
        served: Served,
    ) -> Reply:
        method, path = scope["method"], scope["path"]
        if fault.kind == "status":
            raise provider.explain(fault.status, fault.code)
        if self._exchanges is not None:
            return self._recorded(self._exchanges, scope, headers, body, served)
        if _api_key(headers).startswith("invalid"):
            raise provider.explain(*provider.bad_key)
        if method == "GET" and path.endswith(PATHS):
            return Reply(200, _headers(_JSON), [Event(MODEL_LISTS[provider.name])])
        if wire is None or method != "POST":
            raise Refused(404, f"Invalid URL ({method} {path})")
        given = _object(body) | wire.in_path(path)
        try:
            ask = wire.read(given)
            answer = make_answer(ask, self.traffic, self._cache, rng)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError):
            raise Refused(400, "The request does not have the expected shape.") from None
        served.model = ask.model
        return self._reply(wire, ask, answer, fault, served)

    def _reply(self, wire: Format, ask: Ask, answer: Answer, fault: Fault, served: Served) -> Reply:
        usage = Usage() if wire.is_free or answer.usage is None else answer.usage
        served.input_tokens, served.cached_tokens, served.cache_write_tokens = usage.input, usage.cached, usage.written
        served.output_tokens, served.reasoning_tokens = usage.output, usage.reasoning
        if fault.kind == "no-usage":
            answer.usage = None
        pace = self.traffic.pace(ask.model, answer.rng)
        answer.request_id = served.request_id
        answer.milliseconds = round(pace.whole(usage.output) * 1000)
        if ask.stream and wire.events is not None and wire.failure is not None:
            served.stream = True
            wait = pace.first * HEADERS_SHARE
            kind = {"content-type": wire.stream_type, "cache-control": "no-cache"}
            headers = _headers(kind, wire.provider.headers(ask, served.request_id, round(wait * 1000)))
            failure = wire.failure(answer, fault.after) if fault.kind == "error-event" else ()
            return Reply(200, headers, wire.events(answer), wait, pace, failure=tuple(failure))
        wait = pace.whole(usage.output)
        body = wire.whole(answer)
        kind = {**_JSON, "content-length": str(len(body))}
        headers = _headers(kind, wire.provider.headers(ask, served.request_id, round(wait * 1000)))
        return Reply(200, headers, [Event(body)], wait, pace)

    def _recorded(
        self, exchanges: RecordedExchanges, scope: Scope, headers: dict[str, str], body: bytes, served: Served
    ) -> Reply:
        if (wanted := headers.get("x-exchange-id")) is not None:
            found = exchanges.by_id(wanted)
        else:
            found = exchanges.find((scope.get("raw_path") or scope["path"].encode()).decode("latin-1"), body)
        if found is None:
            raise Refused(404, "No such exchange is recorded.", code="not_recorded")
        served.stream = found.is_stream
        served.model = str(found.expected.get("model") or "")
        return Reply(found.status, found.headers, found.events(), pause=self._pause)

    def _scripted(self, headers: dict[str, str], attempt: int) -> Fault:
        if (script := headers.get("x-simulate")) is None:
            return self.faults.popleft() if self.faults else OK
        try:
            return for_attempt(parse_script(script), attempt)
        except ConfigError as error:
            raise Refused(400, str(error), param="x-simulate") from None

    def _repeats(self, request: str) -> int:
        """How often this very request came before."""
        times = self._times.pop(request, -1) + 1
        self._times[request] = times
        if len(self._times) > _MOST_REMEMBERED:
            self._times.popitem(last=False)
        return times

    def _control(self, method: str, path: str, body: bytes) -> Reply:
        """For tests in other processes: what was served, and the faults to come."""
        status, said = 200, b"{}"
        match method, path:
            case "GET", "/__served":
                said = encode(list(self.served))
            case "GET", "/__faults":
                said = encode([str(fault) for fault in self.faults])
            case "POST", "/__faults":
                try:
                    self.faults.extend([parse_fault(one) for one in msgspec.json.decode(body, type=list[str | int])])
                except (msgspec.MsgspecError, ConfigError) as error:
                    status, said = 400, encode({"error": str(error)})
            case "DELETE", "/__faults":
                self.faults.clear()
            case _:
                status = 404
        return Reply(status, _headers(_JSON), [Event(said)])


async def _read(receive: Receive) -> bytes | None:
    """The request's body; None if the client left before it was sent."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        body += message.get("body") or b""
        if not message.get("more_body"):
            return bytes(body)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _route(path: str) -> Format | None:
    ends = [end for end in ROUTES if path.endswith(end)]
    return ROUTES[max(ends, key=len)] if ends else None


def _provider(path: str, headers: dict[str, str]) -> Provider:
    """Whose error or list answers a request that has no format."""
    if "anthropic-version" in headers:
        return ANTHROPIC
    if "x-goog-api-key" in headers or path.startswith("/v1beta/models"):
        return gemini.GEMINI
    return BEDROCK if path.startswith(("/model/", "/foundation-models")) else OPENAI


def _attempt(headers: dict[str, str]) -> int:
    """The number of a retry, from 0; AWS counts from 1 (`ttl=...; attempt=1; max=3`), Google's SDK does not say it."""
    if (number := headers.get("x-stainless-retry-count", "")).isdecimal():
        return int(number)
    told = _AWS_ATTEMPT.search(headers.get("amz-sdk-request", ""))
    return int(told[1]) - 1 if told else 0


def _api_key(headers: dict[str, str]) -> str:
    key = headers.get("x-api-key") or headers.get("x-goog-api-key") or headers.get("authorization", "")
    return key.removeprefix("Bearer ").removeprefix("AWS4-HMAC-SHA256 Credential=")


def _object(body: bytes) -> dict[str, Any]:
    try:
        given = msgspec.json.decode(body, type=dict[str, Any])
    except msgspec.MsgspecError:
        raise Refused(400, "We could not parse the JSON body of your request.") from None
    for name in _OBJECTS:
        if not isinstance(given.get(name) or {}, dict):
            raise Refused(400, f"Invalid type for '{name}': an object is needed.", code="invalid_type", param=name)
    return given


def _headers(*groups: dict[str, str]) -> list[tuple[bytes, bytes]]:
    every = [("date", formatdate(usegmt=True)), *(pair for group in groups for pair in group.items())]
    return [(name.encode(), value.encode()) for name, value in every]


def _refusal(provider: Provider, refused: Refused, fault: Fault, request_id: str) -> Reply:
    refused.retry_after = fault.retry_after
    headers = provider.error_headers(refused, request_id)
    return Reply(refused.status, _headers(_JSON, headers), [Event(provider.error_body(refused, request_id))])
