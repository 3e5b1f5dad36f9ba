"""InvokeModel and InvokeModelWithResponseStream of Amazon Bedrock, which carry the model family's own format.

https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters.html. One struct has the fields of all families:
their names hardly meet, and the id of an inference profile does not tell which family answers.
"""

# ruff: noqa: N815  the families' own names

from __future__ import annotations

import msgspec

from ..answer import Answer
from ..sse import CONTENT, IGNORED, OTHER
from . import bedrock
from .anthropic_usage import AnthropicUsage
from .anthropic_usage import usage_of as counted_by
from .bodies import Body, add_tool, fail_raw, filled, present, size_of_text
from .openai_usage import OpenAIUsage, usage_of

NAME = "bedrock_invoke"


class _Function(msgspec.Struct, gc=False):
    name: str | None = None
    arguments: msgspec.Raw = msgspec.Raw()


class _ToolCall(msgspec.Struct, gc=False):
    index: int | None = None
    name: str | None = None  # Cohere
    function: _Function | None = None


class _Message(msgspec.Struct, gc=False):
    """A message of OpenAI's shape, or a piece of one."""

    content: msgspec.Raw = msgspec.Raw()
    reasoning_content: msgspec.Raw = msgspec.Raw()
    reasoning: msgspec.Raw = msgspec.Raw()
    refusal: msgspec.Raw = msgspec.Raw()
    tool_calls: list[_ToolCall] | None = None


class _Finish(msgspec.Struct, gc=False):
    reason: str | None = None


class _Piece(msgspec.Struct, gc=False):
    """One of several answers, wherever a family puts them."""

    index: int | None = None
    text: msgspec.Raw = msgspec.Raw()
    message: _Message | None = None
    delta: _Message | None = None
    tokenCount: int | None = None
    finish_reason: str | None = None
    stop_reason: str | None = None
    completionReason: str | None = None
    finishReason: _Finish | None = None


class _Block(msgspec.Struct, gc=False):
    type: str | None = None
    name: str | None = None


class _Start(msgspec.Struct, gc=False):
    id: str | None = None
    model: str | None = None
    usage: AnthropicUsage | None = None


class _Delta(msgspec.Struct, gc=False):
    type: str | None = None
    stop_reason: str | None = None
    text: msgspec.Raw = msgspec.Raw()
    thinking: msgspec.Raw = msgspec.Raw()
    partial_json: msgspec.Raw = msgspec.Raw()


class _Meta(msgspec.Struct, gc=False):
    billed_units: AnthropicUsage | None = None


class _Cohere(msgspec.Struct, gc=False):
    response_id: str | None = None
    meta: _Meta | None = None


class _Event(msgspec.Struct, gc=False):
    """A whole answer, or one chunk of a stream."""

    id: str | None = None
    model: str | None = None
    usage: msgspec.Raw = msgspec.Raw()
    error: msgspec.Raw = msgspec.Raw()
    stop_reason: str | None = None
    # Anthropic
    type: str | None = None
    message: _Start | None = None
    content: list[_Block] | None = None
    content_block: _Block | None = None
    delta: _Delta | None = None
    completion: msgspec.Raw = msgspec.Raw()
    # Nova: the messages of Converse
    output: msgspec.Raw = msgspec.Raw()
    contentBlockStart: bedrock.Converse | None = None
    contentBlockDelta: bedrock.Converse | None = None
    messageStop: bedrock.Converse | None = None
    metadata: bedrock.Converse | None = None
    # Titan, text and embeddings
    inputTextTokenCount: int | None = None
    embedding: msgspec.Raw = msgspec.Raw()
    embeddings: msgspec.Raw = msgspec.Raw()  # also Cohere's
    totalOutputTextTokenCount: int | None = None
    outputText: msgspec.Raw = msgspec.Raw()
    completionReason: str | None = None
    results: list[_Piece] | None = None  # also Cohere's documents, ranked
    # Llama
    generation: msgspec.Raw = msgspec.Raw()
    prompt_token_count: int | None = None
    generation_token_count: int | None = None
    # Cohere
    response_id: str | None = None
    text: msgspec.Raw = msgspec.Raw()
    finish_reason: str | None = None
    tool_calls: list[_ToolCall] | None = None
    generations: list[_Piece] | None = None
    meta: _Meta | None = None
    response: _Cohere | None = None
    # AI21, DeepSeek, Mistral, OpenAI, Qwen, Writer; the older ones of Mistral; of AI21
    choices: list[_Piece] | None = None
    outputs: list[_Piece] | None = None
    completions: list[_Piece] | None = None
    # Bedrock itself, in the last chunk
    metrics: bedrock.TokenUsage | None = msgspec.field(default=None, name="amazon-bedrock-invocationMetrics")


class _Chunk(msgspec.Struct, gc=False):
    data: bytes | None = msgspec.field(default=None, name="bytes")  # base64 in the JSON


_events = Body(_Event, NAME)
_chunks = Body(_Chunk, NAME)
_tokens = Body(AnthropicUsage, NAME)
_openai = Body(OpenAIUsage, NAME)
_converse = Body(bedrock.Converse, NAME)

_CONTENT_DELTAS = {"text_delta": "text", "thinking_delta": "thinking", "input_json_delta": "partial_json"}


def _read(data: bytes) -> Answer:
    notes = _Notes(Answer())
    event = _events.read(data)
    if event is not None:
        notes.take(event)
        if present(event.output):
            whole = _converse.read(data)
            if whole is not None:
                bedrock.note(notes.answer, whole)
    return notes.answer


