"""Amazon Bedrock, by boto3: Converse for answers, InvokeModel for embeddings."""

from __future__ import annotations

import re
import threading
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from types import ModuleType
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

import msgspec

from ...errors import ConfigError, MissingExtra
from ...wire.botocore import meter_client
from ..ask import Ask
from .base import Access, Delta, Reply, begin_attempt
from .bedrock_messages import EventReader, reply_of, request_of
from .threads import Worker

T = TypeVar("T")

_CONNECTIONS = 100  # kept for the next request; more are made where more are needed
_REGION = re.compile(r"(?:^|\.)bedrock[\w-]*\.([a-z]{2,}(?:-[a-z]+)+-\d+)\.")
_ANY_REGION = "us-east-1"
_END: Any = object()


class _Embedding(NamedTuple):
    """How a family of models is asked for vectors, and says them. `most` texts are for one request."""

    most: int
    body: Callable[[Sequence[str]], dict[str, Any]]
    vectors: Callable[[dict[str, Any]], list[list[float]]]


def _titan_vectors(answer: dict[str, Any]) -> list[list[float]]:
    found = answer.get("embedding")
    return [found if found is not None else next(iter(answer["embeddingsByType"].values()))]


def _cohere_vectors(answer: dict[str, Any]) -> list[list[float]]:
    found = answer["embeddings"]
    if isinstance(found, dict):  # by type: what version 4 says, and version 3 where `embedding_types` are asked for
        found = found["float"] if "float" in found else next(iter(found.values()))
    return list(found)


# By a part of the model's name, whatever region or profile is before it.
# https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-titan-embed-text.html and ...-embed.html
_EMBEDDINGS = {
    "titan-embed": _Embedding(1, lambda texts: {"inputText": texts[0]}, _titan_vectors),
    "cohere.embed": _Embedding(
        96, lambda texts: {"texts": list(texts), "input_type": "search_document"}, _cohere_vectors
    ),
}


