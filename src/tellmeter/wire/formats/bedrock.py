"""What the formats of Amazon Bedrock share: Converse's messages, tokens, errors, and requests that name no model.

Nova speaks in Converse's messages under InvokeModel, too:
https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html and ..._ConverseStream.html. Bedrock
states input without what was read from or written to a cache; here the input holds both.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

import msgspec

from ...usage import Usage
from ..answer import Answer, Asked, Format
from ..event_stream import CONTENT_TYPE, EventStreamReader, begins_frames
from .bodies import Body, add_tool, fail, present, size_of_text, untyped

_CALLS = (None, "tool_use")  # of a tool that the client is to run; `server_tool_use` runs at Amazon


class _Cached(msgspec.Struct, rename="camel", gc=False):
    input_tokens: int | None = None
    ttl: str | None = None


class TokenUsage(msgspec.Struct, rename="camel", gc=False):
    """Tokens in the spellings of Converse, of Nova and of the invocation metrics."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_write_input_tokens: int | None = None
    cache_details: list[_Cached] | None = None
    input_token_count: int | None = None
    output_token_count: int | None = None
    cache_read_input_token_count: int | None = None
    cache_write_input_token_count: int | None = None


class _ToolUse(msgspec.Struct, gc=False):
    name: str | None = None
    type: str | None = None
    input: msgspec.Raw = msgspec.Raw()


class _Reasoning(msgspec.Struct, gc=False):
    text: msgspec.Raw = msgspec.Raw()


class _Delta(msgspec.Struct, rename="camel", gc=False):
    text: msgspec.Raw = msgspec.Raw()
    image: msgspec.Raw = msgspec.Raw()
    tool_use: _ToolUse | None = None
    reasoning_content: _Reasoning | None = None


class _Block(msgspec.Struct, rename="camel", gc=False):
    tool_use: _ToolUse | None = None


class _Message(msgspec.Struct, gc=False):
    content: list[_Block] | None = None


class _Output(msgspec.Struct, gc=False):
    message: _Message | None = None


class _Router(msgspec.Struct, rename="camel", gc=False):
    invoked_model_id: str | None = None


class _Trace(msgspec.Struct, rename="camel", gc=False):
    prompt_router: _Router | None = None


class _Tier(msgspec.Struct, gc=False):
    type: str | None = None


class Converse(msgspec.Struct, rename="camel", gc=False):
    """A whole answer, and the payload of any event of a stream."""

    output: _Output | None = None
    start: _Block | None = None
    delta: _Delta | None = None
    stop_reason: str | None = None
    usage: TokenUsage | None = None
    trace: _Trace | None = None
    service_tier: _Tier | None = None


def usage_of(stated: TokenUsage | None) -> Usage | None:
    """Tokens as they are billed; None where nothing is stated."""
    if stated is None:
        return None
    given = _either(stated.input_tokens, stated.input_token_count)
    made = _either(stated.output_tokens, stated.output_token_count)
    if given is None and made is None:
        return None
    read = _either(stated.cache_read_input_tokens, stated.cache_read_input_token_count) or 0
    written = _either(stated.cache_write_input_tokens, stated.cache_write_input_token_count) or 0
    return Usage(
        input_tokens=(given or 0) + read + written,
        output_tokens=made or 0,
        cached_tokens=read,
        cache_write_tokens=written,
        cache_write_1h_tokens=sum(one.input_tokens or 0 for one in stated.cache_details or () if one.ttl == "1h"),
    )


def _either(one: int | None, other: int | None) -> int | None:
    return other if one is None else one


def note(answer: Answer, body: Converse) -> None:
    """Take over what an answer or an event states."""
    answer.finish_reason = body.stop_reason or answer.finish_reason
    answer.usage = usage_of(body.usage) or answer.usage
    if body.service_tier is not None:
        answer.service_tier = body.service_tier.type or answer.service_tier
    if body.trace is not None and body.trace.prompt_router is not None:  # which chose the model that answered
        answer.response_model = body.trace.prompt_router.invoked_model_id or answer.response_model
    message = body.output.message if body.output is not None else None
    for block in (message.content if message is not None else None) or (body.start,):
        if block is not None and block.tool_use is not None and block.tool_use.type in _CALLS:
            add_tool(answer, block.tool_use.name)


def size_of_content(event: Converse) -> int | None:
    """Bytes of the text, the reasoning or the tool's input in an event, as in the JSON; None where it is no content.

    An empty piece is content, as with Anthropic: with it models begin a block. Signatures, encrypted reasoning,
    citations and the results of Amazon's own tools are not what the model writes.
    """
    delta = event.delta
    if delta is None:
        return None
    for text in (
        delta.text,
        delta.tool_use.input if delta.tool_use is not None else None,
        delta.reasoning_content.text if delta.reasoning_content is not None else None,
    ):
        if text is not None and present(text):
            return size_of_text(text)
    return 0 if present(delta.image) else None


