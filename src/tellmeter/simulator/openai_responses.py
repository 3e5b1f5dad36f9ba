"""OpenAI's Responses API, as recorded in 2025 and 2026."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any

import msgspec

from .answer import Answer, Ask, Event, Usage
from .formats import Format, Refused, encode, is_unknown, model_of, sse, text_of, whole_number
from .openai_formats import OPENAI, error, explain, read_choice, read_tools
from .traffic import family_of
from .words import cut

_CALL_TOKENS = 7
# What a response says of the request, with the value where the request says nothing.
_ECHOED: dict[str, Any] = {
    "background": False,
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "prompt_cache_key": None,
    "safety_identifier": None,
    "store": True,
    "temperature": 1.0,
    "text": {"format": {"type": "text"}, "verbosity": "medium"},
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": 0,
    "top_p": 1.0,
    "truncation": "disabled",
    "user": None,
    "metadata": {},
}


def _read(body: dict[str, Any]) -> Ask:
    model = model_of(body)
    if is_unknown(model):  # this API says so with a 400
        message = f"The requested model '{model}' does not exist."
        raise Refused(400, message, code="model_not_found", param="model")
    given = body.get("input")
    if not isinstance(given, str | list) or not given:
        message = "Missing required parameter: 'input'."
        raise Refused(400, message, code="missing_required_parameter", param="input")
    items = given if isinstance(given, list) else [given]
    wanted = (body.get("text") or {}).get("format") or {}
    schema = wanted.get("schema")
    if schema is None and wanted.get("type") == "json_object":
        schema = {"properties": {"answer": {"type": "string"}}}
    tools = body.get("tools")
    reasoning = body.get("reasoning") or {}
    last = items[-1]
    return Ask(
        model=model,
        stream=bool(body.get("stream")),
        prompt="\n".join(
            [encode(tools).decode() if tools else "", text_of(body.get("instructions")), *map(text_of, items)]
        ),
        messages=len(items),
        tools=read_tools(tools),
        tool_choice=read_choice(body.get("tool_choice")),
        parallel=body.get("parallel_tool_calls") is not False,
        answers_tool=isinstance(last, dict) and last.get("type") == "function_call_output",
        schema=schema,
        limit=whole_number(body, "max_output_tokens"),
        thinks=family_of(model).reasons and reasoning.get("effort") != "none",
        shows_thoughts=bool(reasoning.get("summary")),
        body=body,
    )


def _usage(usage: Usage | None) -> dict[str, Any] | None:
    if usage is None:
        return None
    return {
        "input_tokens": usage.input,
        "input_tokens_details": {"cached_tokens": usage.cached},
        "output_tokens": usage.output,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning},
        "total_tokens": usage.input + usage.output,
    }


class _Ids:
    """The ids of one response and its parts, which share their tail as the real ones do."""

    def __init__(self, answer: Answer) -> None:
        self._tail = answer.new_id("", 36).lower()
        self._number = count()
        self.response = f"resp_0{self._tail}{0:012x}"

    def next(self, prefix: str) -> str:
        return f"{prefix}_0{self._tail}{next(self._number) + 1:012x}"


def _response(answer: Answer, ids: _Ids, status: str, **known: Any) -> dict[str, Any]:
    body = answer.ask.body
    reasoning = body.get("reasoning") or {}
    effort = reasoning.get("effort") or ("medium" if answer.ask.thinks else None)
    return {
        "id": ids.response,
        "object": "response",
        "created_at": answer.created,
        "status": status,
        "error": None,
        "incomplete_details": None,
        "model": answer.model,
        "output": [],
        **{key: default if body.get(key) is None else body[key] for key, default in _ECHOED.items()},
        "tools": [{"strict": True, **tool} for tool in body.get("tools") or ()],
        "reasoning": {"effort": effort, "summary": reasoning.get("summary")},
        "service_tier": "default" if status != "in_progress" else "auto",
        "usage": None,
        **known,
    }


def _final(answer: Answer, ids: _Ids, output: list[dict[str, Any]]) -> dict[str, Any]:
    cut_off = answer.choice.finish == "length"
    return _response(
        answer,
        ids,
        "incomplete" if cut_off else "completed",
        output=output,
        usage=_usage(answer.usage),
        incomplete_details={"reason": "max_output_tokens"} if cut_off else None,
    )


def _thoughts(answer: Answer, item_id: str, text: str) -> dict[str, Any]:
    return {"id": item_id, "type": "reasoning", "summary": [{"type": "summary_text", "text": text}] if text else []}


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "annotations": [], "logprobs": [], "text": text}


def _message(item_id: str, status: str, *parts: dict[str, Any]) -> dict[str, Any]:
    return {"id": item_id, "type": "message", "status": status, "content": list(parts), "role": "assistant"}


def _call(item_id: str, call_id: str, name: str, arguments: str, status: str) -> dict[str, Any]:
    return {
        "id": item_id,
        "type": "function_call",
        "status": status,
        "arguments": arguments,
        "call_id": call_id,
        "name": name,
    }


def _whole(answer: Answer) -> bytes:
    ids = _Ids(answer)
    choice = answer.choice
    output = []
    if answer.ask.thinks:
        output.append(_thoughts(answer, ids.next("rs"), "".join(answer.thoughts)))
    output += [
        _call(ids.next("fc"), answer.new_id("call_", 24), call.name, call.arguments, "completed")
        for call in choice.calls
    ]
    if choice.text:
        status = "incomplete" if choice.finish == "length" else "completed"
        output.append(_message(ids.next("msg"), status, _part("".join(choice.text))))
    return msgspec.json.format(encode(_final(answer, ids, output)), indent=2)


def _events(answer: Answer) -> Iterator[Event]:
    ids = _Ids(answer)
    numbers = count()
    output: list[dict[str, Any]] = []

    def event(kind: str, tokens: int = 0, *, ends: bool = False, **fields: Any) -> Event:
        return Event(sse({"type": kind, "sequence_number": next(numbers), **fields}, kind), tokens, ends)

    for status in ("created", "in_progress"):
        yield event(f"response.{status}", response=_response(answer, ids, "in_progress"))
    if answer.ask.thinks:
        yield from _thought_events(answer, event, ids, output)
    for call in answer.choice.calls:
        yield from _call_events(answer, event, ids, output, call.name, call.arguments)
    if answer.choice.text:
        yield from _text_events(answer, event, ids, output)
    final = _final(answer, ids, output)
    yield event(f"response.{final['status']}", ends=True, response=final)


def _thought_events(answer: Answer, event: Any, ids: _Ids, output: list[dict[str, Any]]) -> Iterator[Event]:
    item = ids.next("rs")
    at = {"output_index": len(output)}
    yield event("response.output_item.added", item=_thoughts(answer, item, ""), **at)
    text = "".join(answer.thoughts)
    if text:
        where = {"item_id": item, **at, "summary_index": 0}
        part = {"type": "summary_text", "text": ""}
        yield event("response.reasoning_summary_part.added", part=part, **where)
        for piece in answer.thoughts:
            yield event("response.reasoning_summary_text.delta", 1, delta=piece, **where)
        yield event("response.reasoning_summary_text.done", text=text, **where)
        yield event("response.reasoning_summary_part.done", part={**part, "text": text}, **where)
    output.append(_thoughts(answer, item, text))
    silent = 0 if text or answer.usage is None else answer.usage.reasoning
    yield event("response.output_item.done", silent, item=output[-1], **at)


def _call_events(
    answer: Answer, event: Any, ids: _Ids, output: list[dict[str, Any]], name: str, arguments: str
) -> Iterator[Event]:
    item, call_id = ids.next("fc"), answer.new_id("call_", 24)
    at = {"output_index": len(output)}
    yield event("response.output_item.added", _CALL_TOKENS, item=_call(item, call_id, name, "", "in_progress"), **at)
    for piece in cut(arguments):
        yield event("response.function_call_arguments.delta", 1, delta=piece, item_id=item, **at)
    yield event("response.function_call_arguments.done", arguments=arguments, name=name, item_id=item, **at)
    output.append(_call(item, call_id, name, arguments, "completed"))
    yield event("response.output_item.done", item=output[-1], **at)


def _text_events(answer: Answer, event: Any, ids: _Ids, output: list[dict[str, Any]]) -> Iterator[Event]:
    item = ids.next("msg")
    at = {"output_index": len(output)}
    where = {"item_id": item, **at, "content_index": 0}
    yield event("response.output_item.added", item=_message(item, "in_progress"), **at)
    yield event("response.content_part.added", part=_part(""), **where)
    for piece in answer.choice.text:
        yield event("response.output_text.delta", 1, delta=piece, logprobs=[], **where)
    text = "".join(answer.choice.text)
    yield event("response.output_text.done", text=text, logprobs=[], **where)
    yield event("response.content_part.done", part=_part(text), **where)
    output.append(_message(item, "incomplete" if answer.choice.finish == "length" else "completed", _part(text)))
    yield event("response.output_item.done", item=output[-1], **at)


def _failure(answer: Answer, sent: int) -> list[Event]:
    said = error(explain(500, "server_error"))
    short = {"code": said["code"], "message": said["message"]}
    failed = _response(answer, _Ids(answer), "failed", error=short)
    return [
        Event(sse({"type": "error", "sequence_number": sent, "error": said}, "error")),
        Event(sse({"type": "response.failed", "sequence_number": sent + 1, "response": failed}, "response.failed")),
    ]


RESPONSES = Format("responses", OPENAI, _read, _whole, _events, _failure)
