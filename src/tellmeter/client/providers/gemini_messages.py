"""Gemini's generateContent, of the Gemini API and of Vertex AI: what an Ask is there, and what its answers say.

Source: ai.google.dev/api/generate-content and google-genai's types (`Content`, `GenerateContentConfig`).
"""

from __future__ import annotations

import base64
import binascii
import mimetypes
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from ...errors import ConfigError
from ..ask import Ask
from ..response import ToolCall
from . import parts
from .base import Delta

_MODES = {"auto": "AUTO", "none": "NONE", "required": "ANY", "function": "ANY"}
# Gemini 3 and later refuse a call without the signature of the thought behind it, and take this one from histories that
# never had it: ai.google.dev/gemini-api/docs/thought-signatures
_NO_SIGNATURE = b"skip_thought_signature_validator"
_UNSIGNED = re.compile(r"gemini-[12]\b")


def contents_of(ask: Ask) -> tuple[list[dict[str, Any]], dict[str, Any] | None]:
    """The turns of user and model, who take turns, and the system instruction; None where there is none.

    Messages of system and developer make the instruction, wherever they stand. The result of a tool stands under
    "output". A call's `extra_content.google.thought_signature` (base64) goes along, as where Gemini speaks OpenAI's
    format. Parts without a `type` are Gemini's own and go as they are.

    Raises:
        ConfigError: messages that are none, and a tool's message that answers no call.
    """
    system: list[dict[str, Any]] = []
    turns: list[dict[str, Any]] = []
    names: dict[str, str] = {}
    for number, message in enumerate(ask.messages):
        place, role = f"messages[{number}]", message.get("role")
        said = [_part(part, place) for part in parts.parts_of(message, place)]
        if role in ("system", "developer"):
            system += said
        elif role == "tool":
            parts.add_turn(turns, "user", "parts", _result(message, said, names, place))
        elif role == "assistant":
            parts.add_turn(turns, "model", "parts", said + _calls(message, place, names, ask.model))
        else:
            parts.add_turn(turns, "user", "parts", said)
    if not turns:
        raise ConfigError("messages: Gemini needs at least one besides the system prompt that says something")
    return turns, {"parts": system} if system else None


def config_of(ask: Ask, system: Mapping[str, Any] | None) -> dict[str, Any]:
    """The fields of a `GenerateContentConfig`; those of `ask.extra` win.

    Raises:
        ConfigError: tools, tool choices or formats that are none.
    """
    wants_json, schema = parts.read_format(ask)
    made = {
        "system_instruction": system,
        "max_output_tokens": ask.max_tokens,
        "temperature": ask.temperature,
        "top_p": ask.top_p,
        "seed": ask.seed,
        "stop_sequences": list(ask.stop) or None,
        "response_mime_type": "application/json" if wants_json else None,
        "response_json_schema": schema,
        **_tools(ask),
        # What the model wants called is the caller's to call.
        "automatic_function_calling": {"disable": True},
    }
    return {name: value for name, value in made.items() if value is not None} | dict(ask.extra)


# ---------------------------------------------------------------------- messages


def _part(part: Mapping[str, Any], place: str) -> dict[str, Any]:
    kind = part.get("type")
    if kind == "text":
        return {"text": part["text"]}
    if kind == "image_url":
        url = parts.image_url(part, place)
        data = parts.read_data_url(url, place)
        if data is not None:
            return {"inline_data": {"mime_type": data[0], "data": data[1]}}
        media_type = mimetypes.guess_type(urlsplit(url).path)[0]
        return {"file_data": {"file_uri": url, **({"mime_type": media_type} if media_type else {})}}
    if kind is None:
        return dict(part)
    raise ConfigError(
        f"{place}: Gemini has no place for a part of this type; give text, image_url, or a part as Gemini "
        'has it, without a type, as {"file_data": {"file_uri": ..., "mime_type": ...}}'
    )


