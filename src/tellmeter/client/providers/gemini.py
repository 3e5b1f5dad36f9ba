"""Gemini by Google's own SDK, google-genai: the Gemini API, and Vertex AI."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, get_args

from ...context import reset
from ...errors import ConfigError, MissingExtra
from ..ask import Ask
from . import gemini_messages as api
from .base import Access, Delta, Reply, meter_http

_MOST_MODELS = 10_000
# The HTTP responses of the stream that is being opened.
_opened: ContextVar[list[Any] | None] = ContextVar("tellmeter_gemini_stream", default=None)


class GeminiProvider:
    """Gemini's models: of Vertex AI for "gcp.vertex_ai", else of the Gemini API.

    One call is one request: the SDK neither calls functions nor continues answers by itself. Client certificates (mTLS)
    of Vertex AI are not used, since the HTTP client is ours.

    Raises:
        MissingExtra: google-genai is not installed.
        ValueError: there is no key, as the SDK says.
    """

    def __init__(self, access: Access) -> None:
        try:
            from google import genai
        except ImportError:
            raise MissingExtra("google-genai", "gemini") from None
        self._types: Any = genai.types
        self._http = _http_client(genai.types.HttpxAsyncClient, access)
        meter_http(self._http)
        options = genai.types.HttpOptions(
            base_url=access.base_url,
            headers=dict(access.headers),
            retry_options=genai.types.HttpRetryOptions(attempts=1),
            httpx_async_client=self._http,  # with it, the SDK leaves aiohttp alone
        )
        self._sdk = genai.Client(
            vertexai=access.provider == "gcp.vertex_ai",
            api_key=None if access.api_key is None else access.api_key.reveal(),
            http_options=options,
        )

    async def generate(self, ask: Ask) -> Reply:
        """Ask, and wait for the whole answer."""
        answer = await self._sdk.aio.models.generate_content(**self._arguments(ask))
        said = list(api.AnswerReader().read(answer))
        calls = tuple(delta.tool for delta in said if delta.tool is not None)
        return Reply(text="".join(delta.text for delta in said), tool_calls=calls, raw=answer)

    async def stream(self, ask: Ask) -> AsyncGenerator[Delta, None]:
        """Ask, and give what comes as it comes."""
        reader = api.AnswerReader()
        opened: list[Any] = []
        try:
            with _noting(opened):  # the SDK sends with the first answer, if not before
                answers: Any = await self._sdk.aio.models.generate_content_stream(**self._arguments(ask))
                answer = await anext(answers, None)
            while answer is not None:
                for delta in reader.read(answer):
                    yield delta
                answer = await anext(answers, None)
        finally:
            # The SDK's generators stand in each other, and the innermost would close it when the loop comes to it.
            for response in opened:
                await response.aclose()

    async def embed(self, model: str, texts: Sequence[str], extra: Mapping[str, Any]) -> tuple[list[list[float]], Any]:
        """One vector for each text, and the SDK's answer. `extra` has the fields of an `EmbedContentConfig`."""
        config: Any = _fields(self._types.EmbedContentConfig, extra) or None
        # As contents of their own: of texts, newer models would make one vector.
        contents = [{"parts": [{"text": text}]} for text in texts]
        answer = await self._sdk.aio.models.embed_content(model=model, contents=contents, config=config)
        return [list(found.values or ()) for found in answer.embeddings or ()], answer

    async def models(self) -> list[str]:
        """The names of the models that the API has for this key."""
        names: list[str] = []
        async for model in await self._sdk.aio.models.list():
            names.append(api.model_name(model.name or ""))
            if len(names) >= _MOST_MODELS:
                break
        return names

    async def aclose(self) -> None:
        """Give the connections back."""
        await self._sdk.aio.aclose()
        await self._http.aclose()  # the SDK leaves a client alone that it was given

    def _arguments(self, ask: Ask) -> dict[str, Any]:
        contents, system = api.contents_of(ask)
        kind = self._types.GenerateContentConfig
        config = _fields(kind, api.config_of(ask, system))
        if "automatic_continuation" in kind.model_fields:
            config.setdefault("automatic_continuation", False)
        return {"model": ask.model, "contents": contents, "config": config}


@contextmanager
def _noting(opened: list[Any]) -> Iterator[None]:
    token = _opened.set(opened)
    try:
        yield
    finally:
        reset(_opened, token)


def _fields(kind: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """`given` by the names of a config's fields, whichever of its two spellings was used.

    Raises:
        ConfigError: a field that the config does not have.
    """
    names = {field.alias: name for name, field in kind.model_fields.items()}
    found = {}
    for name, value in given.items():
        known = names.get(name, name)
        if known not in kind.model_fields:
            raise ConfigError(f"{name}: the {kind.__name__} of the installed google-genai has no such field")
        found[known] = value
    return found


def _http_client(accepted: Any, access: Access) -> Any:
    """An `AsyncClient` as the SDK's own would be, of the HTTP library that it works with (the newer one of two)."""
    library = (get_args(accepted) or (accepted,))[-1]
    limits = {
        "connect": access.connect_seconds,
        "read": access.read_seconds,
        "write": access.read_seconds,
        "pool": access.read_seconds,
    }

    async def limit(request: Any) -> None:
        """The SDK says for each request that there is no limit, unless the caller gave it one."""
        asked = request.extensions.get("timeout") or {}
        named = {name: asked.get(name) or seconds for name, seconds in limits.items()}
        request.extensions = {**request.extensions, "timeout": named}

    async def note(response: Any) -> None:
        opened = _opened.get()
        if opened is not None:
            opened.append(response)

    return library(follow_redirects=True, event_hooks={"request": [limit], "response": [note]})
