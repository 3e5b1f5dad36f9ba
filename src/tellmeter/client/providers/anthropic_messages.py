"""Anthropic's Messages API: what an Ask is there, and what its answers and events say.

Source: platform.claude.com/docs, Messages API, API versions 2023-06-01 and 2026-10-21.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from ...errors import ConfigError
from ..ask import Ask
from ..response import ToolCall
from . import parts
from .base import Delta

# The API demands a limit. Every model allows this one, and the SDK does not call it too long to wait for.
MAX_TOKENS = 4096
# API version 2026-10-21, which the SDK asks for since 2.0, refuses these; the version before has them, and leaves it to
# the model: those up to Claude 4.6 take them.
_SAMPLING = frozenset({"temperature", "top_p", "top_k"})
_SAMPLING_VERSION = {"anthropic-version": "2023-06-01"}
_CHOICES = {"auto": "auto", "none": "none", "required": "any", "function": "tool"}
# What is given twice is put together, an argument of `extra` before ours.
_JOINED = ("output_config", "extra_body", "extra_headers")
_NOT_IN_IDS = re.compile(r"[^a-zA-Z0-9_-]")


def arguments(ask: Ask, known: Collection[str]) -> dict[str, Any]:
    """The arguments of `messages.create`, of which `known` are those that it has; others go into the body as they are.

    `max_tokens` is `MAX_TOKENS` where nothing is asked. `temperature` and `top_p` go with API version 2023-06-01, the
    last one that has them. A json_schema is the API's own structured output; a json_object, which it does not have, is
    asked for in the system prompt. Messages of system and developer make the system prompt, wherever they stand.

    Raises:
        ConfigError: `seed`, which the API has no place for, or messages, tools or formats that are none.
    """
    parts.refuse(ask, "Anthropic", "seed")
    system, messages = _turns(ask)
    wants_json, schema = parts.read_format(ask)
    if wants_json and schema is None:
        system.append({"type": "text", "text": parts.JSON_INSTRUCTION})
    made = {
        "model": ask.model,
        "messages": messages,
        "max_tokens": MAX_TOKENS if ask.max_tokens is None else ask.max_tokens,
        "system": system or None,
        "temperature": ask.temperature,
        "top_p": ask.top_p,
        "stop_sequences": list(ask.stop) or None,
        "tools": _tools(ask) or None,
        "tool_choice": _choice(ask),
        "output_config": None if schema is None else {"format": {"type": "json_schema", "schema": schema}},
    }
    given: dict[str, Any] = {name: value for name, value in made.items() if value is not None}
    for name, value in ask.extra.items():
        joins = name in _JOINED and isinstance(value, Mapping)
        given[name] = {**given.get(name, {}), **value} if joins else value
    return _passed(given, known)


def _passed(given: dict[str, Any], known: Collection[str]) -> dict[str, Any]:
    made = parts.passed(given, known)
    if _SAMPLING & {*given, *(made.get("extra_body") or {})}:
        made["extra_headers"] = {**_SAMPLING_VERSION, **(made.get("extra_headers") or {})}
    return made


# ---------------------------------------------------------------------- messages


def _turns(ask: Ask) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The blocks of the system prompt, and the turns of user and assistant, who take turns."""
    system: list[dict[str, Any]] = []
    turns: list[dict[str, Any]] = []
    for number, message in enumerate(ask.messages):
        place, role = f"messages[{number}]", message.get("role")
        said = [_block(part, place) for part in parts.parts_of(message, place)]
        if role in ("system", "developer"):
            system += said
        elif role == "tool":
            result = {"type": "tool_result", "tool_use_id": _id(parts.answered_call(message, place))}
            parts.add_turn(turns, "user", "content", [{**result, "content": said} if said else result])
        elif role == "assistant":
            parts.add_turn(turns, "assistant", "content", said + _calls(message, place))
        else:
            parts.add_turn(turns, "user", "content", said)
    if not turns:
        raise ConfigError("messages: Anthropic needs at least one besides the system prompt that says something")
    return system, turns


