"""Converse of Amazon Bedrock: what an Ask is there, and what its answers and events say.

https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html and ..._ConverseStream.html
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from ...errors import ConfigError
from ..ask import Ask
from ..response import ToolCall
from . import parts
from .base import Delta, Reply

Block = dict[str, Any]

_IMAGES = {"image/png": "png", "image/jpeg": "jpeg", "image/jpg": "jpeg", "image/gif": "gif", "image/webp": "webp"}
_CHOICES = {"auto": "auto", "required": "any", "function": "tool"}
_NOT_IN_IDS = re.compile(r"[^a-zA-Z0-9_.:-]")


def request_of(ask: Ask) -> dict[str, Any]:
    """The arguments of boto3's `converse` and `converse_stream`.

    A part of a message, or a tool, without a `type` is Converse's own, as `{"cachePoint": {"type": "default"}}`, and
    passes as it is. A json_schema is Converse's own structured output; a json_object, which it does not have, is asked
    for in the system prompt. `extra` goes over all that, inside of dicts too.

    Raises:
        ConfigError: something that Converse has no place for, or messages, tools or formats that are none.
    """
    parts.refuse(ask, "Converse", "seed")
    system, messages = _conversation(ask)
    wants_json, schema = parts.read_format(ask)
    if wants_json and schema is None:
        system.append({"text": parts.JSON_INSTRUCTION})
    limits = {
        "maxTokens": ask.max_tokens,
        "temperature": ask.temperature,
        "topP": ask.top_p,
        "stopSequences": list(ask.stop) or None,
    }
    made = {
        "modelId": ask.model,
        "messages": messages,
        "system": system,
        "inferenceConfig": {name: value for name, value in limits.items() if value is not None},
        "toolConfig": _tools(ask),
        "outputConfig": {} if schema is None else _output(schema, ask.response_format or {}),
    }
    request = _merged({name: value for name, value in made.items() if value}, ask.extra)
    if "toolConfig" not in request and any(_is_of_tools(block) for one in messages for block in one["content"]):
        raise ConfigError(
            'tools: Converse wants them where the messages have tool calls or results, and has no tool_choice "none" '
            'then (with Claude, raw_params={"additionalModelRequestFields": {"tool_choice": {"type": "none"}}} is one)'
        )
    return request


def _conversation(ask: Ask) -> tuple[list[Block], list[dict[str, Any]]]:
    """The blocks of the system prompt, and the turns of user and assistant, who take turns."""
    system: list[Block] = []
    turns: list[dict[str, Any]] = []
    for number, message in enumerate(ask.messages):
        place, role = f"messages[{number}]", message.get("role")
        said = [block for part in parts.parts_of(message, place) for block in _blocks(part, place)]
        if role in ("system", "developer"):
            if any("image" in block for block in said):
                raise ConfigError(f"{place}: Converse takes no images from the system; give them to the user")
            system += said
        elif role == "tool":
            result = {"toolUseId": _id(parts.answered_call(message, place)), "content": said}
            parts.add_turn(turns, "user", "content", [{"toolResult": result}])
        elif role == "assistant":
            calls = [
                {"toolUse": {"toolUseId": _id(call), "name": name, "input": values}}
                for call, name, values, _ in parts.calls_of(message, place)
            ]
            parts.add_turn(turns, "assistant", "content", said + calls)
        else:
            parts.add_turn(turns, "user", "content", said)
    if not turns or turns[0]["role"] != "user":
        raise ConfigError("messages: Converse wants the user to speak first, and to say something")
    return system, turns


def _blocks(part: Mapping[str, Any], place: str) -> list[Block]:
    kind = part.get("type")
    if kind is None:
        return [dict(part)]
    if kind == "refusal":
        return [{"text": part[kind]}] if part.get(kind) else []
    if kind == "text":
        block: Block = {"text": part[kind]}
    elif kind == "image_url":
        block = {"image": _image(part, place)}
    else:
        raise ConfigError(
            f"{place}: Converse knows no part of type {kind!r}; beside 'text' and 'image_url', give what it has in its "
            'own shape, without a type, as {"document": {...}}'
        )
    # How Claude's own API is told to cache.
    return [block, {"cachePoint": {"type": "default"}}] if part.get("cache_control") else [block]


def _image(part: Mapping[str, Any], place: str) -> Block:
    data = parts.read_data_url(parts.image_url(part, place), place)
    if data is None:
        raise ConfigError(f"{place}: Converse takes no URLs of images; give the image, as data:image/png;base64,...")
    media_type, content = data
    if media_type not in _IMAGES:
        raise ConfigError(f"{place}: Converse takes images as png, jpeg, gif or webp, not as {media_type}")
    return {"format": _IMAGES[media_type], "source": {"bytes": content}}


def _id(call: str) -> str:
    """The id of a call as Converse takes it; other providers' may have other characters."""
    return _NOT_IN_IDS.sub(lambda found: f"_{ord(found[0]):x}_", call)