class BedrockProvider:
    """Models of Amazon Bedrock, in the region of `base_url`, else of AWS's own settings.

    An `api_key` is a Bedrock API key; without one AWS's own settings are asked for credentials. Each request has a
    thread of its own, which a caller that goes away leaves behind until the answer, or its timeout; a stream's ends at
    once.

    Raises:
        MissingExtra: boto3 is not installed.
    """

    def __init__(self, access: Access) -> None:
        try:
            import boto3  # type: ignore[import-untyped]
        except ImportError:
            raise MissingExtra("boto3", "bedrock") from None
        self._boto3: ModuleType = boto3
        self._access = access
        self._lock = threading.Lock()
        self._clients: dict[str, Any] = {}

    async def generate(self, ask: Ask) -> Reply:
        """Ask, and wait for the whole answer."""
        request = request_of(ask)
        return reply_of(await _in_thread(lambda: self._runtime().converse(**request)))

    async def stream(self, ask: Ask) -> AsyncGenerator[Delta, None]:
        """Ask, and give what comes as it comes."""
        request = request_of(ask)
        opened: list[Any] = []

        def open_it() -> Any:
            opened.append(self._runtime().converse_stream(**request)["stream"])
            return iter(opened[0])

        reader = EventReader()
        worker = Worker("tellmeter-bedrock")
        try:
            events = await worker.do(open_it)
            while (event := await worker.do(lambda: next(events, _END))) is not _END:
                delta = reader.read(event)
                if delta is not None:
                    yield delta
        finally:
            for stream in opened:
                _wake(stream)
            worker.end(lambda: [stream.close() for stream in opened])

    async def embed(self, model: str, texts: Sequence[str], extra: Mapping[str, Any]) -> tuple[list[list[float]], Any]:
        """One vector for each text, and the answer.

        Raises:
            ConfigError: a family of models that is not known, or more texts than one request takes.
        """
        family = next((family for part, family in _EMBEDDINGS.items() if part in model), None)
        if family is None:
            raise ConfigError(
                f"model = {model!r}: embeddings are known of {' and '.join(_EMBEDDINGS)}, and of no other"
            )
        if not 1 <= len(texts) <= family.most:
            raise ConfigError(f"texts: {model} takes 1 to {family.most} in one request, not {len(texts)}")
        body = msgspec.json.encode({**family.body(texts), **extra})

        def invoke() -> Any:
            answer = self._runtime().invoke_model(
                modelId=model, body=body, contentType="application/json", accept="application/json"
            )
            return msgspec.json.decode(answer["body"].read())

        answer = await _in_thread(invoke)
        return family.vectors(answer), answer

    async def models(self) -> list[str]:
        """The names of the models and inference profiles that are there for this account and region."""
        return await _in_thread(self._models)

    async def aclose(self) -> None:
        """Give the connections back."""
        await _in_thread(self._close)

    # ------------------------------------------------------------------ in threads

    def _close(self) -> None:
        with self._lock:
            clients, self._clients = self._clients, {}
        for client in clients.values():
            client.close()

    def _models(self) -> list[str]:
        from botocore.exceptions import ClientError  # type: ignore[import-untyped]

        client = self._client("bedrock", _control_url(self._access.base_url))
        names = [one["modelId"] for one in client.list_foundation_models()["modelSummaries"]]
        try:
            for page in client.get_paginator("list_inference_profiles").paginate():
                names += (one["inferenceProfileId"] for one in page["inferenceProfileSummaries"])
        except ClientError:  # a permission of its own
            pass
        return names

    def _runtime(self) -> Any:
        return self._client("bedrock-runtime", self._access.base_url)

    def _client(self, service: str, url: str | None) -> Any:
        """The client of a service. It is slow to make, hence in a thread; and a session is not for two at once."""
        with self._lock:
            client = self._clients.get(service)
            if client is None:
                client = self._clients[service] = self._new_client(service, url)
            return client

    def _new_client(self, service: str, url: str | None) -> Any:
        from botocore import UNSIGNED  # type: ignore[import-untyped]
        from botocore.config import Config  # type: ignore[import-untyped]

        access = self._access
        session = self._boto3.Session()
        config = Config(
            connect_timeout=access.connect_seconds,
            read_timeout=access.read_seconds,
            retries={"total_max_attempts": 1},
            max_pool_connections=_CONNECTIONS,
            signature_version=None if access.api_key is None else UNSIGNED,
        )
        client = session.client(
            service, region_name=_region(access, session.region_name), endpoint_url=url, config=config
        )
        headers = dict(access.headers)
        if access.api_key is not None:
            # boto3 itself reads such a key from the environment of the whole process alone.
            headers["authorization"] = f"Bearer {access.api_key.reveal()}"
        client.meta.events.register(f"before-sign.{service}", _adding(headers))
        if service == "bedrock-runtime":
            meter_client(client, begin_attempt)
        return client


async def _in_thread(work: Callable[[], T]) -> T:
    worker = Worker("tellmeter-bedrock")
    done = worker.do(work)
    worker.end()
    return await done


def _wake(stream: Any) -> None:
    """End the wait for a stream's next bytes, which may be going on in its thread; closing it would wait for them."""
    try:
        stream._raw_stream.shutdown()
    except Exception:  # it is over; or an urllib3 before 2.3, where the wait ends with the read timeout
        pass


def _adding(headers: Mapping[str, str]) -> Callable[..., None]:
    def add(request: Any, **_: Any) -> None:
        for name, value in headers.items():
            del request.headers[name]  # to set it adds another one, and both are signed
            request.headers[name] = value

    return add


def _region(access: Access, configured: str | None) -> str:
    named = _REGION.search(urlsplit(access.base_url or "").hostname or "")
    if named is not None:
        return named[1]
    if configured:
        return configured
    if access.base_url and access.api_key is not None:
        return _ANY_REGION  # boto3 insists, and uses it for nothing
    raise ConfigError(
        "Bedrock's region is not known: set AWS_DEFAULT_REGION, or a region in the AWS profile, or the base_url, as "
        "https://bedrock-runtime.us-east-1.amazonaws.com"
    )


def _control_url(base_url: str | None) -> str | None:
    """Where the models are listed: AWS has another host for that, gateways have not."""
    return None if base_url is None else base_url.replace("://bedrock-runtime", "://bedrock", 1)
