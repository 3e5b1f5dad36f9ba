"""Chat completions, as OpenAI and nearly every other provider speak them.

https://platform.openai.com/docs/api-reference/chat, and the additions of DeepSeek, Groq, Mistral, Ollama, OpenRouter,
Perplexity, Together, xAI and Z.ai that recorded traffic shows.
"""

from __future__ import annotations

from typing import Any

import msgspec

from ..answer import Answer, Asked, Format
from ..sse import CONTENT, IGNORED, OTHER, PLAIN, SseReader, Template, text_template
from .bodies import MAX_NAMES, Body, add_tool, fail_raw, filled, present, read_whole, size_of_text
from .openai_usage import OpenAIUsage, usage_of

NAME = "openai_chat"


class _Request(msgspec.Struct, gc=False):
    model: str | None = None
    messages: msgspec.Raw = msgspec.Raw()
    stream: bool | None = None


class _Function(msgspec.Struct, gc=False):
    name: str | None = None
    arguments: msgspec.Raw = msgspec.Raw()
    input: msgspec.Raw = msgspec.Raw()  # of a custom tool


class _ToolCall(msgspec.Struct, gc=False):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None
    custom: _Function | None = None


class _Message(msgspec.Struct, gc=False):
    """A message, or a piece of one: what is only looked at for being there stays undecoded."""

    content: msgspec.Raw = msgspec.Raw()
    reasoning_content: msgspec.Raw = msgspec.Raw()  # DeepSeek, Z.ai
    reasoning: msgspec.Raw = msgspec.Raw()  # Groq, Ollama, OpenRouter
    refusal: msgspec.Raw = msgspec.Raw()
    audio: msgspec.Raw = msgspec.Raw()
    tool_calls: list[_ToolCall] | None = None
    function_call: _Function | None = None


class _Part(msgspec.Struct, gc=False):
    """A part of content that is a list (Mistral); what is not text there, references, is no output of the model."""

    text: msgspec.Raw = msgspec.Raw()
    thinking: msgspec.Raw = msgspec.Raw()


class _Choice(msgspec.Struct, gc=False):
    index: int | None = None
    message: _Message | None = None
    delta: _Message | None = None
    finish_reason: str | None = None
    error: msgspec.Raw = msgspec.Raw()  # OpenRouter


class _Groq(msgspec.Struct, gc=False):
    usage: OpenAIUsage | None = None


class _Body(msgspec.Struct, gc=False):
    """A whole answer, and an event of a stream."""

    id: str | None = None
    model: str | None = None
    choices: list[_Choice] | None = None
    usage: OpenAIUsage | None = None
    x_groq: _Groq | None = None
    service_tier: str | None = None
    error: msgspec.Raw = msgspec.Raw()


_requests = Body(_Request, NAME)
_bodies = Body(_Body, NAME)
_parts = msgspec.json.Decoder(list[_Part])


def read_request(body: bytes) -> Asked | None:
    """Chat has messages. On Azure the model may be in the path alone: see `model_in_path`."""
    request = _requests.read(body, quiet=True)
    if request is None or not request.model or not present(request.messages):
        return None
    return Asked(model=request.model, stream=request.stream is True)


def read_answer(body: bytes, status_code: int) -> Answer:
    """A whole answer."""
    return read_whole(body, status_code, _read, Reader)


def _read(data: bytes) -> Answer:
    answer = Answer()
    body = _bodies.read(data)
    if body is not None:
        _note(answer, body)
        for choice in body.choices or ():
            if choice.message is not None:
                _note_tools(answer, choice, choice.message, set())
    return answer


def _note(answer: Answer, body: _Body) -> None:
    """What answers and events have alike. First model, id and tier stay; the last usage counts, as it is cumulative."""
    answer.response_model = answer.response_model or body.model or None
    answer.response_id = answer.response_id or body.id or None
    stated = body.usage or (body.x_groq.usage if body.x_groq is not None else None)
    if stated is not None:
        answer.usage = usage_of(stated) or answer.usage
        answer.service_tier = answer.service_tier or stated.service_tier
    answer.service_tier = answer.service_tier or body.service_tier
    if present(body.error):
        fail_raw(answer, body.error)
    for choice in body.choices or ():
        if choice.finish_reason and not choice.index and answer.finish_reason is None:
            answer.finish_reason = choice.finish_reason
        if present(choice.error):
            fail_raw(answer, choice.error)


