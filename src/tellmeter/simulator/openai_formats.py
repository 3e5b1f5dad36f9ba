"""OpenAI's chat completions, completions and embeddings, as recorded in 2024 to 2026."""

from __future__ import annotations

import base64
import random
from collections.abc import Iterator
from typing import Any

import msgspec

from .answer import Answer, Ask, Choice, Event, Tool, Usage
from .formats import (
    Format,
    Provider,
    Refused,
    encode,
    is_unknown,
    model_of,
    retry_headers,
    sse,
    text_of,
    unit_vector,
    whole_number,
)
from .traffic import family_of
from .words import CHARS_PER_TOKEN, cut

_ROLES = {"system", "developer", "user", "assistant", "tool", "function"}
_DONE = Event(b"data: [DONE]\n\n", ends=True)
_FINGERPRINT = "fp_51a0e1d2c3"
_CALL_TOKENS = 7
_DIMENSIONS = {"text-embedding-3-large": 3072}


# The provider


def request_id(rng: random.Random) -> str:
    """As in the header `x-request-id`."""
    return f"req_{rng.getrandbits(128):032x}"


def headers(ask: Ask, request_id: str, milliseconds: int) -> dict[str, str]:
    """Of an answer that was given."""
    return {
        "openai-organization": "simulated",
        "openai-processing-ms": str(milliseconds),
        "openai-version": "2020-10-01",
        "x-envoy-upstream-service-time": str(milliseconds + 3),
        "x-ratelimit-limit-requests": "10000",
        "x-ratelimit-limit-tokens": "2000000",
        "x-ratelimit-remaining-requests": "9999",
        "x-ratelimit-remaining-tokens": str(2_000_000 - ask.tokens),
        "x-ratelimit-reset-requests": "6ms",
        "x-ratelimit-reset-tokens": f"{ask.tokens * 60 // 2000}ms",
        "x-request-id": request_id,
    }


def error_headers(refused: Refused, request_id: str) -> dict[str, str]:
    """Of an error."""
    return {"openai-version": "2020-10-01", "x-request-id": request_id, **retry_headers(refused)}


# Status -> type, code, message. Types and codes are the API's, the messages our own.
_ERRORS: dict[int, tuple[str, str | None, str]] = {
    400: ("invalid_request_error", None, "The simulator was told to refuse this request."),
    401: ("invalid_request_error", "invalid_api_key", "Incorrect API key provided."),
    403: ("permission_error", "model_access_denied", "This project may not use the model."),
    404: ("invalid_request_error", "model_not_found", "The model does not exist or you do not have access to it."),
    429: ("requests", "rate_limit_exceeded", "Rate limit reached for requests. Please try again later."),
    500: ("server_error", None, "The server had an error while processing your request."),
    503: ("server_error", "overloaded", "The engine is currently overloaded, please try again later."),
}
_CODES = {
    "insufficient_quota": ("insufficient_quota", "You exceeded your current quota."),
    "context_length_exceeded": ("invalid_request_error", "Your input exceeds the context window of this model."),
    "content_filter": ("invalid_request_error", "The request was stopped by the content filter."),
}


def explain(status: int, code: str | None) -> Refused:
    """The error that a scripted status stands for."""
    kind, usual, message = _ERRORS.get(status, _ERRORS[500] if status >= 500 else _ERRORS[400])
    return Refused(status, _CODES.get(code or "", (kind, message))[1], code=code or usual)


def error_body(refused: Refused, request_id: str) -> bytes:
    """The JSON of an error."""
    return msgspec.json.format(encode({"error": error(refused)}), indent=4)


def error(refused: Refused) -> dict[str, Any]:
    """The object that says what went wrong."""
    kind = _ERRORS.get(refused.status, _ERRORS[500] if refused.status >= 500 else _ERRORS[400])[0]
    kind = _CODES.get(refused.code or "", (kind, ""))[0]
    return {"message": refused.message, "type": kind, "param": refused.param, "code": refused.code}


OPENAI = Provider("openai", request_id, headers, error_headers, error_body, explain)


# Requests


def known_model(body: dict[str, Any]) -> str:
    """The model asked for, unless there is none of that name."""
    model = model_of(body)
    if is_unknown(model):
        message = f"The model `{model}` does not exist or you do not have access to it."
        raise Refused(404, message, code="model_not_found")
    return model


def read_tools(tools: Any) -> list[Tool]:
    """The functions on offer: nested as in chat completions, or flat as in responses."""
    found = []
    for tool in tools or ():
        function = tool.get("function") or tool
        if tool.get("type") == "function" and function.get("name"):
            found.append(Tool(function["name"], function.get("parameters") or {"type": "object"}))
    return found