def _calls(message: Mapping[str, Any], place: str, names: dict[str, str], model: str) -> list[dict[str, Any]]:
    """The calls of one message, noting in `names` what each one calls."""
    made: list[dict[str, Any]] = []
    signed = "gemini" in model and not _UNSIGNED.search(model)
    for call, name, values, given in parts.calls_of(message, place):
        names[call] = name
        part: dict[str, Any] = {"function_call": {"id": call, "name": name, "args": values}}
        # Of calls made at once, the first has the signature.
        signature = _signature(given, place) or (_NO_SIGNATURE if signed and not made else None)
        if signature:
            part["thought_signature"] = signature
        made.append(part)
    return made


def _signature(call: Mapping[str, Any], place: str) -> bytes | None:
    google: Any = call.get("extra_content")
    google = google.get("google") if isinstance(google, Mapping) else None
    signature = google.get("thought_signature") if isinstance(google, Mapping) else None
    if not signature:
        return None
    try:
        return base64.b64decode(signature, validate=True)
    except (TypeError, ValueError, binascii.Error):
        raise ConfigError(f"{place}: the thought_signature of a call is no base64") from None


def _result(
    message: Mapping[str, Any], said: list[dict[str, Any]], names: Mapping[str, str], place: str
) -> list[dict[str, Any]]:
    """A result has the name of its function, which OpenAI's messages leave out; what is no text stands beside it."""
    call = parts.answered_call(message, place)
    name = names.get(call) or message.get("name")
    if not name:
        raise ConfigError(f"{place}: no message before it has the call that it answers, and it has no 'name' either")
    output = "\n".join(part["text"] for part in said if "text" in part)
    others = [part for part in said if "text" not in part]
    return [{"function_response": {"id": call, "name": name, "response": {"output": output}}}, *others]


def _tools(ask: Ask) -> dict[str, Any]:
    """The fields `tools` and `tool_config`. A `strict` function has the model's calls checked by the API."""
    functions, others = parts.split_tools(ask)
    tools = [dict(tool) for tool in others]
    if functions:
        tools.insert(0, {"function_declarations": [_declaration(function) for function in functions]})
    choice, name = parts.read_choice(ask)
    mode = _MODES.get(choice)
    if mode in (None, "AUTO") and any(function["strict"] for function in functions):
        mode = "VALIDATED"
    calling = {"mode": mode, **({"allowed_function_names": [name]} if name else {})}
    return {"tools": tools or None, "tool_config": {"function_calling_config": calling} if mode else None}


def _declaration(function: Mapping[str, Any]) -> dict[str, Any]:
    made = {"name": function["name"], "parameters_json_schema": function["parameters"]}
    return {**made, "description": function["description"]} if function["description"] else made


# ---------------------------------------------------------------------- answers


class AnswerReader:
    """What one answer says, whole or in events. Calls that have no id get `call_0`, `call_1`, ... in their order."""

    def __init__(self) -> None:
        self._calls = 0

    def read(self, answer: Any) -> Iterator[Delta]:
        """What one `GenerateContentResponse` adds; of several candidates, the first one's."""
        for candidate in answer.candidates or ():
            if candidate.content is not None and not candidate.index:
                for part in candidate.content.parts or ():
                    yield from self._part(part)

    def _part(self, part: Any) -> Iterator[Delta]:
        if part.text:
            yield Delta(reasoning=part.text) if part.thought else Delta(text=part.text)
        call = part.function_call
        if call is not None and call.name:
            thought = getattr(part, "thought_signature", None)
            signature = base64.b64encode(thought).decode() if thought else None
            name = call.id or f"call_{self._calls}"
            tool = ToolCall(name, call.name, parts.write_arguments(call.args), signature)
            yield Delta(tool_index=self._calls, tool=tool)
            self._calls += 1


def model_name(name: str) -> str:
    """A model as one asks for it: the API's list has the collection before it."""
    return name.removeprefix("publishers/google/").removeprefix("models/")
