"""Google's generateContent, embeddings and countTokens of the Gemini API, as recorded in 2025 and 2026.

Streams are server-sent events, as with `alt=sse`, which is what the SDKs ask for.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from .answer import Answer, Ask, Choice, Event, Tool, new_id
from .formats import Format, Provider, Refused, encode, is_unknown, sse, text_of, unit_vector, whole_number
from .traffic import family_of
from .words import grouped

_STOPS = {"stop": "STOP", "length": "MAX_TOKENS", "tool_calls": "STOP"}
_STREAM_TYPE = "text/event-stream"
_MOST_TOGETHER = 24  # tokens in an event
_CHOICES = {"ANY": "required", "NONE": "none"}
_DIMENSIONS = 3072
_SILENT = ("gemini-embedding-001", "text-embedding-")  # models whose embeddings state no tokens
_TYPE = "type.googleapis.com/google.rpc."


# The provider


def _headers(ask: Ask, request_id: str, milliseconds: int) -> dict[str, str]:
    return {"server-timing": f"gfet4t7; dur={milliseconds}", "vary": "Origin, X-Origin, Referer"}


# Status -> status in Google's words, message. The words are the API's, the messages our own.
_ERRORS = {
    400: ("INVALID_ARGUMENT", "The simulator was told to refuse this request."),
    401: ("UNAUTHENTICATED", "Request had invalid authentication credentials."),
    403: ("PERMISSION_DENIED", "The caller does not have permission."),
    404: ("NOT_FOUND", "The model is not found, or is not supported for this method."),
    429: ("RESOURCE_EXHAUSTED", "Resource has been exhausted (e.g. check quota)."),
    500: ("INTERNAL", "An internal error has occurred. Please retry."),
    503: ("UNAVAILABLE", "The model is overloaded. Please try again later."),
    504: ("DEADLINE_EXCEEDED", "The deadline expired before the operation could complete."),
}
_CODES = {
    "API_KEY_INVALID": "API key not valid. Please pass a valid API key.",
    "insufficient_quota": "You exceeded your current quota, please check your plan and billing details.",
    "context_length_exceeded": "The input token count exceeds the maximum number of tokens allowed (1048576).",
}


def _usual(status: int) -> tuple[str, str]:
    return _ERRORS.get(status, _ERRORS[500] if status >= 500 else _ERRORS[400])


def _explain(status: int, code: str | None) -> Refused:
    return Refused(status, _CODES.get(code or "", _usual(status)[1]), code=code)


def _error(refused: Refused) -> dict[str, Any]:
    said = {"code": refused.status, "message": refused.message, "status": _usual(refused.status)[0]}
    details: list[dict[str, Any]] = []
    if refused.code == "API_KEY_INVALID":
        service = {"service": "generativelanguage.googleapis.com"}
        reason = {"reason": refused.code, "domain": "googleapis.com", "metadata": service}
        details.append({"@type": f"{_TYPE}ErrorInfo", **reason})
    if refused.code == "insufficient_quota":
        violation = {"quotaMetric": "generativelanguage.googleapis.com/generate_content_free_tier_requests"}
        details.append({"@type": f"{_TYPE}QuotaFailure", "violations": [violation]})
    if refused.retry_after is not None:  # no header says it
        details.append({"@type": f"{_TYPE}RetryInfo", "retryDelay": f"{refused.retry_after:g}s"})
    return {"error": {**said, **({"details": details} if details else {})}}


def _pretty(body: dict[str, Any]) -> bytes:
    return msgspec.json.format(encode(body), indent=2) + b"\n"


GEMINI = Provider(
    "gemini",
    lambda rng: new_id(rng, "", 22),  # it comes in the body
    _headers,
    lambda refused, request_id: {},
    lambda refused, request_id: _pretty(_error(refused)),
    _explain,
    bad_key=(400, "API_KEY_INVALID"),
)


# Requests


def _in_path(path: str) -> dict[str, Any]:
    """The model in `/v1beta/models/<model>:<method>`, and whether the method streams."""
    model, _, method = path.rpartition("/")[2].rpartition(":")
    return {"model": model, "stream": method.startswith("stream")}


def _names(name: str) -> tuple[str, str]:
    """Both spellings of a field that Google takes; its SDK mixes them."""
    return name, re.sub("([A-Z])", r"_\1", name).lower()


def _get(body: Mapping[str, Any], name: str) -> Any:
    """A field, by its name in camel case."""
    camel, snake = _names(name)
    return body.get(snake) if body.get(camel) is None else body[camel]


def _known_model(body: dict[str, Any]) -> str:
    model = str(body["model"])
    if not model or is_unknown(model):
        raise Refused(404, f"models/{model} is not found for API version v1beta.")
    return model


def _read(body: dict[str, Any]) -> Ask:
    model = _known_model(body)
    contents = _contents(body)
    config = _get(body, "generationConfig") or {}
    thinking = _get(config, "thinkingConfig") or {}
    budget = _get(thinking, "thinkingBudget")
    thinks = family_of(model).reasons if budget is None else budget != 0
    tools, choice = _read_tools(body)
    return Ask(
        model=model,
        stream=body["stream"],
        prompt=_prompt(body, contents),
        messages=len(contents),
        tools=tools,
        tool_choice=choice,
        answers_tool=any(_get(part, "functionResponse") for part in contents[-1]["parts"]),
        schema=_schema(config),
        limit=whole_number(config, *_names("maxOutputTokens")),
        thinks=thinks,
        shows_thoughts=thinks and bool(_get(thinking, "includeThoughts")),
        count=whole_number(config, *_names("candidateCount")) or 1,
        body=body,
    )


def _contents(body: dict[str, Any]) -> list[dict[str, Any]]:
    contents = body.get("contents")
    if not isinstance(contents, list) or not contents:
        raise Refused(400, "* GenerateContentRequest.contents: contents is not specified")
    for number, content in enumerate(contents):
        where = f"* GenerateContentRequest.contents[{number}]"
        if not isinstance(content, dict) or content.get("role", "user") not in {"user", "model", "function"}:
            raise Refused(400, f"{where}.role: please use a valid role: user, model.")
        if not isinstance(content.get("parts"), list) or not content["parts"]:
            raise Refused(400, f"{where}.parts: contents.parts must not be empty.")
    return contents


def _prompt(body: dict[str, Any], contents: list[dict[str, Any]]) -> str:
    tools = body.get("tools")
    system = _get(body, "systemInstruction") or {}
    return "\n".join(
        [encode(tools).decode() if tools else "", *(text_of(one.get("parts")) for one in [system, *contents])]
    )


def _read_tools(body: dict[str, Any]) -> tuple[list[Tool], str]:
    """The functions on offer, and the choice among them."""
    calling = _get(_get(body, "toolConfig") or {}, "functionCallingConfig") or {}
    allowed = _get(calling, "allowedFunctionNames")
    tools = [
        Tool(one["name"], _get(one, "parametersJsonSchema") or one.get("parameters") or {"type": "object"})
        for tool in body.get("tools") or ()
        for one in _get(tool, "functionDeclarations") or ()
        if not allowed or one["name"] in allowed
    ]
    return tools, _CHOICES.get(str(calling.get("mode")), "auto")


def _schema(config: Mapping[str, Any]) -> Any:
    if _get(config, "responseMimeType") != "application/json":
        return None
    wanted = _get(config, "responseJsonSchema") or _get(config, "responseSchema")
    return wanted or {"properties": {"answer": {"type": "string"}}}


def _read_to_count(body: dict[str, Any]) -> Ask:
    model = _known_model(body)
    asked = _get(body, "generateContentRequest") or body
    contents = _contents(asked)
    prompt = _prompt(asked, contents)
    return Ask(model=model, prompt=prompt, messages=len(contents), marks=[], limit=0, body=body)


def _read_embeddings(body: dict[str, Any]) -> Ask:
    model = _known_model(body)
    requests = body.get("requests") or [body]
    parts = [(request.get("content") or {}).get("parts") for request in requests]
    if not all(parts):
        raise Refused(400, "* EmbedContentRequest.content: content is not specified")
    prompt = "\n".join(map(text_of, parts))
    return Ask(model=model, prompt=prompt, messages=0, marks=[], limit=0, body=body)


# Answers


def _usage(answer: Answer, made: int, thought: int) -> dict[str, Any]:
    """Token counts once so many are made; output is stated without thinking, and what is 0 is not stated."""
    usage = answer.usage
    if usage is None:
        return {}
    counts = {
        "promptTokenCount": usage.input,
        "candidatesTokenCount": made,
        "totalTokenCount": usage.input + made + thought,
        "cachedContentTokenCount": usage.cached,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": usage.input}],
        "cacheTokensDetails": [{"modality": "TEXT", "tokenCount": usage.cached}] if usage.cached else None,
        "thoughtsTokenCount": thought,
        "serviceTier": "standard",
    }
    return {"usageMetadata": {name: value for name, value in counts.items() if value}}


def _parts(answer: Answer, choice: Choice) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = []
    if answer.thoughts:
        parts.append({"text": "".join(answer.thoughts), "thought": True})
    if choice.text:
        parts.append({"text": "".join(choice.text)})
    return parts + _calls(answer, choice)


def _calls(answer: Answer, choice: Choice) -> list[dict[str, Any]]:
    """The calls, each with an id; what a model thought before them is in the signature of the first."""
    parts: list[dict[str, Any]] = []
    for call in choice.calls:
        function = {"name": call.name, "args": msgspec.json.decode(call.arguments), "id": answer.new_id("", 8).lower()}
        parts.append({"functionCall": function})
    if parts and answer.ask.thinks:
        parts[0]["thoughtSignature"] = _signature(answer)
    return parts


def _signature(answer: Answer) -> str:
    return base64.b64encode(answer.rng.randbytes(66)).decode()


def _candidate(choice: Choice | None, index: int, parts: list[dict[str, Any]]) -> dict[str, Any]:
    """A candidate or a piece of it; with `choice`, the last one."""
    made: dict[str, Any] = {"content": {"parts": parts, "role": "model"}}
    if choice is not None:
        made["finishReason"] = _STOPS[choice.finish]
    made["index"] = index
    if choice is not None and choice.calls:
        made["finishMessage"] = "Model generated function call(s)."
    return made


def _whole(answer: Answer) -> bytes:
    usage = answer.usage
    thought = usage.reasoning if usage is not None else 0
    made = usage.output - thought if usage is not None else 0
    candidates = [_candidate(one, index, _parts(answer, one)) for index, one in enumerate(answer.choices)]
    tail = {"modelVersion": answer.model, "responseId": answer.request_id}
    return _pretty({"candidates": candidates, **_usage(answer, made, thought), **tail})


def _events(answer: Answer) -> Iterator[Event]:
    tail = {"modelVersion": answer.model, "responseId": answer.request_id}
    made = thought = 0

    def event(candidate: dict[str, Any], tokens: int = 0, *, ends: bool = False) -> Event:
        body = {"candidates": [candidate], **_usage(answer, made, thought), **tail}
        return Event(sse(body), tokens, ends)

    # Before the first token, so that silence after one event is a slow first token here as in the other formats.
    yield event(_candidate(None, 0, [{"text": ""}]))
    for group in grouped(answer.thoughts, _MOST_TOGETHER, answer.rng):
        thought += len(group)
        yield event(_candidate(None, 0, [{"text": "".join(group), "thought": True}]), len(group))
    silent = answer.usage.reasoning - thought if answer.usage is not None else 0
    thought += silent
    for index, choice in enumerate(answer.choices):
        for group in grouped(choice.text, _MOST_TOGETHER, answer.rng):
            made += len(group)
            yield event(_candidate(None, index, [{"text": "".join(group)}]), silent + len(group))
            silent = 0
        if choice.calls:
            made += choice.tokens
            yield event(_candidate(None, index, _calls(answer, choice)), silent + choice.tokens)
            silent = 0
        last = _candidate(choice, index, [{"text": ""}])
        yield event(last, silent, ends=index == len(answer.choices) - 1)
        silent = 0


def _failure(answer: Answer, sent: int) -> list[Event]:
    return [Event(sse(_error(_explain(503, None))))]


def _whole_embeddings(answer: Answer) -> bytes:
    body = answer.ask.body
    requests = body.get("requests")
    vectors = [
        {"values": unit_vector(answer.rng, whole_number(one, *_names("outputDimensionality")) or _DIMENSIONS).tolist()}
        for one in requests or [body]
    ]
    said: dict[str, Any] = {"embeddings": vectors} if requests else {"embedding": vectors[0]}
    if answer.usage is not None and not answer.ask.model.startswith(_SILENT):
        details = [{"modality": "TEXT", "tokenCount": answer.usage.input}]
        said["usageMetadata"] = {"promptTokenCount": answer.usage.input, "promptTokenDetails": details}
    return _pretty(said)


def _whole_count(answer: Answer) -> bytes:
    tokens = answer.ask.tokens
    return _pretty({"totalTokens": tokens, "promptTokensDetails": [{"modality": "TEXT", "tokenCount": tokens}]})


GENERATE = Format(
    "generate_content", GEMINI, _read, _whole, _events, _failure, in_path=_in_path, stream_type=_STREAM_TYPE
)
EMBED = Format("embed_content", GEMINI, _read_embeddings, _whole_embeddings, in_path=_in_path)
COUNT_TOKENS = Format("count_tokens", GEMINI, _read_to_count, _whole_count, is_free=True, in_path=_in_path)
