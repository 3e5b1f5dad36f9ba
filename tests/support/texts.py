"""What a recorded answer says and wants called, read from its bytes without anything of ours."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

Tools = list[tuple[str, Any]]


def text_of(exchange: Any) -> str:
    """The text of the answer."""
    return "".join(text for kind, text in _pieces(exchange) if kind == "text")


def tools_of(exchange: Any) -> Tools:
    """Names and arguments of the tool calls, in their order."""
    calls: dict[Any, list[str]] = {}
    for kind, piece in _pieces(exchange):
        if kind != "text":
            name, arguments = piece
            call = calls.setdefault(kind, ["", ""])
            call[0] = call[0] or name
            call[1] += arguments
    return [(name, value_of(arguments)) for name, arguments in calls.values()]


def value_of(arguments: str) -> Any:
    """Arguments as values; what a model wrote that is no JSON, as it is."""
    try:
        return json.loads(arguments or "{}")
    except ValueError:
        return arguments


def _pieces(exchange: Any) -> Iterator[tuple[Any, Any]]:
    """("text", a piece of it), or (which call, (its name, a piece of its arguments))."""
    read = {
        "chat.completions": _chat,
        "messages": _messages,
        "generate_content": _gemini,
        "stream_generate_content": _gemini,
        "converse": _converse,
        "converse_stream": _converse_stream,
    }[exchange.api]
    _APART.clear()
    for number, event in enumerate(_events(exchange)):
        yield from read(event, number)


def _events(exchange: Any) -> list[Any]:
    body = exchange.body
    if exchange.api == "converse_stream":
        from botocore.eventstream import EventStreamBuffer

        buffer = EventStreamBuffer()
        buffer.add_data(body)
        return [json.loads(message.payload) for message in buffer]
    text = body.decode()
    if text.lstrip().startswith(("{", "[")):
        found = json.loads(text)
        return found if isinstance(found, list) else [found]
    lines = [line[5:].strip() for line in text.splitlines() if line.startswith("data:")]
    return [json.loads(line) for line in lines if line and line != "[DONE]"]


def _said(content: Any) -> str:
    if isinstance(content, list):
        return "".join(part.get("text") or "" for part in content if part.get("type") == "text")
    return content or ""


def _chat(event: Any, number: int) -> Iterator[tuple[Any, Any]]:
    for choice in event.get("choices") or ():
        if choice.get("index"):
            continue
        message = choice.get("message" if event.get("object") == "chat.completion" else "delta") or {}
        yield "text", _said(message.get("content")) or message.get("refusal") or ""
        for position, call in enumerate(message.get("tool_calls") or ()):
            function = call.get("function") or call.get("custom") or {}
            arguments = function.get("arguments") or function.get("input") or ""
            yield call.get("index", position), (function.get("name") or "", arguments)


def _messages(event: Any, number: int) -> Iterator[tuple[Any, Any]]:
    for place, block in enumerate(event.get("content") or ()):
        if block["type"] == "text":
            yield "text", block["text"]
        elif block["type"] == "tool_use":
            yield place, (block["name"], json.dumps(block["input"]))
    block = event.get("content_block") or {}
    if block.get("type") == "text":
        yield "text", block.get("text") or ""
    if block.get("type") == "tool_use":
        yield event["index"], (block["name"], "")
        _APART.discard(event["index"])
    elif block:
        _APART.add(event["index"])
    delta = event.get("delta") or {}
    if delta.get("type") == "text_delta":
        yield "text", delta["text"]
    elif delta.get("type") == "input_json_delta" and event["index"] not in _APART:
        yield event["index"], ("", delta["partial_json"])


_APART: set[int] = set()  # blocks of the answer at hand that are calls of the provider's own tools, or no calls


def _gemini(event: Any, number: int) -> Iterator[tuple[Any, Any]]:
    for one in (event.get("candidates") or ())[:1]:
        for place, part in enumerate((one.get("content") or {}).get("parts") or ()):
            if "functionCall" in part:
                call = part["functionCall"]
                yield (number, place), (call["name"], json.dumps(call.get("args") or {}))
            elif not part.get("thought"):
                yield "text", part.get("text") or ""


def _converse(event: Any, number: int) -> Iterator[tuple[Any, Any]]:
    for place, block in enumerate(((event.get("output") or {}).get("message") or {}).get("content") or ()):
        if "text" in block:
            yield "text", block["text"]
        for part in (block.get("citationsContent") or {}).get("content") or ():
            yield "text", part.get("text") or ""
        if "toolUse" in block and block["toolUse"].get("type") != "server_tool_use":
            yield place, (block["toolUse"]["name"], json.dumps(block["toolUse"].get("input") or {}))


def _converse_stream(event: Any, number: int) -> Iterator[tuple[Any, Any]]:
    place = event.get("contentBlockIndex")
    started = (event.get("start") or {}).get("toolUse")
    if started and started.get("type") == "server_tool_use":
        _APART.add(place)
    elif started:
        yield place, (started["name"], "")
    delta = event.get("delta") or {}
    if "text" in delta:
        yield "text", delta["text"]
    elif "toolUse" in delta and place not in _APART:
        yield place, ("", delta["toolUse"].get("input") or "")
