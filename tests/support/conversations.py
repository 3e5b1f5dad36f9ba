"""Conversations as one has them with OpenAI's chat completions, made up: any valid one."""

from __future__ import annotations

import base64
import json
from typing import Any

from hypothesis import strategies as st

texts = st.text(max_size=12)
ids = st.text("abcXYZ019_-.:/é ", min_size=1, max_size=8)
names = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True)
objects = st.dictionaries(st.text(max_size=4), st.one_of(st.none(), st.booleans(), st.integers(), texts), max_size=3)
images = st.one_of(
    st.sampled_from(["https://example.org/a.png", "http://example.org/b"]),
    st.binary(min_size=1, max_size=6).map(lambda data: "data:image/png;base64," + base64.b64encode(data).decode()),
)
text_parts = st.builds(lambda text: {"type": "text", "text": text}, texts)
parts = st.one_of(text_parts, st.builds(lambda url: {"type": "image_url", "image_url": {"url": url}}, images))
spoken = st.one_of(texts, st.lists(text_parts, max_size=3))


@st.composite
def conversations(draw: Any) -> list[dict[str, Any]]:
    """Messages of all roles: the user begins and says something; each tool call is answered right after it, in any order."""
    used: set[str] = set()
    said: list[dict[str, Any]] = []
    if draw(st.booleans()):
        said.append({"role": draw(st.sampled_from(["system", "developer"])), "content": draw(spoken)})
    said.append({"role": "user", "content": draw(texts) + "x"})
    for role in draw(st.lists(st.sampled_from(["user", "assistant", "system"]), max_size=5)):
        if role == "user":
            said.append({"role": role, "content": draw(st.one_of(texts, st.lists(parts, max_size=3)))})
        elif role == "system":
            said.append({"role": role, "content": draw(spoken)})
        else:
            calls = draw(st.lists(ids.filter(lambda one: one not in used), unique=True, max_size=3))
            used.update(calls)
            said += draw(turn(calls))
    return said


@st.composite
def turn(draw: Any, calls: list[str]) -> list[dict[str, Any]]:
    """What an assistant says, and the answers to what it calls."""
    message: dict[str, Any] = {"role": "assistant", "content": draw(st.one_of(st.none(), spoken))}
    if calls:
        message["tool_calls"] = [
            {"id": call, "type": "function", "function": {"name": draw(names), "arguments": json.dumps(draw(objects))}}
            for call in calls
        ]
    answers = [{"role": "tool", "tool_call_id": call, "content": draw(spoken)} for call in draw(st.permutations(calls))]
    return [message, *answers]


def texts_of(messages: list[dict[str, Any]], *roles: str) -> list[str]:
    """All texts of these roles that are not blank, in their order."""
    found = []
    for message in messages:
        if message["role"] in roles:
            content = message["content"] or []
            said = [content] if isinstance(content, str) else [part.get("text", "") for part in content]
            found += [text for text in said if text.strip()]
    return found


def calls_of(messages: list[dict[str, Any]]) -> list[tuple[str, Any]]:
    """Name and arguments of all tool calls, in their order."""
    calls = [call["function"] for message in messages for call in message.get("tool_calls", ())]
    return [(call["name"], json.loads(call["arguments"])) for call in calls]