def fill(answer: Answer, stated: Usage | None) -> None:
    """Take from a side channel what the message itself left open; its own counts stay.

    Where a guardrail acts, Nova's answer states its input alone.
    """
    if stated is None:
        return
    own = answer.usage
    if own is None:
        answer.usage = stated
        return
    if not own.input_tokens:
        own.input_tokens = stated.input_tokens
        own.cached_tokens = stated.cached_tokens
        own.cache_write_tokens = stated.cache_write_tokens
    own.output_tokens = own.output_tokens or stated.output_tokens


def read_headers(answer: Answer, header: Callable[[str], str]) -> None:
    """Take what only an answer's headers say: `header` gives one by its name in lower case, "" where there is none.

    The name of an error, and for InvokeModel the tier and the tokens (x-amzn-bedrock-input-token-count and the like).
    """
    name = header("x-amzn-errortype")
    if name and not answer.error_type:
        fail(answer, {"type": _bare(name)})
    answer.service_tier = answer.service_tier or header("x-amzn-bedrock-service-tier") or None

    def count(kind: str) -> int | None:
        value = header(f"x-amzn-bedrock-{kind}-token-count")
        return int(value) if value.isdecimal() and len(value) < 16 else None

    stated = TokenUsage(
        input_token_count=count("input"),
        output_token_count=count("output"),
        cache_read_input_token_count=count("cache-read-input"),
        cache_write_input_token_count=count("cache-write-input"),
    )
    fill(answer, usage_of(stated))


def fail_with(answer: Answer, error: Any, name: str = "") -> None:
    """Note an error: its body, and its name where a header of the stream has it.

    AWS's own errors are `{"message"}`, some with a `__type` and, from the model, with an `originalStatusCode`.
    """
    fail(answer, error)
    body = error if isinstance(error, dict) else {}
    fail(answer, {"type": _bare(name or str(body.get("__type") or "")), "code": body.get("originalStatusCode")})


def _bare(name: str) -> str:
    """`ThrottlingException` of `com.amazon.coral.service#ThrottlingException:http://internal.amazon.com/...`."""
    return name.partition(":")[0].rpartition("#")[2]


class Reader(EventStreamReader):
    """What the streams share: exceptions."""

    __slots__ = ()

    def fail(self, name: str, data: bytes) -> None:  # noqa: D102
        fail_with(self.answer, untyped(data), name)


class _Request(msgspec.Struct, gc=False):
    """All that is read of a request is in its path."""


def formats(name: str, read: Callable[[bytes], Answer], new_reader: Callable[[], Reader]) -> tuple[Format, Format]:
    """The format of an operation, and that of its twin that streams. `read` reads a whole answer of status 200.

    Which of the two it is, and the model, are in the path: `Asked.model` is "", and `read_path` has it.
    """
    requests = Body(_Request, name)

    def read_request(body: bytes) -> Asked | None:
        return None if requests.read(body, quiet=True) is None else Asked(model="")

    def read_stream_request(body: bytes) -> Asked | None:
        return None if requests.read(body, quiet=True) is None else Asked(model="", stream=True)

    def read_answer(body: bytes, status_code: int) -> Answer:
        return _read_whole(body, status_code, read, new_reader)

    plain = Format(
        name=name,
        operation="chat",
        read_request=read_request,
        read_answer=read_answer,
        new_reader=new_reader,
        stream_types=(CONTENT_TYPE,),
        begins_stream=begins_frames,
        read_path=model_in_path,
        read_headers=read_headers,
    )
    return plain, msgspec.structs.replace(plain, read_request=read_stream_request)


def _read_whole(
    body: bytes, status_code: int, read: Callable[[bytes], Answer], new_reader: Callable[[], Reader]
) -> Answer:
    """The answer in a whole body of any status; a stream that was read at once is read as a stream."""
    if begins_frames(body):
        reader = new_reader()
        reader.feed(body)
        answer = reader.answer
    elif status_code >= 400:
        answer = Answer()
        fail_with(answer, untyped(body))
    else:
        answer = read(body)
    answer.failed = answer.failed or status_code >= 400
    return answer


def model_in_path(path: str) -> str | None:
    """The model that `/model/<id>/<operation>` names, whole: of an ARN the slash may come decoded."""
    _, _, rest = path.partition("?")[0].rstrip("/").partition("/model/")
    return unquote(rest.rpartition("/")[0]) or None