class _Notes:
    """What the events of one answer have stated so far. Counts are cumulative and replace each other one by one."""

    __slots__ = ("_calls", "_tokens", "answer")

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self._tokens = AnthropicUsage()
        self._calls: set[tuple[int | None, int]] = set()

    def take(self, event: _Event) -> None:
        """Take over what a whole answer or an event states."""
        answer = self.answer
        start = event.message or _Start()
        cohere = event.response or _Cohere()
        answer.response_model = start.model or event.model or answer.response_model
        answer.response_id = start.id or event.id or event.response_id or cohere.response_id or answer.response_id
        pieces = _pieces(event)
        self._take_tokens(event, start, cohere, pieces)
        for reason in (
            event.stop_reason,
            event.delta.stop_reason if event.delta is not None else None,
            event.finish_reason,
            event.completionReason,
            *(_finish_of(piece) for piece in pieces if not piece.index),
        ):
            answer.finish_reason = reason or answer.finish_reason
        for block in (*(event.content or ()), event.content_block):
            if block is not None and block.type == "tool_use":
                add_tool(answer, block.name)
        for call in event.tool_calls or ():
            add_tool(answer, call.name)
        for piece in pieces:
            self._take_calls(piece)
        for part in (event.contentBlockStart, event.messageStop, event.metadata):
            if part is not None:
                bedrock.note(answer, part)
        if present(event.embedding) or present(event.embeddings):
            answer.operation = "embeddings"
        if present(event.error):
            fail_raw(answer, event.error)
        bedrock.fill(answer, bedrock.usage_of(event.metrics))

    def _take_tokens(self, event: _Event, start: _Start, cohere: _Cohere, pieces: list[_Piece]) -> None:
        if event.choices is not None:
            stated = _openai.read(bytes(event.usage)) if present(event.usage) else None
            self.answer.usage = usage_of(stated) or self.answer.usage
            return
        usage = _tokens.read(bytes(event.usage)) if present(event.usage) else None
        counted = [piece.tokenCount for piece in pieces if piece.tokenCount is not None]
        plain = AnthropicUsage(
            input_tokens=_first(event.inputTextTokenCount, event.prompt_token_count),
            output_tokens=_first(
                event.totalOutputTextTokenCount, event.generation_token_count, sum(counted) if counted else None
            ),
        )
        billed = [meta.billed_units for meta in (event.meta, cohere.meta) if meta is not None]
        changed = False
        for tokens in (start.usage, usage, plain, *billed):
            if tokens is not None:
                changed = self._tokens.merge(tokens) or changed
        if changed:
            self.answer.usage = counted_by(self._tokens) or self.answer.usage
            self.answer.service_tier = self._tokens.service_tier or self.answer.service_tier

    def _take_calls(self, piece: _Piece) -> None:
        """Names of functions, each once: some servers repeat the name with every piece of the arguments."""
        for message in (piece.message, piece.delta):
            for call in (message.tool_calls if message is not None else None) or ():
                if call.function is None:
                    continue
                key = None if call.index is None else (piece.index, call.index)
                if key not in self._calls and add_tool(self.answer, call.function.name) and key is not None:
                    self._calls.add(key)


def _pieces(event: _Event) -> list[_Piece]:
    return event.choices or event.outputs or event.generations or event.completions or event.results or []


def _finish_of(piece: _Piece) -> str | None:
    reason = piece.finishReason.reason if piece.finishReason is not None else None
    return piece.finish_reason or piece.stop_reason or piece.completionReason or reason


def _first(*values: int | None) -> int | None:
    return next((value for value in values if value is not None), None)


def _size_of_content(event: _Event) -> int | None:
    """Bytes of the text, the reasoning or the tool call in an event, as in the JSON; None where it is no content.

    Anthropic's and Nova's deltas are content by their kind, also empty ones; of the others only what has text.
    """
    if event.delta is not None:
        key = _CONTENT_DELTAS.get(event.delta.type or "")
        return None if key is None else size_of_text(getattr(event.delta, key))
    if event.contentBlockDelta is not None:
        return bedrock.size_of_content(event.contentBlockDelta)
    texts = [event.outputText, event.generation, event.completion, event.text]
    calls = len(event.tool_calls or ())
    for piece in _pieces(event):
        texts.append(piece.text)
        for message in (piece.message, piece.delta):
            if message is None:
                continue
            texts += (message.content, message.reasoning_content, message.reasoning, message.refusal)
            calls += len(message.tool_calls or ())
            texts += (call.function.arguments for call in message.tool_calls or () if call.function is not None)
    return sum(map(size_of_text, texts)) if calls or any(map(filled, texts)) else None


class Reader(bedrock.Reader):
    """Events are the stream's chunks, each an event of the model family; the last one has Bedrock's metrics."""

    __slots__ = ("_notes",)

    format_name = NAME

    def __init__(self) -> None:
        super().__init__()
        self._notes = _Notes(self.answer)

    def read(self, name: bytes, data: bytes) -> int:  # noqa: D102
        chunk = _chunks.read(data)
        event = _events.read(chunk.data) if chunk is not None and chunk.data else None
        if event is None:
            return OTHER
        if event.type == "ping":
            return IGNORED
        if event.type != "content_block_delta" or event.metrics is not None:  # most of Claude's events state nothing
            self._notes.take(event)
        self.done = self.done or event.metrics is not None or event.type == "message_stop"
        size = _size_of_content(event)
        self.text_size += size or 0
        return OTHER if size is None else CONTENT


FORMAT, STREAM = bedrock.formats(NAME, _read, Reader)
"""`/model/<id>/invoke` and `/model/<id>/invoke-with-response-stream`; models for embeddings answer here, too."""
