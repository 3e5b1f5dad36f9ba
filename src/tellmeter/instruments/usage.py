"""Reading tokens, model and finish reason from whatever a function that called an LLM returns or yields.

Dicts, SDK objects, pydantic models, dataclasses, structs: a name is looked up, and what is not there, or raises, is not
stated. Pure, of bounded work whatever the value is, and it keeps no text of an answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..usage import Usage
from ..wire.answer import Answer
from ..wire.formats.openai_usage import OpenAIUsage, usage_of
from .lookup import SILENT, count, first, get, is_a, text

# What an item of a stream has that is worth reading whole: all others are looked at for their end alone.
_CARRIERS = (
    "usage",
    "usage_metadata",
    "usageMetadata",
    "response",
    "message",
    "metadata",
    "x_groq",
    "prompt_tokens",
    "completion_tokens",
    "input_tokens",
    "output_tokens",
    "prompt_eval_count",
    "eval_count",
)
_BARE = ("prompt_tokens", "completion_tokens", "input_tokens", "output_tokens")
_OPENAI_COUNTS = (
    "prompt_tokens",
    "completion_tokens",
    "total_tokens",
    "prompt_cache_hit_tokens",
    "cached_tokens",
    "num_cached_tokens",
    "cache_creation_input_tokens",
    "reasoning_tokens",
)


def read_result(value: Any) -> Answer:
    """What a function's result states; of a pair, what one of the two states that the other does not."""
    reading = Reading()
    reading.take(value)
    answer = reading.answer
    if answer.usage is None and is_a(value, tuple) and tuple.__len__(value) == 2:
        first, second = (read_result(part) if type(part) is not tuple else Answer() for part in tuple.__iter__(value))
        return _joined(first, second)
    return answer


def _joined(first: Answer, second: Answer) -> Answer:
    """Two parts of one answer; where both state a usage and they differ, nobody knows which one counts."""
    if first.usage is not None and second.usage is not None and first.usage != second.usage:
        first.usage = second.usage = None
    for name in ("usage", "response_model", "response_id", "finish_reason", "service_tier"):
        if getattr(first, name) is None:
            setattr(first, name, getattr(second, name))
    return first


def has_content(item: object) -> bool:
    """Whether an item of a stream brings something that was generated: not a role, a ping, a usage or the end."""
    try:
        return _has_content(item)
    except Exception:  # a text that has no length
        return True


def status_code_of(error: BaseException | None) -> int | None:
    """The HTTP status that an SDK's exception carries."""
    code = count(get(error, "status_code")) if error is not None else None
    return code if code is not None and 100 <= code <= 999 else None


