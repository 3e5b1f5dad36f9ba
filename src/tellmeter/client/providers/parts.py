"""OpenAI-style messages, tools and formats read part by part, for the mappings of providers that have their own shape.

Nothing here knows a provider. What is wrong with a message is told by its place, never by what it says.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any
from urllib.parse import unquote_to_bytes

from ...errors import ConfigError
from ..ask import Ask

# What a model without a JSON mode is told instead.
JSON_INSTRUCTION = "Answer with one valid JSON object and nothing else: no explanation, no Markdown."
_NO_PARAMETERS: Mapping[str, Any] = {"type": "object", "properties": {}}


def refuse(ask: Ask, provider: str, *names: str) -> None:
    """Refuse the fields of `ask` that the provider has no place for.

    Raises:
        ConfigError: one of `names` is given.
    """
    for name in names:
        if getattr(ask, name) is not None:
            raise ConfigError(
                f"{name}: {provider} has no place for it; leave it out, or give what it has in raw_params={{...}}"
            )


def parts_of(message: Mapping[str, Any], place: str) -> list[Mapping[str, Any]]:
    """The content of a message as parts. Blank texts are left out: they say nothing, and providers refuse them.

    Raises:
        ConfigError: the content is neither a text, None, nor a list of parts; or a text part has no text.
    """
    content = message.get("content")
    if content is None:
        return []
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    if not isinstance(content, Sequence) or not all(isinstance(part, Mapping) for part in content):
        raise ConfigError(f"{place}: its content must be a text, None or a list of parts (dicts)")
    if not all(isinstance(part.get("text"), str) for part in content if part.get("type") == "text"):
        raise ConfigError(f'{place}: a text part is needed as {{"type": "text", "text": ...}}')
    return [part for part in content if part.get("type") != "text" or part["text"].strip()]


def image_url(part: Mapping[str, Any], place: str) -> str:
    """The URL of an `image_url` part.

    Raises:
        ConfigError: there is none.
    """
    given = part.get("image_url")
    url = given.get("url") if isinstance(given, Mapping) else given
    if not isinstance(url, str) or not url:
        raise ConfigError(f'{place}: an image is needed as {{"type": "image_url", "image_url": {{"url": ...}}}}')
    return url


def read_data_url(url: str, place: str) -> tuple[str, bytes] | None:
    """Media type and content of a `data:` URL (RFC 2397); None for every other URL.

    Raises:
        ConfigError: it has no comma, or what should be base64 is not.
    """
    if url[:5].lower() != "data:":
        return None
    head, comma, data = url[5:].partition(",")
    if not comma:
        raise ConfigError(f"{place}: a data URL is needed as data:<media type>;base64,<base64>")
    media_type, *parameters = head.split(";")
    content = unquote_to_bytes(data)
    if "base64" in (parameter.strip().lower() for parameter in parameters):
        try:
            content = base64.b64decode(b"".join(content.split()), validate=True)
        except binascii.Error:
            raise ConfigError(f"{place}: the content of the data URL is no base64") from None
    return media_type.strip().lower() or "text/plain", content


def calls_of(message: Mapping[str, Any], place: str) -> list[tuple[str, str, dict[str, Any], Mapping[str, Any]]]:
    """The tool calls of an assistant's message: id, name, arguments, and the call as it was given.

    Raises:
        ConfigError: a call without an id, or without the name of a function.
    """
    found = []
    for number, call in enumerate(message.get("tool_calls") or ()):
        function = call.get("function") if isinstance(call, Mapping) else None
        if not isinstance(function, Mapping) or not function.get("name") or not call.get("id"):
            raise ConfigError(
                f"{place}.tool_calls[{number}]: a call is needed as "
                '{"id": ..., "type": "function", "function": {"name": ..., "arguments": "{...}"}}'
            )
        found.append((str(call["id"]), str(function["name"]), read_arguments(function.get("arguments")), call))
    return found


def answered_call(message: Mapping[str, Any], place: str) -> str:
    """The id of the call that a tool's message answers.

    Raises:
        ConfigError: it does not say.
    """
    call = message.get("tool_call_id")
    if not isinstance(call, str) or not call:
        raise ConfigError(f"{place}: a tool's message needs the tool_call_id of the call that it answers")
    return call


def read_arguments(arguments: Any) -> dict[str, Any]:
    """The arguments of a tool call as an object, from their JSON.

    What a model wrote may be broken: such a text stands as it is under "arguments", so that the model sees what it did.
    """
    if isinstance(arguments, Mapping):
        return dict(arguments)
    try:
        value = json.loads(arguments or "{}")
    except (TypeError, ValueError, RecursionError):
        value = arguments
    return value if isinstance(value, dict) else {"arguments": value}


def write_arguments(arguments: Any) -> str:
    """The arguments of a tool call as JSON, from an SDK's object."""
    return json.dumps(arguments if arguments is not None else {}, ensure_ascii=False)