def _block(part: Mapping[str, Any], place: str) -> dict[str, Any]:
    """A text goes as it is, and so does what is Anthropic's own: `cache_control`, documents, thinking to give back."""
    if part.get("type") != "image_url":
        return dict(part)
    url = parts.image_url(part, place)
    data = parts.read_data_url(url, place)
    if data is None:
        return {"type": "image", "source": {"type": "url", "url": url}}
    media_type, content = data
    source = {"type": "base64", "media_type": media_type, "data": base64.b64encode(content).decode()}
    return {"type": "image", "source": source}


def _calls(message: Mapping[str, Any], place: str) -> list[dict[str, Any]]:
    return [
        {"type": "tool_use", "id": _id(call), "name": name, "input": values}
        for call, name, values, _ in parts.calls_of(message, place)
    ]


def _id(call: str) -> str:
    """The id of a call as the API takes it; other providers' may have other characters."""
    return _NOT_IN_IDS.sub(lambda found: f"_{ord(found[0]):x}_", call)


def _tools(ask: Ask) -> list[dict[str, Any]]:
    functions, others = parts.split_tools(ask)
    made = []
    for function in functions:
        tool = {"name": function["name"], "input_schema": function["parameters"]}
        if function["description"]:
            tool["description"] = function["description"]
        if function["strict"]:
            tool["strict"] = True
        made.append(tool)
    return made + [dict(tool) for tool in others]


def _choice(ask: Ask) -> dict[str, Any] | None:
    choice, name = parts.read_choice(ask)
    if not choice:
        return None
    return {"type": _CHOICES[choice], **({"name": name} if name else {})}


# ---------------------------------------------------------------------- answers


def text_of(answer: Any) -> str:
    """The text of a `Message`, without its thinking."""
    return "".join(block.text for block in answer.content if block.type == "text")


def calls_of(answer: Any) -> tuple[ToolCall, ...]:
    """The calls of the caller's tools in a `Message`; the API's own tools have run already."""
    return tuple(
        ToolCall(block.id, block.name, parts.write_arguments(block.input))
        for block in answer.content
        if block.type == "tool_use"
    )


class EventReader:
    """What the events of one stream add, in their order."""

    def __init__(self) -> None:
        self._calls = 0
        # By the index of its block: the number of the call, and its arguments unless they came in pieces.
        self._open: dict[int, tuple[int, Any]] = {}

    def read(self, event: Any) -> Iterator[Delta]:
        """What one event adds."""
        if event.type == "content_block_start":
            yield from self._started(event.index, event.content_block)
        elif event.type == "content_block_delta":
            yield from self._added(event.index, event.delta)
        elif event.type == "content_block_stop":
            yield from self._stopped(event.index)

    def _started(self, index: int, block: Any) -> Iterator[Delta]:
        if block.type == "text" and block.text:
            yield Delta(text=block.text)
        elif block.type == "thinking" and block.thinking:
            yield Delta(reasoning=block.thinking)
        elif block.type == "tool_use":
            self._open[index] = self._calls, block.input
            yield Delta(tool_index=self._calls, tool=ToolCall(block.id, block.name, ""))
            self._calls += 1

    def _added(self, index: int, delta: Any) -> Iterator[Delta]:
        if delta.type == "text_delta" and delta.text:
            yield Delta(text=delta.text)
        elif delta.type == "thinking_delta" and delta.thinking:
            yield Delta(reasoning=delta.thinking)
        elif delta.type == "input_json_delta" and delta.partial_json and index in self._open:
            number, _ = self._open[index]
            self._open[index] = number, None
            yield Delta(tool_index=number, tool=ToolCall("", "", delta.partial_json))

    def _stopped(self, index: int) -> Iterator[Delta]:
        """Some servers say the arguments at once, where the block starts; and a call may have none."""
        number, values = self._open.pop(index, (0, None))
        if values is not None:
            yield Delta(tool_index=number, tool=ToolCall("", "", parts.write_arguments(values)))
