"""How the providers shape the events of their streams, told apart by what is in them alone.

From their documentation: OpenAI (chat, completions, responses) and who speaks it too, Anthropic, Gemini, Cohere v1 and
v2, Ollama, Bedrock's Converse and the model families behind its InvokeModel. Every function takes an event's decoded
JSON, of which it trusts nothing, and gives what a `StreamChunk` is made of.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import msgspec

Found = dict[str, Any]


# ------------------------------------------------------------------ OpenAI


def _choices(event: Found) -> Found:
    found = [_choice(choice) for choice in dicts(event.get("choices"))]
    if not found:
        return {"usage": usage_of(event)}
    joined = found[0]
    for more in found[1:]:
        for key in ("content", "reasoning", "tool_calls"):
            joined[key] += more[key]
        joined["finish_reason"] = joined["finish_reason"] or more["finish_reason"]
    # Beside an opening role a running count says nothing yet.
    said = any(map(joined.get, ("content", "reasoning", "tool_calls", "finish_reason")))
    return {**joined, "usage": usage_of(event) if said else None}


def _choice(choice: Found) -> Found:
    # `message` is the whole answer: alone where nothing is streamed, and beside each delta at some providers. So is
    # `text`: alone in completions.
    message = choice.get("delta") if isinstance(choice.get("delta"), dict) else choice.get("message")
    text = "" if isinstance(message, dict) else text_of(choice.get("text"))
    message = _dict(message)
    content, reasoning = parts_of(message.get("content"))
    return {
        "content": content
        + text_of(message.get("refusal"))
        + text_of(_dict(message.get("audio")).get("transcript"))
        + text,
        "reasoning": reasoning + (text_of(message.get("reasoning_content")) or text_of(message.get("reasoning"))),
        "tool_calls": _calls(message),
        "finish_reason": text_of(choice.get("finish_reason")) or None,
        "index": _number(choice.get("index")),
    }


def _calls(message: Found) -> tuple[Found, ...]:
    calls = message.get("tool_calls")
    found = [_call(call) for call in dicts([calls] if isinstance(calls, dict) else calls)]
    if isinstance(message.get("function_call"), dict):
        found.append(_call({"function": message["function_call"]}))
    return tuple(found)


def _call(call: Found) -> Found:
    function = _dict(call.get("function") or call.get("custom") or call)
    arguments = function.get("arguments", function.get("input"))
    return _tool(call.get("index"), call.get("id"), function.get("name"), arguments)


def _tool(index: Any = None, call_id: Any = None, name: Any = None, arguments: Any = None) -> Found:
    """One piece of a tool call. Arguments that come as values become the JSON that others send."""
    if arguments is not None and not isinstance(arguments, str):
        arguments = msgspec.json.encode(arguments).decode()
    said = {"index": index, "id": call_id, "name": name, "arguments": arguments}
    return {key: value for key, value in said.items() if value is not None}


def responses(event: Found) -> Found:
    """An event of OpenAI's Responses API."""
    kind = event["type"].removeprefix("response.")
    delta = text_of(event.get("delta"))
    if kind in _TEXTS:
        return {_TEXTS[kind]: delta}
    if kind.endswith((".delta", "_delta")):
        piece = _tool(event.get("output_index"), event.get("item_id"), None, delta)
        return {"tool_calls": (piece,)} if kind.partition(".")[0] in _ARGUMENTS else {}
    if kind == "output_item.added":
        item = _dict(event.get("item"))
        name = item.get("name") if item.get("type") in ("function_call", "custom_tool_call", "mcp_call") else None
        return {"tool_calls": (_tool(event.get("output_index"), item.get("id"), name),)} if name else {}
    if kind not in ("completed", "incomplete", "failed"):
        return {}
    response = _dict(event.get("response"))
    reason = _dict(response.get("incomplete_details")).get("reason")
    return {
        "finish_reason": text_of(reason) or text_of(response.get("status")) or kind,
        "usage": usage_of(event),
        "model": text_of(response.get("model")) or None,
        "id": text_of(response.get("id")) or None,
    }


_TEXTS = {
    "output_text.delta": "content",
    "refusal.delta": "content",
    "audio.transcript.delta": "content",
    "output_audio_transcript.delta": "content",
    "reasoning_text.delta": "reasoning",
    "reasoning_summary_text.delta": "reasoning",
}
_ARGUMENTS = {"function_call_arguments", "custom_tool_call_input", "mcp_call_arguments"}


# ------------------------------------------------------------------ Anthropic, and text that comes as parts


