"""Anthropic's messages and count_tokens, as recorded in 2024 to 2026."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from typing import Any

import msgspec

from .answer import Answer, Ask, Event, Tool, Usage, new_id
from .formats import (
    Format,
    MarkedPrompt,
    Provider,
    Refused,
    encode,
    is_unknown,
    model_of,
    retry_headers,
    sse,
    text_of,
    whole_number,
)
from .words import cut, grouped

_STOPS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}
_CALL_TOKENS = 7
_PING = Event(sse(b'{"type": "ping"}', "ping"))
_LIMITS = {"requests": 4000, "input-tokens": 2_000_000, "output-tokens": 400_000, "tokens": 2_400_000}


# The provider


def _request_id(rng: random.Random) -> str:
    return new_id(rng, "req_011C", 20)


def _headers(ask: Ask, request_id: str, milliseconds: int) -> dict[str, str]:
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    used = {"requests": 1, "input-tokens": ask.tokens, "tokens": ask.tokens}
    limits = {}
    for name, most in _LIMITS.items():
        limits[f"anthropic-ratelimit-{name}-limit"] = str(most)
        limits[f"anthropic-ratelimit-{name}-remaining"] = str(most - used.get(name, 0))
        limits[f"anthropic-ratelimit-{name}-reset"] = now
    return {
        **limits,
        "anthropic-organization-id": "00000000-0000-4000-8000-000000000000",
        "request-id": request_id,
        "x-envoy-upstream-service-time": str(milliseconds),
    }


def _error_headers(refused: Refused, request_id: str) -> dict[str, str]:
    retry = refused.status in {408, 409, 429} or refused.status >= 500
    return {"request-id": request_id, "x-should-retry": "true" if retry else "false", **retry_headers(refused)}


# Status -> type and message. Types are the API's, the messages our own.
_ERRORS = {
    400: ("invalid_request_error", "The simulator was told to refuse this request."),
    401: ("authentication_error", "invalid x-api-key"),
    403: ("permission_error", "This key may not use the resource."),
    404: ("not_found_error", "Not found"),
    413: ("request_too_large", "The request is larger than the API takes."),
    429: ("rate_limit_error", "This request would exceed your rate limit. Please try again later."),
    500: ("api_error", "Internal server error"),
    504: ("timeout_error", "The request timed out."),
    529: ("overloaded_error", "Overloaded"),
}
_CODES = {
    "context_length_exceeded": "prompt is too long: more tokens than the maximum",
    "insufficient_quota": "Your credit balance is too low to access the API.",
}


def _explain(status: int, code: str | None) -> Refused:
    usual = _ERRORS.get(status, _ERRORS[500] if status >= 500 else _ERRORS[400])[1]
    return Refused(status, _CODES.get(code or "", usual), code=code)


def _error(refused: Refused, request_id: str) -> dict[str, Any]:
    kind = _ERRORS.get(refused.status, _ERRORS[500] if refused.status >= 500 else _ERRORS[400])[0]
    return {"type": "error", "error": {"type": kind, "message": refused.message}, "request_id": request_id}


ANTHROPIC = Provider(
    "anthropic", _request_id, _headers, _error_headers, lambda refused, i: encode(_error(refused, i)), _explain
)


# Requests


def _read_prompt(body: dict[str, Any]) -> Ask:
    model = model_of(body)
    if is_unknown(model):
        raise Refused(404, f"model: {model}")
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise Refused(400, "messages: Field required")
    prompt = MarkedPrompt()
    for tool in body.get("tools") or ():
        prompt.add(encode({key: value for key, value in tool.items() if key != "cache_control"}).decode())
        prompt.mark(tool.get("cache_control"))
    for number, message in enumerate([{"role": "user", "content": body.get("system") or []}, *messages]):
        if not isinstance(message, dict) or message.get("role") not in {"user", "assistant", "system"}:
            raise Refused(400, f"messages.{number - 1}: Input does not match the expected shape.")
        content = message.get("content") or ""
        for block in content if isinstance(content, list) else [content]:
            prompt.add(text_of(block))
            prompt.mark(block.get("cache_control") if isinstance(block, dict) else None)
    prompt.mark(body.get("cache_control"))
    choice = body.get("tool_choice") or {"type": "auto"}
    last = messages[-1].get("content")
    thinking = body.get("thinking") or {}
    thinks = thinking.get("type") in {"enabled", "adaptive"}
    return Ask(
        model=model,
        stream=bool(body.get("stream")),
        prompt=prompt.text(),
        messages=len(messages),
        marks=prompt.marks,
        for_an_hour=prompt.for_an_hour,
        tools=[Tool(t["name"], t["input_schema"]) for t in body.get("tools") or () if "input_schema" in t],
        tool_choice=str({"any": "required", "tool": choice.get("name")}.get(choice["type"], choice["type"])),
        parallel=not choice.get("disable_parallel_tool_use"),
        answers_tool=isinstance(last, list)
        and any(b.get("type") == "tool_result" for b in last if isinstance(b, dict)),
        schema=_schema(body),
        thinks=thinks,
        shows_thoughts=thinks,
        body=body,
    )


def _schema(body: dict[str, Any]) -> Any:
    wanted = (body.get("output_config") or {}).get("format") or body.get("output_format") or {}
    return wanted.get("schema")


def _read(body: dict[str, Any]) -> Ask:
    ask = _read_prompt(body)
    ask.limit = whole_number(body, "max_tokens")
    if ask.limit is None:
        raise Refused(400, "max_tokens: Field required")
    return ask


def _read_to_count(body: dict[str, Any]) -> Ask:
    ask = _read_prompt(body)
    ask.limit, ask.marks = 0, []  # nothing is said, nothing is cached
    return ask


# Answers


def _usage(answer: Answer, usage: Usage, output: int | None = None) -> dict[str, Any]:
    """Token counts; Anthropic states input without what was read from or written to the cache."""
    hour = answer.ask.for_an_hour
    return {
        "input_tokens": usage.input - usage.cached - usage.written,
        "cache_creation_input_tokens": usage.written,
        "cache_read_input_tokens": usage.cached,
        "cache_creation": {
            "ephemeral_5m_input_tokens": 0 if hour else usage.written,
            "ephemeral_1h_input_tokens": usage.written if hour else 0,
        },
        "output_tokens": usage.output if output is None else output,
        **({"output_tokens_details": {"thinking_tokens": usage.reasoning}} if usage.reasoning and not output else {}),
        "service_tier": "standard",
        "inference_geo": "not_available",
    }


def _message(answer: Answer) -> dict[str, Any]:
    return {
        "model": answer.model,
        "id": answer.new_id("msg_01", 22),
        "type": "message",
        "role": "assistant",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "stop_details": None,
    }


def _tool_use(answer: Answer, name: str, given: Any) -> dict[str, Any]:
    return {
        "type": "tool_use",
        "id": answer.new_id("toolu_01", 22),
        "name": name,
        "input": given,
        "caller": {"type": "direct"},
    }


def _whole(answer: Answer) -> bytes:
    choice = answer.choice
    content: list[dict[str, Any]] = []
    if answer.thoughts:
        signature = answer.new_id("Eo", 86) + "=="
        content.append({"type": "thinking", "thinking": "".join(answer.thoughts), "signature": signature})
    if choice.text:
        content.append({"type": "text", "text": "".join(choice.text)})
    content += [_tool_use(answer, call.name, msgspec.json.decode(call.arguments)) for call in choice.calls]
    body = {**_message(answer), "content": content, "stop_reason": _STOPS[choice.finish]}
    if answer.usage is not None:
        body["usage"] = _usage(answer, answer.usage)
    return encode(body)


def _events(answer: Answer) -> Iterator[Event]:
    choice, usage, rng = answer.choice, answer.usage, answer.rng

    def event(data: dict[str, Any], tokens: int = 0, *, ends: bool = False) -> Event:
        body = encode(data)
        # The real service pads before the last brace, so that a body's size does not tell its text.
        return Event(sse(body[:-1] + b" " * rng.randrange(16) + b"}", data["type"]), tokens, ends)

    def block(
        index: int, start: dict[str, Any], deltas: list[tuple[dict[str, Any], int]], first: int
    ) -> Iterator[Event]:
        yield event({"type": "content_block_start", "index": index, "content_block": start}, first)
        if not index:
            yield _PING
        for delta, tokens in deltas:
            yield event({"type": "content_block_delta", "index": index, "delta": delta}, tokens)
        yield event({"type": "content_block_stop", "index": index})

    start = _message(answer)
    if usage is not None:
        start["usage"] = _usage(answer, usage, output=min(3, usage.output))
    yield event({"type": "message_start", "message": start})
    index = 0
    if answer.thoughts:
        deltas = _grouped(answer, answer.thoughts, "thinking_delta", "thinking")
        deltas.append(({"type": "signature_delta", "signature": answer.new_id("Eo", 86) + "=="}, 0))
        yield from block(index, {"type": "thinking", "thinking": "", "signature": ""}, deltas, 0)
        index += 1
    if choice.text:
        deltas = _grouped(answer, choice.text, "text_delta", "text")
        yield from block(index, {"type": "text", "text": ""}, deltas, 0)
        index += 1
    for call in choice.calls:
        deltas = [({"type": "input_json_delta", "partial_json": ""}, 0)]
        deltas += [({"type": "input_json_delta", "partial_json": piece}, 1) for piece in cut(call.arguments)]
        yield from block(index, _tool_use(answer, call.name, {}), deltas, _CALL_TOKENS)
        index += 1
    delta = {"stop_reason": _STOPS[choice.finish], "stop_sequence": None, "stop_details": None}
    end: dict[str, Any] = {"type": "message_delta", "delta": delta}
    if usage is not None:
        stated = _usage(answer, usage)
        end["usage"] = {key: value for key, value in stated.items() if "token" in key}
    yield event(end)
    yield event({"type": "message_stop"}, ends=True)


def _grouped(answer: Answer, said: list[str], kind: str, key: str) -> list[tuple[dict[str, Any], int]]:
    """Deltas of one to six tokens each, as this provider sends them."""
    return [({"type": kind, key: "".join(group)}, len(group)) for group in grouped(said, 6, answer.rng)]


def _failure(answer: Answer, sent: int) -> list[Event]:
    return [Event(sse(_error(_explain(529, None), answer.new_id("req_011C", 20)), "error"))]


MESSAGES = Format("messages", ANTHROPIC, _read, _whole, _events, _failure)
COUNT_TOKENS = Format(
    "messages.count_tokens",
    ANTHROPIC,
    _read_to_count,
    lambda answer: encode({"input_tokens": answer.ask.tokens}),
    is_free=True,
)