def read_choice(choice: Any) -> str:
    """`tool_choice`: a word, or the name of a function."""
    if isinstance(choice, dict):
        return str((choice.get("function") or choice).get("name") or "required")
    return str(choice or "auto")


def _read_chat(body: dict[str, Any]) -> Ask:
    model = known_model(body)
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        message = "Missing required parameter: 'messages'."
        raise Refused(400, message, code="missing_required_parameter", param="messages")
    for number, message in enumerate(messages):
        if not isinstance(message, dict) or message.get("role") not in _ROLES:
            where = f"messages[{number}].role"
            raise Refused(400, f"Invalid value for '{where}'.", code="invalid_value", param=where)
    wanted = body.get("response_format") or {}
    schema = (wanted.get("json_schema") or {}).get("schema")
    if schema is None and wanted.get("type") == "json_object":
        schema = {"properties": {"answer": {"type": "string"}}}
    tools = body.get("tools")
    return Ask(
        model=model,
        stream=bool(body.get("stream")),
        prompt="\n".join([encode(tools).decode() if tools else "", *map(text_of, messages)]),
        messages=len(messages),
        tools=read_tools(tools),
        tool_choice=read_choice(body.get("tool_choice")),
        parallel=body.get("parallel_tool_calls") is not False,
        answers_tool=messages[-1]["role"] == "tool",
        schema=schema,
        limit=whole_number(body, "max_completion_tokens", "max_tokens"),
        thinks=family_of(model).reasons and body.get("reasoning_effort") != "none",
        count=whole_number(body, "n") or 1,
        body=body,
    )


def _read_completion(body: dict[str, Any]) -> Ask:
    prompt = body.get("prompt", "")
    many = len(prompt) if isinstance(prompt, list) and prompt and isinstance(prompt[0], str) else 1
    return Ask(
        model=known_model(body),
        stream=bool(body.get("stream")),
        prompt=_tokens_as_text(prompt),
        messages=0,
        marks=[],
        limit=whole_number(body, "max_tokens") or 16,
        count=many * (whole_number(body, "n") or 1),
        body=body,
    )


def _read_embeddings(body: dict[str, Any]) -> Ask:
    model = known_model(body)
    given = body.get("input")
    if not isinstance(given, str | list) or not given:
        raise Refused(400, "'input' must be text, tokens, or a list of either.", param="input")
    return Ask(model=model, prompt=_tokens_as_text(given), messages=0, marks=[], limit=0, body=body)


def _tokens_as_text(given: Any) -> str:
    """Text as it is; token numbers as text that counts as many tokens."""
    if isinstance(given, list):
        return "".join(map(_tokens_as_text, given))
    return "#" * CHARS_PER_TOKEN if isinstance(given, int) else text_of(given)


# Answers