def parts_of(content: Any) -> tuple[str, str]:
    """Text and reasoning of a content that is a text or a list of parts (Anthropic, Mistral, Cohere)."""
    if not isinstance(content, (list, dict)):
        return text_of(content), ""
    text = reasoning = ""
    for part in dicts(content if isinstance(content, list) else [content]):
        text += text_of(part.get("text"))
        thinking = part.get("thinking")
        reasoning += text_of(thinking) or "".join(text_of(inner.get("text")) for inner in dicts(thinking))
    return text, reasoning


def _block(event: Found) -> Found:
    """A content block that begins: a tool, or text that some servers put there at once."""
    block = _dict(event.get("content_block"))
    if block.get("type") == "tool_use":
        return {"tool_calls": (_tool(event.get("index"), block.get("id"), block.get("name")),)}
    content, reasoning = parts_of(block)
    return {"content": content, "reasoning": reasoning}


def _block_delta(event: Found) -> Found:
    delta = _dict(event.get("delta"))
    if delta.get("type") == "input_json_delta":
        return {"tool_calls": (_tool(event.get("index"), arguments=text_of(delta.get("partial_json"))),)}
    return {"content": text_of(delta.get("text")), "reasoning": text_of(delta.get("thinking"))}


def _message_delta(event: Found) -> Found:
    return {"finish_reason": text_of(_dict(event.get("delta")).get("stop_reason")) or None, "usage": usage_of(event)}


# ------------------------------------------------------------------ Gemini


def _candidates(event: Found) -> Found:
    content = reasoning = ""
    calls: list[Found] = []
    finish = None
    candidates = dicts(event.get("candidates"))
    for candidate in candidates:
        finish = finish or text_of(candidate.get("finishReason")) or None
        for part in dicts(_dict(candidate.get("content")).get("parts")):
            if part.get("thought") is True:
                reasoning += text_of(part.get("text"))
            else:
                content += text_of(part.get("text"))
            call = _dict(part.get("functionCall"))
            if call:
                calls.append(_tool(call_id=call.get("id"), name=call.get("name"), arguments=call.get("args", {})))
    return {
        "content": content,
        "reasoning": reasoning,
        "tool_calls": tuple(calls),
        "finish_reason": finish,
        "index": _number(candidates[0].get("index")) if candidates else 0,
        "usage": usage_of(event),
    }


def _blocked(event: Found) -> Found:
    """Gemini refused the prompt: there are no candidates."""
    return {
        "finish_reason": text_of(_dict(event["promptFeedback"]).get("blockReason")) or None,
        "usage": usage_of(event),
    }


# ------------------------------------------------------------------ Cohere


def _cohere(event: Found) -> Found:
    delta = _dict(event.get("delta"))
    message = _dict(delta.get("message"))
    content, reasoning = parts_of(message.get("content"))
    calls = [{"index": event.get("index"), **call} for call in _calls(message)]
    return {
        "content": content,
        "reasoning": reasoning + text_of(message.get("tool_plan")),
        "tool_calls": tuple(calls),
        "finish_reason": text_of(delta.get("finish_reason")) or None,
        "usage": usage_of(event),
    }


def _cohere_v1_calls(event: Found) -> Found:
    named = {"name", "parameters"}
    calls = [call for call in dicts(event.get("tool_calls")) if named & call.keys()]
    piece = _dict(event.get("tool_call_delta"))
    tools = [_tool(name=call.get("name"), arguments=call.get("parameters")) for call in calls]
    if piece:
        tools.append(_tool(piece.get("index"), None, piece.get("name"), piece.get("parameters")))
    return {"tool_calls": tuple(tools), "reasoning": text_of(event.get("text")) if not calls else ""}


def _cohere_v1_end(event: Found) -> Found:
    """Its `response` repeats the whole text."""
    return {"finish_reason": text_of(event.get("finish_reason")) or None, "usage": usage_of(event)}


# ------------------------------------------------------------------ Ollama


def _ollama(event: Found) -> Found:
    message = _dict(event.get("message"))
    content, _ = parts_of(message.get("content"))
    return {
        "content": content + text_of(event.get("response")),
        "reasoning": text_of(message.get("thinking")) or text_of(event.get("thinking")),
        "tool_calls": _calls(message),
        "finish_reason": text_of(event.get("done_reason")) or ("stop" if event.get("done") is True else None),
        "usage": usage_of(event),
    }


# ------------------------------------------------------------------ Bedrock


def _converse_delta(event: Found) -> Found:
    delta = _dict(event.get("delta"))
    tool = _dict(delta.get("toolUse"))
    calls = (_tool(event["contentBlockIndex"], arguments=tool.get("input")),) if tool else ()
    start = _dict(_dict(event.get("start")).get("toolUse"))
    if start:
        calls = (_tool(event["contentBlockIndex"], start.get("toolUseId"), start.get("name")),)
    reasoning = text_of(_dict(delta.get("reasoningContent")).get("text"))
    return {"content": text_of(delta.get("text")), "reasoning": reasoning, "tool_calls": calls}


