"""Google's generateContent, streamGenerateContent and countTokens, of the Gemini API and of Vertex AI.

https://ai.google.dev/api/generate-content and https://cloud.google.com/vertex-ai/docs/reference/rest. Google states
output without thinking and input without what tools put into the prompt; here both are inside. The model is in the
path, and no body says whether a stream is asked for: that is another path.
"""

from __future__ import annotations

import re

import msgspec

from ...counts import count
from ...usage import Usage
from ..answer import Answer, Asked, Format
from ..google_path import read_path
from ..json_array import JsonObjects
from ..message import begins_event_stream
from ..sse import CONTENT, IGNORED, OTHER, SseReader
from .bodies import MAX_NAMES, Body, add_tool, fail_raw, filled, present, read_whole, size_of_text

NAME = "gemini"
COUNT_NAME = "gemini_count_tokens"

_BLANK = b"\xef\xbb\xbf \t\r\n"  # a byte order mark and white space
_ARRAY = re.compile(rb"\s*\[")
_FAILED = re.compile(rb'\s*\[\s*\{\s*"error"')

# Names of numbers, for answers asked for with `$alt=json;enum-encoding=int`: those on which both APIs agree.
_FINISH_REASONS = {1: "STOP", 2: "MAX_TOKENS", 3: "SAFETY", 4: "RECITATION"}
_UNSPECIFIED = (None, 0, "", "FINISH_REASON_UNSPECIFIED")
_AUDIO = ("AUDIO", 4)
# What Vertex AI calls the tiers that are billed otherwise.
_TIERS = {"ON_DEMAND_PRIORITY": "priority", "ON_DEMAND_FLEX": "flex"}


class _Request(msgspec.Struct, rename="camel", gc=False):
    contents: msgspec.Raw = msgspec.Raw()
    generate_content_request: msgspec.Raw = msgspec.Raw()  # counted by the Gemini API
    instances: msgspec.Raw = msgspec.Raw()  # counted by Vertex AI


class _Tokens(msgspec.Struct, rename="camel", gc=False):
    modality: str | int | None = None
    token_count: int | None = None


class _Usage(msgspec.Struct, rename="camel", gc=False):
    prompt_token_count: int | None = None
    candidates_token_count: int | None = None
    thoughts_token_count: int | None = None
    tool_use_prompt_token_count: int | None = None
    cached_content_token_count: int | None = None
    prompt_tokens_details: list[_Tokens] | None = None
    candidates_tokens_details: list[_Tokens] | None = None
    tool_use_prompt_tokens_details: list[_Tokens] | None = None
    cache_tokens_details: list[_Tokens] | None = None
    service_tier: str | None = None
    traffic_type: str | int | None = None


class _PartialArg(msgspec.Struct, rename="camel", gc=False):
    string_value: msgspec.Raw = msgspec.Raw()


class _Call(msgspec.Struct, rename="camel", gc=False):
    name: str | None = None
    tool_type: str | None = None
    args: msgspec.Raw = msgspec.Raw()
    partial_args: list[_PartialArg] | None = None  # Vertex AI's streamFunctionCallArguments


class _Code(msgspec.Struct, gc=False):
    code: msgspec.Raw = msgspec.Raw()


class _Part(msgspec.Struct, rename="camel", gc=False):
    """What is only looked at for being there stays undecoded. `thoughtSignature` is no content."""

    text: msgspec.Raw = msgspec.Raw()
    function_call: _Call | None = None
    tool_call: _Call | None = None  # of a tool that runs at Google
    executable_code: _Code | None = None
    tool_response: msgspec.Raw = msgspec.Raw()
    code_execution_result: msgspec.Raw = msgspec.Raw()
    inline_data: msgspec.Raw = msgspec.Raw()
    file_data: msgspec.Raw = msgspec.Raw()


class _Content(msgspec.Struct, gc=False):
    parts: list[_Part] | None = None


class _Candidate(msgspec.Struct, rename="camel", gc=False):
    index: int | None = None
    content: _Content | None = None
    finish_reason: str | int | None = None


class _Feedback(msgspec.Struct, rename="camel", gc=False):
    block_reason: str | int | None = None