def _note_tools(answer: Answer, choice: _Choice, message: _Message, seen: set[Any]) -> None:
    """Names of functions, each once: some servers repeat the name with every piece of the arguments."""
    for call in message.tool_calls or ():
        function = call.function or call.custom
        if function is None or not function.name:
            continue
        # Without an index or an id a call cannot be told from another one, and comes whole.
        key = (choice.index, call.index, call.id)
        if call.index is None and not call.id:
            add_tool(answer, function.name)
        elif key not in seen and len(seen) < MAX_NAMES and add_tool(answer, function.name):
            seen.add(key)
    if message.function_call is not None:
        legacy = (choice.index, "function_call")
        if legacy not in seen and add_tool(answer, message.function_call.name):
            seen.add(legacy)


def _text_size(message: _Message) -> int:
    """Bytes of what the model wrote; audio is not measured in bytes of its text."""
    # Some servers send the reasoning under both names.
    size = _size_of(message.content) + (_size_of(message.reasoning_content) or _size_of(message.reasoning))
    size += size_of_text(message.refusal)
    for call in message.tool_calls or ():
        size += _size_of_arguments(call.function or call.custom)
    return size + _size_of_arguments(message.function_call)


def _size_of(content: msgspec.Raw) -> int:
    if not bytes(content).startswith(b"["):
        return size_of_text(content)
    try:
        return sum(_size_of(part.text) + _size_of(part.thinking) for part in _parts.decode(content))
    except (msgspec.ValidationError, RecursionError):
        return size_of_text(content)


def _size_of_arguments(function: _Function | None) -> int:
    return size_of_text(function.arguments) + size_of_text(function.input) if function is not None else 0


class Reader(SseReader):
    """Events are chunks. Content is text, reasoning, a refusal, audio or a piece of a tool call in any choice's delta.

    A delta that holds only a role, empty text, or signed or encrypted reasoning (`reasoning_details`) is no content.
    """

    __slots__ = ("_calls",)

    format_name = NAME

    def __init__(self) -> None:
        super().__init__()
        self._calls: set[Any] = set()

    def read(self, name: bytes, data: bytes, whole: bool) -> int:  # noqa: D102
        body = _bodies.read(data, quiet=not whole)
        if name == b"error":  # Groq; the data may be no JSON
            fail_raw(self.answer, msgspec.Raw(data) if body is None or not present(body.error) else body.error)
            return OTHER
        if body is None:
            return OTHER if whole else IGNORED
        answer = self.answer
        _note(answer, body)
        content = False
        tools = len(answer.tools)
        plain = body.usage is None and body.x_groq is None and not answer.failed
        for choice in body.choices or ():
            delta = choice.delta
            if delta is None:
                continue
            self.text_size += _text_size(delta)
            if delta.tool_calls or delta.function_call is not None:
                content = True
                _note_tools(answer, choice, delta, self._calls)
            elif (
                filled(delta.content)
                or filled(delta.reasoning_content)
                or filled(delta.reasoning)
                or filled(delta.refusal)
                or filled(delta.audio)
            ):
                content = True
        if not content:
            return OTHER
        return PLAIN if plain and len(answer.tools) == tools else CONTENT

    def template(self, event: bytes) -> Template | None:  # noqa: D102
        return text_template(event, _MARKS)


_KEYS = (b"content", b"reasoning_content", b"reasoning", b"arguments", b"refusal", b"text")
_MARKS = tuple(b'"%s":%s"' % (key, space) for space in (b"", b" ") for key in _KEYS)

FORMAT = Format(name=NAME, operation="chat", read_request=read_request, read_answer=read_answer, new_reader=Reader)
"""Chat completions."""
