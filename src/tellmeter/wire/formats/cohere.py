"""Cohere's chat, version 2.

https://docs.cohere.com/reference/chat and .../docs/streaming. A stream is server-sent events with one line of data
each, or JSON lines where the request does not accept those; the answer names no model.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec

from ..answer import Answer, Asked, Format
from ..events_or_lines import EventsOrLinesReader
from ..json_lines import first_line
from ..message import begins_event_stream
from ..sse import CONTENT, IGNORED, OTHER, PLAIN, Template, text_template
from .bodies import Body, add_tool, fail, fail_raw, filled, present, read_whole, size_of_text
from .cohere_end import CohereUsage, note_end

NAME = "cohere_chat"

T = TypeVar("T")


class _Request(msgspec.Struct, gc=False):
    model: str | None = None
    messages: msgspec.Raw = msgspec.Raw()
    stream: bool | None = None


class _Function(msgspec.Struct, gc=False):
    name: str | None = None
    arguments: msgspec.Raw = msgspec.Raw()


class _ToolCall(msgspec.Struct, gc=False):
    function: _Function | None = None


class _Block(msgspec.Struct, gc=False):
    text: msgspec.Raw = msgspec.Raw()
    thinking: msgspec.Raw = msgspec.Raw()


class _Message(msgspec.Struct, gc=False):
    """Lists in a whole answer, single ones in an event."""

    content: list[_Block] | _Block | None = None
    tool_plan: msgspec.Raw = msgspec.Raw()
    tool_calls: list[_ToolCall] | _ToolCall | None = None


class _Answer(msgspec.Struct, gc=False):
    """A whole answer, and what an event adds to it."""

    id: str | None = None
    message: _Message | None = None
    finish_reason: str | None = None
    usage: CohereUsage | None = None
    error: msgspec.Raw = msgspec.Raw()


class _Event(msgspec.Struct, gc=False):
    type: str | None = None
    id: str | None = None
    delta: _Answer | None = None
    message: msgspec.Raw = msgspec.Raw()  # of an error, which has no type


_requests = Body(_Request, NAME)
_answers = Body(_Answer, NAME)
_events = Body(_Event, NAME)


def read_request(body: bytes) -> Asked | None:
    """Messages, and a model."""
    request = _requests.read(body, quiet=True)
    if request is None or not request.model or not filled(request.messages):
        return None
    return Asked(model=request.model, stream=request.stream is True)


def read_answer(body: bytes, status_code: int) -> Answer:
    """A whole answer."""
    return read_whole(body, status_code, _read, Reader, begins_stream)


def begins_stream(body: bytes) -> bool:
    """Whether a body is a stream, of events or of lines; a whole answer has no type."""
    if begins_event_stream(body):
        return True
    event = _events.read(first_line(body), quiet=True)
    return event is not None and event.type is not None


def _read(data: bytes) -> Answer:
    answer = Answer()
    body = _answers.read(data)
    if body is not None:
        _note(answer, body)
    return answer


def _note(answer: Answer, body: _Answer) -> None:
    """Take over what an answer, or an event's delta, says."""
    answer.response_id = body.id or answer.response_id
    note_end(answer, body.finish_reason, body.usage)
    if present(body.error):
        fail_raw(answer, body.error)
    for call in _calls(body.message):
        add_tool(answer, call.name)


def _calls(message: _Message | None) -> list[_Function]:
    calls = _listed(message.tool_calls) if message is not None else []
    return [call.function for call in calls if call.function is not None]


def _listed(found: list[T] | T | None) -> list[T]:
    return found if isinstance(found, list) else [] if found is None else [found]


def _size(message: _Message | None) -> int:
    """Bytes of what the model wrote in an event: text, thinking, its plan, or a tool's arguments."""
    if message is None:
        return 0
    texts = [message.tool_plan, *(call.arguments for call in _calls(message))]
    for block in _listed(message.content):
        texts += (block.text, block.thinking)
    return sum(map(size_of_text, texts))


class Reader(EventsOrLinesReader):
    """Events are what the API calls so. Content is text, thinking, a plan of tools or their arguments.

    The events around it, which begin and end a block, and citations are none.
    """

    __slots__ = ()

    format_name = NAME

    def read(self, name: bytes, data: bytes, whole: bool) -> int:  # noqa: D102
        event = _events.read(data, quiet=not whole)
        if event is None:
            return OTHER if whole else IGNORED
        answer = self.answer
        answer.response_id = event.id or answer.response_id
        if event.type is None and present(event.message):
            fail(answer, None)
        if event.type == "message-end":
            self.done = True
        if event.delta is None:
            return OTHER
        tools = len(answer.tools)
        _note(answer, event.delta)
        size = _size(event.delta.message)
        self.text_size += size
        if not size:
            return OTHER
        return PLAIN if len(answer.tools) == tools else CONTENT

    def template(self, event: bytes) -> Template | None:  # noqa: D102
        return text_template(event, _MARKS)


_MARKS = tuple(
    b'"%s":%s"' % (key, space) for space in (b"", b" ") for key in (b"text", b"thinking", b"tool_plan", b"arguments")
)

FORMAT = Format(
    name=NAME,
    operation="chat",
    read_request=read_request,
    read_answer=read_answer,
    new_reader=Reader,
    stream_types=("text/event-stream", "application/stream+json", "application/x-ndjson"),
    begins_stream=begins_stream,
)
"""Version 2."""
