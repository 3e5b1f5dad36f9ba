"""Converse and ConverseStream of Amazon Bedrock, as recorded in 2024 to 2026."""

from __future__ import annotations

import random
import string
import uuid
from collections.abc import Iterator
from typing import Any

import msgspec

from .answer import Answer, Ask, Event, Tool, Usage
from .aws_frames import event as aws_event
from .aws_frames import exception as aws_exception
from .formats import Format, MarkedPrompt, Provider, Refused, encode, is_unknown, retry_headers, text_of, whole_number
from .words import cut, grouped

_STOPS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}
_CHOICES = {"any": "required", "auto": "auto"}
_CALL_TOKENS = 7
_MOST_TOGETHER = 6  # tokens in an event
_PADDING = string.ascii_lowercase + string.ascii_uppercase + string.digits
_STREAM_TYPE = "application/vnd.amazon.eventstream"


# The provider


def _request_id(rng: random.Random) -> str:
    return str(uuid.UUID(int=rng.getrandbits(128), version=4))


_WRONG_KEY = ("UnrecognizedClientException", "The security token included in the request is invalid.")
# Status -> type and message. Types are the API's, the messages our own.
_ERRORS = {
    400: ("ValidationException", "The simulator was told to refuse this request."),
    401: _WRONG_KEY,
    403: ("AccessDeniedException", "You don't have access to the model with the specified model ID."),
    404: ("ResourceNotFoundException", "The resource was not found."),
    408: ("ModelTimeoutException", "The model took too long to answer."),
    424: ("ModelErrorException", "The model failed while it processed the request."),
    429: ("ThrottlingException", "Too many requests, please wait before trying again."),
    500: ("InternalServerException", "The system encountered an unexpected error during processing."),
    503: ("ServiceUnavailableException", "Bedrock is unable to process your request."),
}
# The codes of a fault, and names of exceptions that share their status with another.
_CODES = {
    "context_length_exceeded": ("ValidationException", "Input is too long for requested model."),
    "insufficient_quota": ("ServiceQuotaExceededException", "Your account has reached a quota of the service."),
    "ModelNotReadyException": ("ModelNotReadyException", "The model is not ready for inference."),
    "UnrecognizedClientException": _WRONG_KEY,
}


def _usual(status: int, code: str | None) -> tuple[str, str]:
    return _CODES.get(code or "") or _ERRORS.get(status, _ERRORS[500] if status >= 500 else _ERRORS[400])


def _explain(status: int, code: str | None) -> Refused:
    return Refused(status, _usual(status, code)[1], code=code)


def _error_headers(refused: Refused, request_id: str) -> dict[str, str]:
    name = _usual(refused.status, refused.code)[0]
    return {
        "x-amzn-requestid": request_id,
        "x-amzn-errortype": f"{name}:http://internal.amazon.com/coral/com.amazon.bedrock/",
        **retry_headers(refused),
    }


def _error_body(refused: Refused, request_id: str) -> bytes:
    return encode({"message": refused.message})


BEDROCK = Provider(
    "bedrock",
    _request_id,
    lambda ask, request_id, milliseconds: {"x-amzn-requestid": request_id},
    _error_headers,
    _error_body,
    _explain,
    bad_key=(403, "UnrecognizedClientException"),
)


# Requests


def _in_path(path: str) -> dict[str, Any]:
    """The model in `/model/<id or ARN>/<operation>`, and whether the operation streams; an ARN has slashes."""
    model, _, operation = path.partition("/model/")[2].rpartition("/")
    return {"model": model, "stream": operation == "converse-stream"}


def _read(body: dict[str, Any]) -> Ask:
    model = body["model"]
    if not model or is_unknown(model):
        raise Refused(400, "The provided model identifier is invalid.")
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise Refused(400, "The value at messages is empty: a conversation must have a message.")
    config = body.get("toolConfig") or {}
    tools = [tool["toolSpec"] for tool in config.get("tools") or () if "toolSpec" in tool]
    thinking = _thinking(body)
    prompt = _prompt(body, config.get("tools") or [], messages)
    return Ask(
        model=model,
        stream=body["stream"],
        prompt=prompt.text(),
        messages=len(messages),
        marks=prompt.marks,
        for_an_hour=prompt.for_an_hour,
        tools=[Tool(tool["name"], tool["inputSchema"].get("json") or {"type": "object"}) for tool in tools],
        tool_choice=_choice(config.get("toolChoice") or {"auto": {}}),
        answers_tool=any("toolResult" in block for block in messages[-1]["content"]),
        schema=_schema(body),
        limit=whole_number(body.get("inferenceConfig") or {}, "maxTokens"),
        thinks=thinking,
        shows_thoughts=thinking,
        body=body,
    )


def _prompt(body: dict[str, Any], tools: list[Any], messages: list[Any]) -> MarkedPrompt:
    """In the order in which a cache sees it; cache points are blocks of their own."""
    prompt = MarkedPrompt()
    system = body.get("system") or []
    for number, message in enumerate([{"role": "user", "content": [*tools, *system]}, *messages]):
        if not isinstance(message, dict) or message.get("role") not in {"user", "assistant"}:
            raise Refused(400, f"The value at messages.{number - 1}.role must be one of: user, assistant.")
        if not isinstance(message.get("content"), list):
            raise Refused(400, f"The value at messages.{number - 1}.content must be a list of blocks.")
        for block in message["content"]:
            if "cachePoint" in block:
                prompt.mark(block["cachePoint"])
            else:
                prompt.add(encode(block).decode() if "toolSpec" in block else text_of(block))
    return prompt