class _Body(msgspec.Struct, rename="camel", gc=False):
    """A whole answer, and an event of a stream."""

    candidates: list[_Candidate] | None = None
    prompt_feedback: _Feedback | None = None
    usage_metadata: _Usage | None = None
    model_version: str | None = None
    response_id: str | None = None
    error: msgspec.Raw = msgspec.Raw()


_requests = Body(_Request, NAME)
_bodies = Body(_Body, NAME)
_counted = Body(_Body, COUNT_NAME)


def read_request(body: bytes) -> Asked | None:
    """Contents; the model is left to the path, as `""`."""
    request = _requests.read(body, quiet=True)
    return Asked(model="") if request is not None and present(request.contents) else None


def read_stream_request(body: bytes) -> Asked | None:
    """The same, of a path that asks for a stream."""
    asked = read_request(body)
    if asked is not None:
        asked.stream = True
    return asked


def read_count_request(body: bytes) -> Asked | None:
    """What is to be counted."""
    request = _requests.read(body, quiet=True)
    if request is None:
        return None
    given = (request.contents, request.generate_content_request, request.instances)
    return Asked(model="") if any(map(present, given)) else None


def read_answer(body: bytes, status_code: int) -> Answer:
    """A whole answer, or a stream of either kind that was read at once."""
    return read_whole(body, status_code, _read, Reader, _is_stream)


def read_count(body: bytes, status_code: int) -> Answer:
    """An answer of countTokens: nothing is generated and nothing billed, so it has 0 tokens and costs 0 dollars."""
    answer = read_whole(body, status_code, _read_count, Reader)
    answer.usage = None if answer.failed else Usage(cost_usd=0.0)
    return answer


def begins_stream(body: bytes) -> bool:
    """Whether a body is a stream, whatever its content type says; an array that only holds an error is none."""
    return _is_stream(body) and _FAILED.match(body) is None


def _is_stream(body: bytes) -> bool:
    return begins_event_stream(body) or _ARRAY.match(body) is not None


def _read(data: bytes) -> Answer:
    answer = Answer()
    body = _bodies.read(data)
    if body is not None:
        _note(answer, body)
    return answer


def _read_count(data: bytes) -> Answer:
    answer = Answer()
    counted = _counted.read(data)
    if counted is not None and present(counted.error):
        fail_raw(answer, counted.error)
    return answer


def _note(answer: Answer, body: _Body) -> None:
    """What answers and events have alike. The last usage counts, as it is cumulative."""
    answer.response_model = answer.response_model or body.model_version or None
    answer.response_id = answer.response_id or body.response_id or None
    stated = body.usage_metadata
    if stated is not None:
        answer.usage = _usage_of(stated) or answer.usage
        answer.service_tier = stated.service_tier or _TIERS.get(str(stated.traffic_type)) or answer.service_tier
    for candidate in body.candidates or ():
        if not candidate.index:
            answer.finish_reason = _finish_reason(candidate) or answer.finish_reason
        for part in _parts(candidate):
            if part.function_call is not None:
                add_tool(answer, part.function_call.name)
    if body.prompt_feedback is not None and body.prompt_feedback.block_reason:
        # Without a candidate there is no other word for why the model wrote nothing. The prompt is billed.
        answer.finish_reason = answer.finish_reason or str(body.prompt_feedback.block_reason)
    if present(body.error):
        fail_raw(answer, body.error)


def _parts(candidate: _Candidate) -> list[_Part]:
    return (candidate.content.parts if candidate.content is not None else None) or []


def _finish_reason(candidate: _Candidate) -> str | None:
    reason = candidate.finish_reason
    if reason in _UNSPECIFIED:
        return None
    return reason if isinstance(reason, str) else _FINISH_REASONS.get(reason or 0, str(reason))