def usage_of(usage: Usage) -> dict[str, Any]:
    """Token counts as chat completions state them."""
    return {
        "prompt_tokens": usage.input,
        "completion_tokens": usage.output,
        "total_tokens": usage.input + usage.output,
        "prompt_tokens_details": {"cached_tokens": usage.cached, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def _call(answer: Answer, name: str, arguments: str) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {"id": answer.new_id("call_", 24), "type": "function", "function": function}


def _chat_message(answer: Answer, choice: Choice) -> dict[str, Any]:
    calls = [_call(answer, call.name, call.arguments) for call in choice.calls]
    content = None if calls else "".join(choice.text)
    return {
        "role": "assistant",
        "content": content,
        **({"tool_calls": calls} if calls else {}),
        "refusal": None,
        "annotations": [],
    }


def _pretty(body: dict[str, Any]) -> bytes:
    return msgspec.json.format(encode(body), indent=2) + b"\n"


def _whole_chat(answer: Answer) -> bytes:
    body: dict[str, Any] = {
        "id": answer.new_id("chatcmpl-", 29),
        "object": "chat.completion",
        "created": answer.created,
        "model": answer.model,
        "choices": [
            {
                "index": index,
                "message": _chat_message(answer, choice),
                "logprobs": None,
                "finish_reason": choice.finish,
            }
            for index, choice in enumerate(answer.choices)
        ],
    }
    if answer.usage is not None:
        body["usage"] = usage_of(answer.usage)
    return _pretty({**body, "service_tier": "default", "system_fingerprint": _FINGERPRINT})


def _chat_events(answer: Answer) -> Iterator[Event]:
    options = answer.ask.body.get("stream_options") or {}
    states_usage = bool(options.get("include_usage")) and answer.usage is not None
    hides = options.get("include_obfuscation") is not False
    head = {
        "id": answer.new_id("chatcmpl-", 29),
        "object": "chat.completion.chunk",
        "created": answer.created,
        "model": answer.model,
        "service_tier": "default",
        "system_fingerprint": _FINGERPRINT,
    }

    def chunk(choices: list[dict[str, Any]], tokens: int = 0, usage: dict[str, Any] | None = None) -> Event:
        body = {**head, "choices": choices}
        if states_usage:
            body["usage"] = usage
        if hides:
            body["obfuscation"] = f"{answer.rng.getrandbits(48):x}"
        return Event(sse(body), tokens)

    def delta(index: int, delta: dict[str, Any], tokens: int = 0, finish: str | None = None) -> Event:
        return chunk([{"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}], tokens)

    thought = answer.usage.reasoning if answer.usage is not None else 0
    for index, choice in enumerate(answer.choices):
        for number, call in enumerate(choice.calls):
            start = {"index": number, **_call(answer, call.name, "")}
            role = {"role": "assistant", "content": None} if not number else {}
            yield delta(index, {**role, "tool_calls": [start], "refusal": None}, _CALL_TOKENS + thought)
            thought = 0
            for piece in cut(call.arguments):
                yield delta(index, {"tool_calls": [{"index": number, "function": {"arguments": piece}}]}, 1)
        if not choice.calls:
            yield delta(index, {"role": "assistant", "content": "", "refusal": None})
            for piece in choice.text:
                yield delta(index, {"content": piece}, 1 + thought)
                thought = 0
        yield delta(index, {}, thought, choice.finish)
    if states_usage and answer.usage is not None:
        yield chunk([], usage=usage_of(answer.usage))
    yield _DONE


def in_stream_error(answer: Answer, sent: int) -> list[Event]:
    """An error in place of a chunk, as OpenAI-like servers send it."""
    return [Event(sse({"error": error(explain(500, None))}))]


def _simple_usage(usage: Usage) -> dict[str, int]:
    return {
        "prompt_tokens": usage.input,
        "completion_tokens": usage.output,
        "total_tokens": usage.input + usage.output,
    }


def _whole_completion(answer: Answer) -> bytes:
    choices = [
        {"text": "".join(choice.text), "index": index, "logprobs": None, "finish_reason": choice.finish}
        for index, choice in enumerate(answer.choices)
    ]
    body = {**_completion_head(answer), "choices": choices}
    if answer.usage is not None:
        body["usage"] = _simple_usage(answer.usage)
    return _pretty(body)


def _completion_head(answer: Answer) -> dict[str, Any]:
    return {
        "id": answer.new_id("cmpl-", 29),
        "object": "text_completion",
        "created": answer.created,
        "model": answer.model,
    }


def _completion_events(answer: Answer) -> Iterator[Event]:
    states_usage = bool((answer.ask.body.get("stream_options") or {}).get("include_usage"))
    head = _completion_head(answer)
    silent: dict[str, Any] = {"usage": None} if states_usage else {}
    for index, choice in enumerate(answer.choices):
        for piece in choice.text:
            part = {"text": piece, "index": index, "logprobs": None, "finish_reason": None}
            yield Event(sse({**head, "choices": [part], **silent}), 1)
        end = {"text": "", "index": index, "logprobs": None, "finish_reason": choice.finish}
        yield Event(sse({**head, "choices": [end], **silent}))
    if states_usage and answer.usage is not None:
        yield Event(sse({**head, "choices": [], "usage": _simple_usage(answer.usage)}))
    yield _DONE


def _whole_embeddings(answer: Answer) -> bytes:
    body = answer.ask.body
    given = body["input"]
    many = len(given) if isinstance(given, list) and isinstance(given[0], str | list) else 1
    size = whole_number(body, "dimensions") or _DIMENSIONS.get(answer.ask.model, 1536)
    as_text = body.get("encoding_format") == "base64"
    vectors = [unit_vector(answer.rng, size) for _ in range(many)]
    data = [
        {
            "object": "embedding",
            "index": index,
            "embedding": base64.b64encode(vector.tobytes()).decode() if as_text else vector.tolist(),
        }
        for index, vector in enumerate(vectors)
    ]
    listed: dict[str, Any] = {"object": "list", "data": data, "model": answer.model}
    if answer.usage is not None:
        listed["usage"] = {"prompt_tokens": answer.usage.input, "total_tokens": answer.usage.input}
    return _pretty(listed)


CHAT = Format("chat.completions", OPENAI, _read_chat, _whole_chat, _chat_events, in_stream_error)
COMPLETIONS = Format("completions", OPENAI, _read_completion, _whole_completion, _completion_events, in_stream_error)
EMBEDDINGS = Format("embeddings", OPENAI, _read_embeddings, _whole_embeddings)