class Reading:
    """What the items of a stream state, one after the other; a result is a stream of one."""

    __slots__ = ("_begun", "_counts", "answer")

    def __init__(self) -> None:
        self.answer = Answer()
        self._begun = False
        self._counts: dict[str, int] = {}

    def take(self, item: object) -> None:
        """Read an item. The last word counts; Anthropic's counts replace each other one by one. Never raises."""
        if type(item) in SILENT:
            return
        try:
            if not self._begun or _carries(item):
                self._begun = True
                self._read(item)
            else:
                reason = get(first(get(item, "choices")), "finish_reason") or get(
                    get(item, "messageStop"), "stopReason"
                )
                self.answer.finish_reason = text(reason) or self.answer.finish_reason
        except Exception:  # the likes of a RecursionError
            return

    def _read(self, item: object) -> None:
        self._note_usage(self._usage(item))
        for part in (get(item, "response"), get(item, "message"), item):
            if type(part) not in SILENT:
                self._describe(part)
        self._note_end(item)

    def _note_usage(self, usage: Usage | None) -> None:
        if usage is not None:
            self.answer.usage = usage

    def _usage(self, item: object) -> Usage | None:
        """The message's own usage before what is beside it."""
        for part in (item, get(item, "response"), get(item, "message"), get(item, "metadata"), get(item, "delta")):
            if type(part) in SILENT:
                continue
            for name in ("usage", "usage_metadata", "usageMetadata", "meta"):
                stated = get(part, name)
                if type(stated) not in SILENT:
                    usage = self._counted(stated)
                    if usage is not None:
                        return usage
        beside = get(get(item, "x_groq"), "usage")
        return (self._counted(beside) if beside is not None else None) or self._bare(item)

    def _bare(self, item: object) -> Usage | None:
        """The usage that the item itself is; Ollama states it beside the text. A total alone may be anything's."""
        if any(count(get(item, name)) is not None for name in _BARE):
            return self._counted(item)
        return _ollama(item)

    def _counted(self, stated: object) -> Usage | None:
        """The counts of a usage object, in whichever way its provider counts."""
        if any(count(get(stated, name)) is not None for name in ("prompt_tokens", "completion_tokens")):
            return _openai(stated)
        return self._named_in_and_out(stated) or _gemini(stated) or _bedrock(stated) or _cohere(stated) or _rest(stated)

    def _named_in_and_out(self, stated: object) -> Usage | None:
        """`input_tokens` and `output_tokens` of the Responses API, of Anthropic and of LangChain."""
        counts = self._counts
        if count(get(stated, "input_tokens")) is None and count(get(stated, "output_tokens")) is None:
            return None
        for name in ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens"):
            _keep(counts, name, get(stated, name))
        written = get(stated, "cache_creation")
        for name in ("ephemeral_5m_input_tokens", "ephemeral_1h_input_tokens"):
            _keep(counts, name, get(written, name))
        # OpenAI's name of the details, LangChain's, and who calls them by what they are.
        inside = get(stated, "input_tokens_details") or get(stated, "input_token_details")
        outside = get(stated, "output_tokens_details") or get(stated, "output_token_details")
        for name, *places in (
            ("cached", (inside, "cached_tokens"), (inside, "cache_read"), (stated, "cached_tokens")),
            ("written", (inside, "cache_write_tokens"), (inside, "cache_creation")),
            ("reasoning", (outside, "reasoning_tokens"), (outside, "thinking_tokens"), (outside, "reasoning")),
        ):
            for place, key in places:
                _keep(counts, name, get(place, key))
        return _in_and_out(counts, _cost(stated))

    def _describe(self, part: object) -> None:
        """Model, ids and tier; an id is a request's only where tokens are stated beside it."""
        answer = self.answer
        more = get(part, "response_metadata")  # LangChain
        answer.response_model = (
            text(get(part, "model"))
            or text(get(part, "model_version"))
            or text(get(part, "modelVersion"))
            or text(get(more, "model_name"))
            or answer.response_model
        )
        answer.service_tier = (
            text(get(part, "service_tier")) or text(get(get(part, "usage"), "service_tier")) or answer.service_tier
        )
        if answer.usage is not None:
            answer.response_id = (
                text(get(part, "_request_id"))
                or text(get(part, "id"))
                or text(get(part, "response_id"))
                or text(get(part, "responseId"))
                or text(get(get(part, "ResponseMetadata"), "RequestId"))
                or answer.response_id
            )

    def _note_end(self, item: object) -> None:
        answer = self.answer
        for part in (item, get(item, "response"), get(item, "message"), get(item, "delta"), get(item, "messageStop")):
            if type(part) not in SILENT:
                answer.finish_reason = _finish_reason(part) or answer.finish_reason


def _carries(item: object) -> bool:
    for name in _CARRIERS:  # any() would cost as much as the looking
        if get(item, name) is not None:
            return True
    return get(get(item, "delta"), "usage") is not None  # Cohere


def _has_content(item: Any) -> bool:
    if item is None or is_a(item, (str, bytes)):
        return bool(item)
    choices = get(item, "choices")
    if is_a(choices, (list, tuple)):
        choice = first(choices)
        delta = get(choice, "delta")
        names = ("content", "reasoning_content", "reasoning", "refusal", "tool_calls", "function_call")
        return any(_filled(get(delta, name)) for name in names) or _filled(get(choice, "text"))
    kind = text(get(item, "type")) or ""
    if "." in kind or "_" in kind:  # Responses and Anthropic name their events
        return "delta" in kind and kind != "message_delta"
    return get(item, "messageStart") is None  # Bedrock


def _filled(value: Any) -> bool:
    return value is not None and not (is_a(value, (str, list, tuple)) and len(value) == 0)


def _keep(counts: dict[str, int], name: str, value: object) -> None:
    number = count(value)
    if number is not None:
        counts[name] = number


def _cost(stated: object) -> float | None:
    """The dollars that the provider itself states (OpenRouter)."""
    cost = get(stated, "cost")
    return float(cost) if type(cost) in {int, float} and 0 <= cost < 1e9 else None