def _usage_of(stated: _Usage) -> Usage | None:
    prompt, made, thoughts = stated.prompt_token_count, stated.candidates_token_count, stated.thoughts_token_count
    if prompt is None and made is None and thoughts is None:  # Vertex AI states the kind of traffic in every event
        return None
    return Usage(
        input_tokens=(prompt or 0) + (stated.tool_use_prompt_token_count or 0),
        output_tokens=(made or 0) + (thoughts or 0),
        cached_tokens=stated.cached_content_token_count or 0,
        reasoning_tokens=thoughts or 0,
        input_audio_tokens=_audio(stated.prompt_tokens_details) + _audio(stated.tool_use_prompt_tokens_details),
        cached_audio_tokens=_audio(stated.cache_tokens_details),
        output_audio_tokens=_audio(stated.candidates_tokens_details),
    )


def _audio(details: list[_Tokens] | None) -> int:
    return sum(one.token_count or 0 for one in details or () if one.modality in _AUDIO)


def _size_of(part: _Part) -> int | None:
    """Bytes of the text, arguments and code in a part; None where it holds no content at all."""
    size = size_of_text(part.text)
    if size:  # a part is of one kind
        return size
    calls = [call for call in (part.function_call, part.tool_call) if call is not None]
    texts = [call.args for call in calls]
    texts += (piece.string_value for call in calls for piece in call.partial_args or ())
    if part.executable_code is not None:
        texts.append(part.executable_code.code)
    size = sum(map(size_of_text, texts))
    others = (part.inline_data, part.file_data, part.tool_response, part.code_execution_result)
    if size or any(call.name or call.tool_type or call.partial_args for call in calls) or any(map(filled, others)):
        return size
    return None


class Reader(SseReader):
    """Events are partial answers: server-sent, or the objects of one JSON array; the first bytes tell which.

    Content is text (thoughts, too), code, data and tool calls of any candidate; an event that holds only a signature,
    empty text, grounding, a reason to finish or usage is none. The stream is done once all its candidates finished.
    """

    __slots__ = ("_objects", "_open", "_told")

    format_name = NAME
    final_events = (b'"candidates"', b'"usageMetadata"')  # every event may hold an image, and states the usage

    def __init__(self) -> None:
        super().__init__()
        self._told = False  # which of both it is
        self._objects: JsonObjects | None = None
        self._open: set[int] = set()  # candidates that go on

    def feed(self, data: bytes) -> None:
        """Read the next bytes."""
        if not self._told:
            data = data.lstrip(_BLANK)
            self._told = bool(data)
            if data.startswith((b"[", b"{")):  # a single object is an error, or the answer of a proxy
                self._objects = JsonObjects()
        if self._objects is None:
            super().feed(data)
            return
        try:
            for found in self._objects.feed(data):
                if found is None:
                    self._oversize()
                else:  # as an event of one line: its line feeds stand between tokens
                    self._event(b"data: " + found.replace(b"\n", b" "))
        except Exception:
            count("unreadable_stream", self.format_name)

    def read(self, name: bytes, data: bytes, whole: bool) -> int:  # noqa: D102
        body = _bodies.read(data, quiet=not whole)
        if body is None:
            return OTHER if whole else IGNORED
        _note(self.answer, body)
        content = False
        for candidate in body.candidates or ():
            for part in _parts(candidate):
                size = _size_of(part)
                if size is not None:
                    content = True
                    self.text_size += size
        self._note_done(body)
        return CONTENT if content else OTHER

    def _note_done(self, body: _Body) -> None:
        for candidate in body.candidates or ():
            if _finish_reason(candidate) is not None:
                self._open.discard(candidate.index or 0)
            elif len(self._open) < MAX_NAMES:
                self._open.add(candidate.index or 0)
        if body.candidates or self.answer.finish_reason is not None:
            self.done = not self._open


FORMAT = Format(
    name=NAME,
    operation="chat",
    read_request=read_request,
    read_answer=read_answer,
    new_reader=Reader,
    read_path=read_path,
)
"""generateContent."""

STREAM = Format(
    name=NAME,
    operation="chat",
    read_request=read_stream_request,
    read_answer=read_answer,
    new_reader=Reader,
    stream_types=("text/event-stream", "application/json"),
    begins_stream=begins_stream,
    read_path=read_path,
)
"""streamGenerateContent."""

COUNT_TOKENS = Format(
    name=COUNT_NAME,
    operation="count_tokens",
    read_request=read_count_request,
    read_answer=read_count,
    new_reader=Reader,
    read_path=read_path,
)
"""countTokens."""