def split_tools(ask: Ask) -> tuple[list[dict[str, Any]], list[Mapping[str, Any]]]:
    """The functions among the tools, and the tools that are the provider's own.

    A function has its name, description ("" without one), parameters and strict.

    Raises:
        ConfigError: a tool that is no dict, or a function without a name.
    """
    functions: list[dict[str, Any]] = []
    others: list[Mapping[str, Any]] = []
    for number, tool in enumerate(ask.tools):
        if isinstance(tool, Mapping) and tool.get("type") != "function":
            others.append(tool)
            continue
        function = tool.get("function") if isinstance(tool, Mapping) else None
        if not isinstance(function, Mapping) or not function.get("name"):
            raise ConfigError(
                f'tools[{number}]: a tool is needed as {{"type": "function", "function": '
                '{"name": ..., "description": ..., "parameters": {a JSON schema}}}'
            )
        functions.append(
            {
                "name": function["name"],
                "description": function.get("description") or "",
                "parameters": function.get("parameters") or _NO_PARAMETERS,
                "strict": bool(function.get("strict")),
            }
        )
    return functions, others


def read_choice(ask: Ask) -> tuple[str, str]:
    """The tool choice: "auto", "none", "required" or "function", and the function's name; "" without a choice.

    Raises:
        ConfigError: it is none of them.
    """
    choice = ask.tool_choice
    if choice is None:
        return "", ""
    if isinstance(choice, str) and choice in ("auto", "none", "required"):
        return choice, ""
    function = choice.get("function") if isinstance(choice, Mapping) else None
    if not isinstance(function, Mapping) or not function.get("name"):
        raise ConfigError(
            'tool_choice: it must be "auto", "none", "required" or {"type": "function", "function": {"name": ...}}'
        )
    return "function", str(function["name"])


def read_format(ask: Ask) -> tuple[bool, Mapping[str, Any] | None]:
    """Whether JSON is wanted, and its schema, where there is one.

    Raises:
        ConfigError: a format that is not known, or a schema that is missing.
    """
    given = ask.response_format
    kind = given.get("type") if given is not None else "text"
    if kind in ("text", "json_object"):
        return kind == "json_object", None
    described = given.get("json_schema") if given is not None and kind == "json_schema" else None
    schema = described.get("schema") if isinstance(described, Mapping) else None
    if not isinstance(schema, Mapping):
        raise ConfigError(
            'response_format: it must be {"type": "json_object"} or '
            '{"type": "json_schema", "json_schema": {"name": ..., "schema": {a JSON schema}}}'
        )
    return True, schema


def add_turn(turns: list[dict[str, Any]], role: str, key: str, parts: list[Any]) -> None:
    """Add what a role says under `key`: to the last turn if that is its own, and nothing if it says nothing."""
    if parts and turns and turns[-1]["role"] == role:
        turns[-1][key].extend(parts)
    elif parts:
        turns.append({"role": role, key: parts})


def passed(given: Mapping[str, Any], known: Collection[str]) -> dict[str, Any]:
    """The arguments of an SDK's method that it knows; the others go into the body as they are, by `extra_body`."""
    made = {name: value for name, value in given.items() if name in known}
    others = {name: value for name, value in given.items() if name not in known}
    if others:
        made["extra_body"] = {**others, **(made.get("extra_body") or {})}
    return made
