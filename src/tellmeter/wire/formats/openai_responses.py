"""The Responses API of OpenAI, and of Azure, Bedrock, DeepSeek, OpenRouter and xAI.

https://platform.openai.com/docs/api-reference/responses
"""

from __future__ import annotations

import msgspec

from ..answer import Answer, Asked, Format
from ..sse import IGNORED, OTHER, PLAIN, SseReader, Template, head_template
from .bodies import MAX_NAMES, Body, add_tool, fail_raw, filled, present, read_whole, size_of_text
from .openai_usage import OpenAIUsage, usage_of

NAME = "openai_responses"

# Output items by which the model asks the client to run a function; web searches and the like run at the provider.
_CALLS = frozenset({"function_call", "custom_tool_call"})
_FINAL = frozenset({"response.completed", "response.incomplete", "response.failed", "response.cancelled"})
_PINGS = frozenset({"ping", "keepalive"})


class _Request(msgspec.Struct, gc=False):
    model: str | None = None
    input: msgspec.Raw = msgspec.Raw()
    prompt: msgspec.Raw = msgspec.Raw()
    previous_response_id: msgspec.Raw = msgspec.Raw()
    conversation: msgspec.Raw = msgspec.Raw()
    stream: bool | None = None


class _Item(msgspec.Struct, gc=False):
    type: str | None = None
    name: str | None = None


class _Incomplete(msgspec.Struct, gc=False):
    reason: str | None = None


class _Response(msgspec.Struct, gc=False):
    id: str | None = None
    model: str | None = None
    status: str | None = None
    service_tier: str | None = None
    usage: OpenAIUsage | None = None
    output: list[_Item] | None = None
    incomplete_details: _Incomplete | None = None
    error: msgspec.Raw = msgspec.Raw()


class _Event(msgspec.Struct, gc=False):
    type: str | None = None
    response: _Response | None = None
    item: _Item | None = None
    output_index: int | None = None
    delta: msgspec.Raw = msgspec.Raw()
    code: str | None = None
    error: msgspec.Raw = msgspec.Raw()


_requests = Body(_Request, NAME)
_responses = Body(_Response, NAME)
_events = Body(_Event, NAME)


def read_request(body: bytes) -> Asked | None:
    """A response has an input, or goes on from something stored. A stored prompt may name the model: "" here."""
    request = _requests.read(body, quiet=True)
    if request is None:
        return None
    stored = present(request.prompt)
    if not (present(request.input) or stored or present(request.previous_response_id) or present(request.conversation)):
        return None
    if not request.model and not stored:
        return None
    return Asked(model=request.model or "", stream=request.stream is True)


def read_answer(body: bytes, status_code: int) -> Answer:
    """A whole answer."""
    return read_whole(body, status_code, _read, Reader)


def _read(data: bytes) -> Answer:
    answer = Answer()
    response = _responses.read(data)
    if response is not None:
        _begin(answer, response)
        _end(answer, response)
    return answer


def _begin(answer: Answer, response: _Response) -> None:
    answer.response_model = response.model or answer.response_model
    answer.response_id = response.id or answer.response_id
    answer.service_tier = response.service_tier or answer.service_tier  # "auto" at first, then the real one
    answer.usage = usage_of(response.usage) or answer.usage


def _end(answer: Answer, response: _Response) -> None:
    incomplete = response.incomplete_details
    answer.finish_reason = (incomplete.reason if incomplete is not None else None) or response.status
    names = [item.name for item in response.output or () if item.type in _CALLS and item.name]
    if names:
        answer.tools = names[:MAX_NAMES]
    if present(response.error):
        fail_raw(answer, response.error)
    answer.failed = answer.failed or response.status == "failed"


class Reader(SseReader):
    """Events are what the API calls so; content are those whose type ends in `.delta`: text, reasoning, arguments."""

    __slots__ = ("_indexes",)

    format_name = NAME
    final_events = (b"response.completed", b"response.incomplete", b"response.failed")

    def __init__(self) -> None:
        super().__init__()
        self._indexes: set[int | None] = set()  # of the output items whose name is known

    def read(self, name: bytes, data: bytes, whole: bool) -> int:  # noqa: D102
        event = _events.read(data, quiet=not whole)
        kind = name.decode("utf-8", "replace")
        if event is None:
            if kind == "error":
                self.answer.failed = True
            return OTHER if whole else IGNORED
        kind = event.type or kind
        if kind.endswith(".delta"):
            if not kind.endswith("audio.delta"):  # sound, as base64
                self.text_size += size_of_text(event.delta)
            return PLAIN
        if kind in _PINGS:
            return IGNORED
        answer = self.answer
        if event.response is not None:
            _begin(answer, event.response)
            if kind in _FINAL:
                _end(answer, event.response)
        if kind in _FINAL:
            self.done = True
            answer.failed = answer.failed or kind == "response.failed"
        elif kind == "error" or present(event.error):
            # Documented with its code at the top, sent with an error object.
            fail_raw(answer, event.error if filled(event.error) else msgspec.Raw(data))
        elif event.item is not None:
            self._note_item(event.item, event.output_index)
        return OTHER

    def _note_item(self, item: _Item, index: int | None) -> None:
        """A call is named when it begins, so that a stream that breaks off has it, and again when it is done."""
        if item.type in _CALLS and index not in self._indexes and add_tool(self.answer, item.name):
            self._indexes.add(index)

    def template(self, event: bytes) -> Template | None:  # noqa: D102
        name, separator, _ = event.partition(b"\ndata: {")
        if separator and name.startswith(b"event: ") and name.endswith(b".delta"):
            typed = b'%s\ndata: {"type":"%s"' % (name, name[7:])
            return head_template(event, (typed, _first_key(event, len(name + separator))), _MARKS)
        data, separator, name = event.partition(b"\nevent: ")
        if separator and b"\n" not in data and name.endswith(b".delta"):  # Bedrock names its events last
            return head_template(event, (_first_key(event, len(b"data: {")),), _MARKS, separator + name)
        return head_template(event, _BARE_HEADS, _MARKS)


def _first_key(event: bytes, start: int) -> bytes:
    """The event up to the value of its first key: what tells that its keys are in the same order."""
    return event[: event.find(b":", start) + 1]


_MARKS = (b'"delta":"', b'"delta": "')
_BARE_HEADS = tuple(
    b'data: {"type":"response.%s.delta"' % kind
    for kind in (b"output_text", b"reasoning_text", b"reasoning_summary_text", b"function_call_arguments")
)

FORMAT = Format(name=NAME, operation="chat", read_request=read_request, read_answer=read_answer, new_reader=Reader)
"""The Responses API."""
