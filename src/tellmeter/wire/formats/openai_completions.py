"""Text completions, the older format of OpenAI, Together, Writer and local servers.

https://platform.openai.com/docs/api-reference/completions
"""

from __future__ import annotations

import msgspec

from ..answer import Answer, Asked, Format
from ..sse import CONTENT, IGNORED, OTHER, PLAIN, SseReader, Template, text_template
from .bodies import Body, fail_raw, present, read_whole, size_of_text
from .openai_usage import OpenAIUsage, usage_of

NAME = "openai_completions"


class _Request(msgspec.Struct, gc=False):
    model: str | None = None
    prompt: msgspec.Raw = msgspec.Raw()
    stream: bool | None = None


class _Choice(msgspec.Struct, gc=False):
    index: int | None = None
    text: msgspec.Raw = msgspec.Raw()
    finish_reason: str | None = None


class _Body(msgspec.Struct, gc=False):
    """A whole answer, and an event of a stream."""

    id: str | None = None
    model: str | None = None
    choices: list[_Choice] | None = None
    usage: OpenAIUsage | None = None
    service_tier: str | None = None
    value: msgspec.Raw = msgspec.Raw()  # Writer's events have nothing else
    error: msgspec.Raw = msgspec.Raw()


_requests = Body(_Request, NAME)
_bodies = Body(_Body, NAME)


def read_request(body: bytes) -> Asked | None:
    """A completion has a prompt: text, tokens, or a list of them."""
    request = _requests.read(body, quiet=True)
    if request is None or not request.model or not present(request.prompt):
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
    return answer


def _note(answer: Answer, body: _Body) -> None:
    """What answers and events have alike. The first model, id and tier stay, the last usage counts."""
    answer.response_model = answer.response_model or body.model or None
    answer.response_id = answer.response_id or body.id or None
    answer.service_tier = answer.service_tier or body.service_tier
    answer.usage = usage_of(body.usage) or answer.usage
    if present(body.error):
        fail_raw(answer, body.error)
    for choice in body.choices or ():
        if choice.finish_reason and not choice.index and answer.finish_reason is None:
            answer.finish_reason = choice.finish_reason


class Reader(SseReader):
    """Events are chunks; content is text in any choice."""

    __slots__ = ()

    format_name = NAME

    def read(self, name: bytes, data: bytes, whole: bool) -> int:  # noqa: D102
        body = _bodies.read(data, quiet=not whole)
        if name == b"error":
            fail_raw(self.answer, msgspec.Raw(data) if body is None or not present(body.error) else body.error)
            return OTHER
        if body is None:
            return OTHER if whole else IGNORED
        _note(self.answer, body)
        size = size_of_text(body.value) + sum(size_of_text(choice.text) for choice in body.choices or ())
        if not size:
            return OTHER
        self.text_size += size
        return PLAIN if body.usage is None and not self.answer.failed else CONTENT

    def template(self, event: bytes) -> Template | None:  # noqa: D102
        return text_template(event, _MARKS)


_MARKS = (b'"text":"', b'"text": "', b'"value":"', b'"value": "')

FORMAT = Format(
    name=NAME, operation="text_completion", read_request=read_request, read_answer=read_answer, new_reader=Reader
)
"""Text completions."""
