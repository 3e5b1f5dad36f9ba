"""Anthropic's Messages, and its count of tokens.

https://docs.anthropic.com/en/api/messages and .../messages-streaming. Anthropic states input without what it read from
or wrote to the cache; here the input holds both. In a stream the usage of `message_delta` is cumulative and replaces
that of `message_start` field by field.
"""

from __future__ import annotations

import msgspec

from ...usage import Usage
from ..answer import Answer, Asked, Format
from ..sse import IGNORED, OTHER, PLAIN, SseReader, Template, head_template
from .anthropic_usage import AnthropicUsage, usage_of
from .bodies import Body, add_tool, fail_raw, present, read_whole, size_of_text

NAME = "anthropic_messages"
COUNT_NAME = "anthropic_count_tokens"


class _Request(msgspec.Struct, gc=False):
    model: str | None = None
    messages: msgspec.Raw = msgspec.Raw()
    stream: bool | None = None


class _Block(msgspec.Struct, gc=False):
    type: str | None = None
    name: str | None = None


class _Message(msgspec.Struct, gc=False):
    id: str | None = None
    model: str | None = None
    content: list[_Block] | None = None
    stop_reason: str | None = None
    usage: AnthropicUsage | None = None
    error: msgspec.Raw = msgspec.Raw()


class _Delta(msgspec.Struct, gc=False):
    type: str | None = None
    stop_reason: str | None = None
    text: msgspec.Raw = msgspec.Raw()
    thinking: msgspec.Raw = msgspec.Raw()
    partial_json: msgspec.Raw = msgspec.Raw()


class _Event(msgspec.Struct, gc=False):
    type: str | None = None
    message: _Message | None = None
    content_block: _Block | None = None
    delta: _Delta | None = None
    usage: AnthropicUsage | None = None
    error: msgspec.Raw = msgspec.Raw()


_requests = Body(_Request, NAME)
_messages = Body(_Message, NAME)
_events = Body(_Event, NAME)
_counted = Body(_Message, COUNT_NAME)


def read_request(body: bytes) -> Asked | None:
    """Messages, and a model."""
    request = _requests.read(body, quiet=True)
    if request is None or not request.model or not present(request.messages):
        return None
    return Asked(model=request.model, stream=request.stream is True)


def read_answer(body: bytes, status_code: int) -> Answer:
    """A whole answer."""
    return read_whole(body, status_code, _read, Reader)


def read_count(body: bytes, status_code: int) -> Answer:
    """An answer of count_tokens: nothing is generated and nothing billed, so it has 0 tokens and costs 0 dollars."""
    answer = read_whole(body, status_code, _read_count, Reader)
    answer.usage = None if answer.failed else Usage(cost_usd=0.0)
    return answer


def _read(data: bytes) -> Answer:
    answer = Answer()
    message = _messages.read(data)
    if message is not None:
        _note(answer, message)
        answer.usage = usage_of(message.usage)
    return answer


def _read_count(data: bytes) -> Answer:
    answer = Answer()
    counted = _counted.read(data)
    if counted is not None and present(counted.error):
        fail_raw(answer, counted.error)
    return answer


def _note(answer: Answer, message: _Message) -> None:
    answer.response_model = message.model or answer.response_model
    answer.response_id = message.id or answer.response_id
    answer.finish_reason = message.stop_reason or answer.finish_reason
    if message.usage is not None:
        answer.service_tier = message.usage.service_tier or answer.service_tier
    for block in message.content or ():
        _note_block(answer, block)
    if present(message.error):
        fail_raw(answer, message.error)


def _note_block(answer: Answer, block: _Block) -> None:
    """A tool that the client is to run; `server_tool_use` and `mcp_tool_use` run at Anthropic."""
    if block.type == "tool_use":
        add_tool(answer, block.name)


class Reader(SseReader):
    """Events are what the API calls so, without pings.

    Content is every delta of text, thinking or a tool's input, also an empty one, with which providers begin a block;
    signatures and citations are none.
    """

    __slots__ = ("_usage",)

    format_name = NAME

    def __init__(self) -> None:
        super().__init__()
        self._usage = AnthropicUsage()

    def read(self, name: bytes, data: bytes, whole: bool) -> int:  # noqa: D102
        event = _events.read(data, quiet=not whole)
        kind = name.decode("utf-8", "replace")
        if event is None:
            if kind == "error":
                self.answer.failed = True
            return OTHER if whole else IGNORED
        kind = event.type or kind
        if kind == "content_block_delta":
            key = _KEYS.get(event.delta.type or "") if event.delta is not None else None
            if key is None:
                return OTHER
            self.text_size += size_of_text(getattr(event.delta, key))
            return PLAIN
        if kind == "ping":
            return IGNORED
        answer = self.answer
        if event.message is not None:
            _note(answer, event.message)
            self._merge(event.message.usage)
        if event.content_block is not None:
            _note_block(answer, event.content_block)
        if kind == "message_delta":
            self._merge(event.usage)
            if event.delta is not None:
                answer.finish_reason = event.delta.stop_reason or answer.finish_reason
        elif kind == "message_stop":
            self.done = True
        elif kind == "error" or present(event.error):
            fail_raw(answer, event.error if present(event.error) else msgspec.Raw(data))
        return OTHER

    def _merge(self, stated: AnthropicUsage | None) -> None:
        """Take over the fields that are stated."""
        if stated is None:
            return
        self._usage.merge(stated)
        self.answer.usage = usage_of(self._usage)
        self.answer.service_tier = self._usage.service_tier or self.answer.service_tier

    def template(self, event: bytes) -> Template | None:  # noqa: D102
        for mark in _MARKS:
            at = event.find(mark)
            if at >= 0:
                return head_template(event, (event[: at + len(mark)],), (b"",))
        return None


# The deltas that are content, and where their text is.
_KEYS = {"text_delta": "text", "thinking_delta": "thinking", "input_json_delta": "partial_json"}
_MARKS = tuple(
    mark.replace(b"KIND", kind.encode()).replace(b"KEY", key.encode())
    for kind, key in _KEYS.items()
    for mark in (b'"delta":{"type":"KIND","KEY":"', b'"delta": {"type": "KIND", "KEY": "')
)

FORMAT = Format(name=NAME, operation="chat", read_request=read_request, read_answer=read_answer, new_reader=Reader)
"""Messages."""

COUNT_TOKENS = Format(
    name=COUNT_NAME, operation="count_tokens", read_request=read_request, read_answer=read_count, new_reader=Reader
)
"""The count of a request's tokens."""