def _choice(choice: dict[str, Any]) -> str:
    """`{"auto": {}}`, `{"any": {}}`, or `{"tool": {"name"}}`."""
    if "tool" in choice:
        return str(choice["tool"]["name"])
    return _CHOICES[next(iter(choice))]


def _thinking(body: dict[str, Any]) -> bool:
    """Whether the model is told to reason; Anthropic's models and Amazon's own have different fields for it."""
    fields = body.get("additionalModelRequestFields") or {}
    told = [fields[name] for name in ("thinking", "reasoning_config", "reasoningConfig") if name in fields]
    return any(one.get("type") in {"enabled", "adaptive"} for one in told)


def _schema(body: dict[str, Any]) -> Any:
    wanted = (body.get("outputConfig") or {}).get("textFormat")
    return None if wanted is None else msgspec.json.decode(wanted["structure"]["jsonSchema"]["schema"])


# Answers


def _usage(answer: Answer, usage: Usage) -> dict[str, Any]:
    """Token counts; Bedrock states input without what was read from or written to a cache."""
    ttl = "1h" if answer.ask.for_an_hour else "5m"
    return {
        **({"cacheDetails": [{"inputTokens": usage.written, "ttl": ttl}]} if usage.written else {}),
        "cacheReadInputTokens": usage.cached,
        "cacheWriteInputTokens": usage.written,
        "inputTokens": usage.input - usage.cached - usage.written,
        "outputTokens": usage.output,
        "totalTokens": usage.input + usage.output,
    }


def _end(answer: Answer) -> dict[str, Any]:
    stated = {} if answer.usage is None else {"usage": _usage(answer, answer.usage)}
    return {"metrics": {"latencyMs": answer.milliseconds}, **stated}


def _signature(answer: Answer) -> str:
    return answer.new_id("Eo", 86) + "=="


def _whole(answer: Answer) -> bytes:
    choice = answer.choice
    content: list[dict[str, Any]] = []
    if answer.thoughts:
        reasoning = {"text": "".join(answer.thoughts), "signature": _signature(answer)}
        content.append({"reasoningContent": {"reasoningText": reasoning}})
    if choice.text:
        content.append({"text": "".join(choice.text)})
    for call in choice.calls:
        use = {"toolUseId": answer.new_id("tooluse_", 22), "name": call.name}
        content.append({"toolUse": {**use, "input": msgspec.json.decode(call.arguments)}})
    message = {"content": content, "role": "assistant"}
    return encode({"output": {"message": message}, "stopReason": _STOPS[choice.finish], **_end(answer)})


def _events(answer: Answer) -> Iterator[Event]:
    choice = answer.choice

    def event(name: str, fields: dict[str, Any], tokens: int = 0, *, ends: bool = False) -> Event:
        # The real service pads every event, so that its size does not tell its text.
        body = {**fields, "p": _PADDING[: answer.rng.randint(2, len(_PADDING))]}
        return Event(aws_event(name, encode(body)), tokens, ends)

    def block(index: int, deltas: list[tuple[dict[str, Any], int]]) -> Iterator[Event]:
        at = {"contentBlockIndex": index}
        for delta, tokens in deltas:
            yield event("contentBlockDelta", {**at, "delta": delta}, tokens)
        yield event("contentBlockStop", at)

    yield event("messageStart", {"role": "assistant"})
    index = 0
    if answer.thoughts:
        groups = grouped(answer.thoughts, _MOST_TOGETHER, answer.rng)
        deltas = [({"reasoningContent": {"text": "".join(group)}}, len(group)) for group in groups]
        deltas.append(({"reasoningContent": {"signature": _signature(answer)}}, 0))
        yield from block(index, deltas)
        index += 1
    if choice.text:
        groups = grouped(choice.text, _MOST_TOGETHER, answer.rng)
        yield from block(index, [({"text": "".join(group)}, len(group)) for group in groups])
        index += 1
    for call in choice.calls:
        use = {"toolUse": {"toolUseId": answer.new_id("tooluse_", 22), "name": call.name}}
        yield event("contentBlockStart", {"contentBlockIndex": index, "start": use}, _CALL_TOKENS)
        pieces = [("", 0), *((piece, 1) for piece in cut(call.arguments))]
        yield from block(index, [({"toolUse": {"input": piece}}, tokens) for piece, tokens in pieces])
        index += 1
    yield event("messageStop", {"stopReason": _STOPS[choice.finish]}, ends=True)
    yield event("metadata", _end(answer), ends=True)


def _failure(answer: Answer, sent: int) -> list[Event]:
    said = encode({"message": _ERRORS[429][1]})
    return [Event(aws_exception("throttlingException", said))]


CONVERSE = Format("converse", BEDROCK, _read, _whole, _events, _failure, in_path=_in_path, stream_type=_STREAM_TYPE)