def _tools(ask: Ask) -> dict[str, Any]:
    functions, others = parts.split_tools(ask)
    choice, name = parts.read_choice(ask)
    if not ask.tools or choice == "none":
        return {}
    tools: list[Block] = []
    for function in functions:
        spec = {"name": function["name"], "inputSchema": {"json": function["parameters"]}}
        spec |= {name: function[name] for name in ("description", "strict") if function[name]}
        tools.append({"toolSpec": spec})
    made: dict[str, Any] = {"tools": tools + [dict(tool) for tool in others]}
    if choice:
        made["toolChoice"] = {_CHOICES[choice]: {"name": name} if name else {}}
    return made


def _output(schema: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    named = {name: given["json_schema"][name] for name in ("name", "description") if given["json_schema"].get(name)}
    structure = {"jsonSchema": {**named, "schema": msgspec.json.encode(schema).decode()}}
    return {"textFormat": {"type": "json_schema", "structure": structure}}


def _merged(made: Mapping[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    whole = dict(made)
    for name, value in extra.items():
        inner = whole.get(name)
        both = isinstance(value, Mapping) and isinstance(inner, Mapping)
        whole[name] = _merged(inner, value) if both else value  # type: ignore[arg-type]
    return whole


def _is_of_tools(block: Block) -> bool:
    return "toolUse" in block or "toolResult" in block


# ---------------------------------------------------------------------- answers


def reply_of(answer: Mapping[str, Any]) -> Reply:
    """The answer of `converse`, without its reasoning, and without the calls that ran at Amazon."""
    texts: list[str] = []
    calls: list[ToolCall] = []
    for block in ((answer.get("output") or {}).get("message") or {}).get("content") or ():
        cited = (block.get("citationsContent") or {}).get("content") or ()
        texts += (one["text"] for one in (block, *cited) if one.get("text"))
        call = block.get("toolUse")
        if call is not None and _is_ours(call):
            calls.append(ToolCall(call["toolUseId"], call["name"], parts.write_arguments(call.get("input"))))
    return Reply(text="".join(texts), tool_calls=tuple(calls), raw=answer)


class EventReader:
    """What the events of one `converse_stream` add, in their order."""

    def __init__(self) -> None:
        self._calls = 0
        self._open: dict[int, tuple[int, bool]] = {}  # block -> the number of its call, and whether it has arguments

    def read(self, event: Mapping[str, Any]) -> Delta | None:
        """What an event adds; None for nothing."""
        for name, read in (
            ("contentBlockDelta", self._added),
            ("contentBlockStart", self._started),
            ("contentBlockStop", self._stopped),
        ):
            if name in event:
                return read(event[name])
        return None

    def _started(self, block: Mapping[str, Any]) -> Delta | None:
        call = (block.get("start") or {}).get("toolUse")
        if call is None or not _is_ours(call):
            return None
        number, self._calls = self._calls, self._calls + 1
        self._open[block["contentBlockIndex"]] = number, False
        return Delta(tool_index=number, tool=ToolCall(call["toolUseId"], call["name"], ""))

    def _added(self, block: Mapping[str, Any]) -> Delta | None:
        delta = block.get("delta") or {}
        if text := delta.get("text"):
            return Delta(text=text)
        if reasoning := (delta.get("reasoningContent") or {}).get("text"):
            return Delta(reasoning=reasoning)
        piece = (delta.get("toolUse") or {}).get("input")
        index = block["contentBlockIndex"]
        if not piece or index not in self._open:
            return None
        number, _ = self._open[index]
        self._open[index] = number, True
        return Delta(tool_index=number, tool=ToolCall("", "", piece))

    def _stopped(self, block: Mapping[str, Any]) -> Delta | None:
        """A call may have no arguments, not even empty ones."""
        number, has_arguments = self._open.pop(block["contentBlockIndex"], (0, True))
        return None if has_arguments else Delta(tool_index=number, tool=ToolCall("", "", "{}"))


def _is_ours(call: Mapping[str, Any]) -> bool:
    return bool(call.get("type") != "server_tool_use")