def _finish_reason(part: object) -> str | None:
    choice = first(get(part, "choices")) or first(get(part, "candidates"))
    for place in (choice, part, get(part, "response_metadata")):
        if place is None:
            continue
        for name in ("finish_reason", "stop_reason", "stopReason", "finishReason", "done_reason"):
            reason = text(get(place, name))
            if reason:
                return reason
    if get(part, "object") == "response":  # the Responses API, whose other statuses are not its end
        status = text(get(part, "status"))
        return text(get(get(part, "incomplete_details"), "reason")) or (status if status != "in_progress" else None)
    return None


def _openai(stated: object) -> Usage | None:
    """`prompt_tokens` and `completion_tokens`, as nearly everybody states them; LiteLLM's hold cache reads."""
    known = OpenAIUsage(**{name: count(get(stated, name)) for name in _OPENAI_COUNTS}, cost=_cost(stated))  # type: ignore[arg-type]
    usage = usage_of(known)
    if usage is None:
        return None
    inside, outside = get(stated, "prompt_tokens_details"), get(stated, "completion_tokens_details")
    usage.cached_tokens = (
        count(get(inside, "cached_tokens")) or usage.cached_tokens or count(get(stated, "cache_read_input_tokens")) or 0
    )
    usage.cache_write_tokens = (
        count(get(inside, "cache_write_tokens"))
        or count(get(inside, "cache_creation_tokens"))
        or usage.cache_write_tokens
    )
    usage.reasoning_tokens = count(get(outside, "reasoning_tokens")) or usage.reasoning_tokens
    usage.input_audio_tokens = count(get(inside, "audio_tokens")) or 0
    usage.output_audio_tokens = count(get(outside, "audio_tokens")) or 0
    return usage


def _in_and_out(counts: Mapping[str, int], cost: float | None) -> Usage:
    """Anthropic alone has these cache counts, and states its input without them."""
    hour = counts.get("ephemeral_1h_input_tokens", 0)
    read = counts.get("cache_read_input_tokens", 0)
    written = counts.get("cache_creation_input_tokens", hour + counts.get("ephemeral_5m_input_tokens", 0))
    return Usage(
        input_tokens=counts.get("input_tokens", 0) + read + written,
        output_tokens=counts.get("output_tokens", 0),
        cached_tokens=read or counts.get("cached", 0),
        cache_write_tokens=written or counts.get("written", 0),
        cache_write_1h_tokens=hour,
        reasoning_tokens=counts.get("reasoning", 0),
        cost_usd=cost,
    )


def _gemini(stated: object) -> Usage | None:
    """`usage_metadata`, whose output is without the thinking, and whose input is without what tools put there."""

    def either(snake: str, camel: str) -> int | None:
        number = count(get(stated, snake))
        return count(get(stated, camel)) if number is None else number

    given = either("prompt_token_count", "promptTokenCount")
    made = either("candidates_token_count", "candidatesTokenCount")
    if given is None and made is None:
        return None
    thought = either("thoughts_token_count", "thoughtsTokenCount") or 0
    return Usage(
        input_tokens=(given or 0) + (either("tool_use_prompt_token_count", "toolUsePromptTokenCount") or 0),
        output_tokens=(made or 0) + thought,
        cached_tokens=either("cached_content_token_count", "cachedContentTokenCount") or 0,
        reasoning_tokens=thought,
    )


def _bedrock(stated: object) -> Usage | None:
    """Converse, whose input is without what it read from and wrote to the cache."""
    given, made = count(get(stated, "inputTokens")), count(get(stated, "outputTokens"))
    if given is None and made is None:
        return None
    read = count(get(stated, "cacheReadInputTokens")) or 0
    written = count(get(stated, "cacheWriteInputTokens")) or 0
    return Usage(
        input_tokens=(given or 0) + read + written,
        output_tokens=made or 0,
        cached_tokens=read,
        cache_write_tokens=written,
    )


def _cohere(stated: object) -> Usage | None:
    """What is billed, not what was counted."""
    billed = get(stated, "billed_units")
    given, made = count(get(billed, "input_tokens")), count(get(billed, "output_tokens"))
    if given is None and made is None:
        return None
    cached = count(get(stated, "cached_tokens")) or 0
    return Usage(input_tokens=given or 0, output_tokens=made or 0, cached_tokens=cached)


def _ollama(stated: object) -> Usage | None:
    given, made = count(get(stated, "prompt_eval_count")), count(get(stated, "eval_count"))
    if given is None and made is None:
        return None
    return Usage(input_tokens=given or 0, output_tokens=made or 0)


def _rest(stated: object) -> Usage | None:
    """A total alone is the input of an embedding."""
    total = count(get(stated, "total_tokens"))
    return None if total is None else Usage(input_tokens=total)