def _converse_stop(event: Found) -> Found:
    content, _ = parts_of(_dict(_dict(event.get("output")).get("message")).get("content"))  # of a whole answer
    return {"content": content, **end_of(event), "usage": usage_of(event)}


def _listed(key: str) -> Callable[[Found], Found]:
    """Families that give a list of answers: Mistral, Cohere's Command, AI21's Jurassic."""

    def read(event: Found) -> Found:
        found = [{**item, **_dict(item.get("data"))} for item in dicts(event.get(key))]
        first: Found = found[0] if found else {}
        return {
            "content": "".join(text_of(item.get("text")) for item in found),
            **end_of(first),
            "usage": usage_of(event),
        }

    return read


def unwrapped(event: Any) -> Any:
    """An event without what wraps it: base64 (Bedrock's InvokeModel) or its own name (Amazon's Nova)."""
    if not isinstance(event, dict):
        return event
    if isinstance(event.get("bytes"), str) and not event.keys() - {"bytes", "p"}:
        try:
            return unwrapped(msgspec.json.decode(base64.b64decode(event["bytes"])))
        except (ValueError, RecursionError):
            return event
    inner = next((event[name] for name in _NOVA if isinstance(event.get(name), dict)), None)
    return event if inner is None else {**inner, **event}


_NOVA = ("contentBlockDelta", "contentBlockStart", "messageStop")


# ------------------------------------------------------------------ tables


def _nothing(event: Found) -> Found:
    return {}


BY_TYPE: dict[str, Callable[[Found], Found]] = {
    "ping": _nothing,
    "message_start": _nothing,
    "content_block_start": _block,
    "content_block_delta": _block_delta,
    "content_block_stop": _nothing,
    "message_delta": _message_delta,
    "message_stop": _nothing,
    "message-start": _nothing,
    "content-start": _cohere,
    "content-delta": _cohere,
    "tool-plan-delta": _cohere,
    "tool-call-start": _cohere,
    "tool-call-delta": _cohere,
    "message-end": _cohere,
    "citation-start": _nothing,
    "stream-start": _nothing,
    "tool-calls-chunk": _cohere_v1_calls,
    "tool-calls-generation": _cohere_v1_calls,
    "citation-generation": _nothing,
    "search-results": _nothing,
    "stream-end": _cohere_v1_end,
}
# What has no type that says it, by a key; the first one counts.
BY_KEY: dict[str, Callable[[Found], Found]] = {
    "choices": _choices,
    "candidates": _candidates,
    "promptFeedback": _blocked,
    "contentBlockIndex": _converse_delta,
    "stopReason": _converse_stop,
    "done": _ollama,
    "outputs": _listed("outputs"),
    "generations": _listed("generations"),
    "completions": _listed("completions"),
}
# Where a count of tokens stands. A message's own goes before what stands beside it.
_USAGES = (
    ("usage",),
    ("usageMetadata",),
    ("x_groq", "usage"),
    ("response", "usage"),
    ("message", "usage"),
    ("delta", "usage"),
    ("response", "meta"),
    ("meta",),
    ("metadata", "usage"),
    ("amazon-bedrock-invocationMetrics",),
)
_COUNTS = ("prompt_eval_count", "eval_count", "prompt_token_count", "generation_token_count")
_STATING = frozenset({*(path[0] for path in _USAGES), *_COUNTS})
_ENDS = ("finish_reason", "stop_reason", "finishReason", "stopReason", "completionReason", "done_reason")


def usage_of(event: Found) -> Found | None:
    """The count of tokens that an event states, in whatever place and shape; None where it states none."""
    if event.keys().isdisjoint(_STATING):  # most events
        return None
    for path in _USAGES:
        found: Any = event
        for key in path:
            found = _dict(found).get(key)
        if found and isinstance(found, dict):
            return found
    return {key: event[key] for key in _COUNTS if isinstance(event.get(key), int)} or None


def end_of(event: Found) -> Found:
    """Why the answer ended, under any usual name."""
    return {"finish_reason": next(filter(None, (text_of(event.get(key)) for key in _ENDS)), None)}


def text_of(value: Any) -> str:
    """A text as it is; "" for what is none."""
    return value if isinstance(value, str) else ""


def _number(value: Any) -> int:
    return value if type(value) is int else 0


def _dict(value: Any) -> Found:
    return value if isinstance(value, dict) else {}


def dicts(values: Any) -> list[Found]:
    """The objects of a list; nothing of what is none."""
    return [value for value in values if isinstance(value, dict)] if isinstance(values, list) else []
