"""Provider: one provider's official SDK behind the LLMClient. Each SDK has a file; none imports another."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Protocol

from ...secret import Secret
from ...wire.exchange import Exchange
from ...wire.http import metered_async_send, module_of
from ..ask import Ask
from ..response import ToolCall


@dataclass(frozen=True, kw_only=True)
class Access:
    """Whom to ask, and how. Nothing is read from the environment here: the SDK does that for what is None.

    provider: a value of `gen_ai.provider.name`.
    connect_seconds: to wait for a connection. read_seconds: to wait for the next bytes.
    """

    provider: str
    api_key: Secret | None = None
    base_url: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    connect_seconds: float = 10.0
    read_seconds: float = 600.0


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What an SDK's answer says. What it counts and costs is read on the wire."""

    text: str = field(repr=False)
    tool_calls: tuple[ToolCall, ...] = ()
    raw: Any = field(default=None, repr=False)


@dataclass(frozen=True, kw_only=True)
class Delta:
    """What one event of an SDK's stream adds; events that add nothing are not given.

    text: of the answer. reasoning: thought aloud, no part of the answer.
    tool_index, tool: a piece of a tool call: the first one of an index has its id and name, each a part of the
        arguments, to be joined. `tool_index` is None where there is none.
    """

    text: str = field(default="", repr=False)
    reasoning: str = field(default="", repr=False)
    tool_index: int | None = None
    tool: ToolCall | None = None


class Provider(Protocol):
    """An SDK's client, on one event loop. It retries nothing itself, and raises what the SDK raises.

    Its HTTP requests are metered by the call in `metering`, if there is one.
    """

    async def generate(self, ask: Ask) -> Reply:
        """Ask, and wait for the whole answer."""

    def stream(self, ask: Ask) -> AsyncGenerator[Delta, None]:
        """Ask, and give what comes as it comes. Nothing is sent before the first `anext()`; to be closed."""

    async def embed(self, model: str, texts: Sequence[str], extra: Mapping[str, Any]) -> tuple[list[list[float]], Any]:
        """One vector for each text, and the SDK's answer."""

    async def models(self) -> list[str]:
        """The names of the models that the provider has for this key."""

    async def aclose(self) -> None:
        """Give the connections back."""


# What gets the next POST as its attempt: set by the client around everything that it has an SDK do.
metering: ContextVar[Callable[[Any], Exchange | None] | None] = ContextVar("tellmeter_client_call", default=None)


def begin_attempt(request: Any) -> Exchange | None:
    """The attempt that a POST of an SDK is, for `wire.http.metered_async_send` and `wire.botocore`."""
    begin = metering.get()
    return None if begin is None else begin(request)


def meter_http(client: Any) -> None:
    """Have the requests of an SDK's `AsyncClient` of httpx or httpx2 metered by the call in `metering`."""
    module = module_of(client)
    if module is not None:
        client.send = metered_async_send(client.send, module, begin_attempt)
