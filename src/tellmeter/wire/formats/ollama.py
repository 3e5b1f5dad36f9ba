"""Ollama's own API: chat, generate, and embeddings; under `/v1` it speaks OpenAI's formats.

https://docs.ollama.com/api. A stream is JSON lines; the last one is `done`, and states the tokens. Where the prompt was
in the server's cache, older versions leave `prompt_eval_count` out.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from ...usage import Usage
from ..answer import Answer, Asked, Format
from ..json_lines import JsonLinesReader, first_line
from ..sse import CONTENT, IGNORED, OTHER
from .bodies import Body, add_tool, fail_raw, filled, present, read_whole, size_of_text

NAME = "ollama"


class _Turn(msgspec.Struct, gc=False):
    role: str | None = None


class _Request(msgspec.Struct, gc=False):
    model: str | None = None
    messages: list[_Turn] | None = None
    prompt: str | None = None
    input: msgspec.Raw = msgspec.Raw()
    stream: bool | None = None


class _Function(msgspec.Struct, gc=False):
    name: str | None = None
    arguments: msgspec.Raw = msgspec.Raw()


class _ToolCall(msgspec.Struct, gc=False):
    function: _Function | None = None


class _Piece(msgspec.Struct, gc=False):
    """What the model wrote: in chat a message, in generate the body itself."""

    content: msgspec.Raw = msgspec.Raw()
    response: msgspec.Raw = msgspec.Raw()
    thinking: msgspec.Raw = msgspec.Raw()
    tool_calls: list[_ToolCall] | None = None


class _Body(_Piece, gc=False):
    """A whole answer, and a line of a stream."""

    model: str | None = None
    message: _Piece | None = None
    done: bool | None = None
    done_reason: str | None = None
    prompt_eval_count: int | None = None
    eval_count: int | None = None
    error: msgspec.Raw = msgspec.Raw()


_requests = Body(_Request, NAME)
_bodies = Body(_Body, NAME)


def read_answer(body: bytes, status_code: int) -> Answer:
    """A whole answer."""
    return read_whole(body, status_code, _read, Reader, begins_stream)


def begins_stream(body: bytes) -> bool:
    """Whether a body is a stream: its first line says that more will come."""
    line = _bodies.read(first_line(body), quiet=True)
    return line is not None and line.done is False


def _read(data: bytes) -> Answer:
    answer = Answer()
    body = _bodies.read(data)
    if body is not None:
        _note(answer, body)
    return answer


def _note(answer: Answer, body: _Body) -> None:
    """What answers and lines have alike. A tool call always comes whole."""
    answer.response_model = answer.response_model or body.model or None
    answer.finish_reason = body.done_reason or answer.finish_reason
    if body.prompt_eval_count is not None or body.eval_count is not None:
        answer.usage = Usage(input_tokens=body.prompt_eval_count or 0, output_tokens=body.eval_count or 0)
    for call in (body.message or body).tool_calls or ():
        if call.function is not None:
            add_tool(answer, call.function.name)
    if present(body.error):
        fail_raw(answer, body.error)


class Reader(JsonLinesReader):
    """Events are lines; content is text, thinking or a tool call."""

    __slots__ = ()

    format_name = NAME

    def read(self, data: bytes, whole: bool) -> int:  # noqa: D102
        body = _bodies.read(data, quiet=not whole)
        if body is None:
            return OTHER if whole else IGNORED
        _note(self.answer, body)
        self.done = self.done or body.done is True
        piece = body.message or body
        size = size_of_text(piece.content) + size_of_text(piece.response) + size_of_text(piece.thinking)
        for call in piece.tool_calls or ():
            if call.function is not None:
                size += size_of_text(call.function.arguments)
        self.text_size += size
        return CONTENT if size or piece.tool_calls else OTHER


def _format(name: str, operation: str, asks: Callable[[_Request], object]) -> Format:
    """The format of the requests of which `asks` is true; without it they only load a model, or are not Ollama's."""

    def read_request(body: bytes) -> Asked | None:
        request = _requests.read(body, quiet=True)
        if request is None or not request.model or not asks(request):
            return None
        # What is generated is streamed where nothing else is said; embeddings never are.
        return Asked(model=request.model, stream=operation != "embeddings" and request.stream is not False)

    return Format(
        name=name,
        operation=operation,
        read_request=read_request,
        read_answer=read_answer,
        new_reader=Reader,
        stream_types=("application/x-ndjson",),
        begins_stream=begins_stream,
    )


CHAT = _format("ollama_chat", "chat", lambda request: any(turn.role for turn in request.messages or ()))
"""`/api/chat`: messages with roles."""

GENERATE = _format("ollama_generate", "text_completion", lambda request: request.prompt)
"""`/api/generate`: a prompt, which is text."""

EMBED = _format("ollama_embed", "embeddings", lambda request: filled(request.input))
"""`/api/embed`: an input, one text or several."""

EMBEDDINGS = _format("ollama_embeddings", "embeddings", lambda request: request.prompt)
"""`/api/embeddings`, its older form, which states no tokens."""
