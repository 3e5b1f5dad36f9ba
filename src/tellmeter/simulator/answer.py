"""One answer of a simulated model, before any provider's format: what was asked, what is said, what it costs."""

from __future__ import annotations

import math
import random
import string
from typing import Any, NamedTuple

import msgspec

from .cache import PromptCache
from .traffic import LogNormal, Traffic, family_of
from .words import count, cut, instance_json, pieces

_MESSAGE_TOKENS = 4  # what roles and separators take
_CALL_TOKENS = 7  # what a tool call takes beside its arguments
_FIRST_DAY = 1_767_225_600  # 2026-01-01, Unix seconds: a `created` that follows from the seed
_ALPHABET = string.ascii_letters + string.digits
_REASONING = LogNormal(math.log(250), 0.9)  # tokens; the median of the recorded answers of o and gpt-5 models


class Event(NamedTuple):
    """A piece of a response's body: one server-sent event, or a whole JSON body.

    `tokens` is how many output tokens it took to come to it, which is what its pace follows.
    """

    data: bytes
    tokens: int = 0
    ends: bool = False  # the terminator of a stream


class Tool(NamedTuple):
    """A function on offer, with the JSON schema of its arguments."""

    name: str
    schema: Any


class ToolCall(NamedTuple):
    """A function that the model asks for; `arguments` is JSON text."""

    name: str
    arguments: str


class Ask(msgspec.Struct, kw_only=True):
    """A request as read by its format.

    Attributes:
        prompt: everything the model reads, in the order in which a cache sees it.
        marks: offsets in `prompt` (characters) up to which the request asks to be cached; None: by itself.
        for_an_hour: whether what is cached is to be kept for an hour instead of five minutes.
        tool_choice: "auto", "none", "required" or a tool's name.
        schema: what the answer's JSON has to fit, if the request says so.
        limit: the most output tokens, reasoning included.
        thinks: whether the model reasons before it answers.
        shows_thoughts: whether the reasoning, or a summary of it, is in the answer.
        body: the request itself, for what its format has to echo.
    """

    model: str
    stream: bool = False
    prompt: str = ""
    messages: int = 1
    marks: list[int] | None = None
    for_an_hour: bool = False
    tools: list[Tool] = []
    tool_choice: str = "auto"
    parallel: bool = True
    answers_tool: bool = False
    schema: Any = None
    limit: int | None = None
    thinks: bool = False
    shows_thoughts: bool = False
    count: int = 1  # answers wanted (n)
    body: dict[str, Any] = {}

    @property
    def tokens(self) -> int:
        """Input tokens."""
        return count(self.prompt) + _MESSAGE_TOKENS * self.messages


class Usage(NamedTuple):
    """Tokens; `cached` and `written` are inside `input`, `reasoning` is inside `output`."""

    input: int = 0
    cached: int = 0
    written: int = 0
    output: int = 0
    reasoning: int = 0


class Choice(NamedTuple):
    """One of the answers; `text` in pieces of one token each, `finish` is stop, length or tool_calls."""

    text: list[str]
    calls: list[ToolCall]
    finish: str

    @property
    def tokens(self) -> int:
        """Output tokens without reasoning."""
        return len(self.text) + sum(_CALL_TOKENS + count(call.arguments) for call in self.calls)


class Answer(msgspec.Struct, kw_only=True):
    """What the model says. `usage` is None when a fault withholds it.

    `request_id` and `milliseconds`, which a whole answer takes, are for formats that state them in the body.
    """

    ask: Ask
    model: str
    created: int
    thoughts: list[str]
    choices: list[Choice]
    usage: Usage | None
    rng: random.Random
    request_id: str = ""
    milliseconds: int = 0

    @property
    def choice(self) -> Choice:
        """The first answer, which is the only one but for `n`."""
        return self.choices[0]

    def new_id(self, prefix: str, length: int) -> str:
        """An id in a provider's style, which follows from the seed."""
        return new_id(self.rng, prefix, length)


def new_id(rng: random.Random, prefix: str, length: int) -> str:
    """`prefix` and `length` letters and digits."""
    return prefix + "".join(rng.choices(_ALPHABET, k=length))


# The model that answers where an alias was asked for.
_RELEASES = {
    "gpt-3.5-turbo": "gpt-3.5-turbo-0125",
    "gpt-4o": "gpt-4o-2024-08-06",
    "gpt-4o-mini": "gpt-4o-mini-2024-07-18",
    "gpt-4.1": "gpt-4.1-2025-04-14",
    "gpt-4.1-mini": "gpt-4.1-mini-2025-04-14",
    "gpt-4.1-nano": "gpt-4.1-nano-2025-04-14",
    "gpt-5": "gpt-5-2025-08-07",
    "gpt-5-mini": "gpt-5-mini-2025-08-07",
    "gpt-5-nano": "gpt-5-nano-2025-08-07",
    "gpt-5.4": "gpt-5.4-2026-03-05",
    "gpt-5.4-mini": "gpt-5.4-mini-2026-03-17",
    "o3-mini": "o3-mini-2025-01-31",
    "o4-mini": "o4-mini-2025-04-16",
    "claude-haiku-4-5": "claude-haiku-4-5-20251001",
    "claude-sonnet-4-5": "claude-sonnet-4-5-20250929",
    "claude-sonnet-4-6": "claude-sonnet-4-6",
    "claude-opus-4-6": "claude-opus-4-6",
}
# What each provider lists.
MODELS: dict[str, tuple[str, ...]] = {
    "openai": (
        *sorted({name for pair in _RELEASES.items() for name in pair if not name.startswith("claude")}),
        "text-embedding-3-large",
        "text-embedding-3-small",
    ),
    "anthropic": tuple(sorted({name for pair in _RELEASES.items() for name in pair if name.startswith("claude")})),
    "gemini": (
        "gemini-2.5-flash",
        "gemini-2.5-flash-lite",
        "gemini-2.5-pro",
        "gemini-3.5-flash",
        "gemini-embedding-001",
        "gemini-embedding-2",
    ),
    "bedrock": (
        "amazon.nova-lite-v1:0",
        "amazon.nova-micro-v1:0",
        "amazon.nova-pro-v1:0",
        "anthropic.claude-haiku-4-5-20251001-v1:0",
        "anthropic.claude-sonnet-4-5-20250929-v1:0",
        "meta.llama3-3-70b-instruct-v1:0",
    ),
}


def release_of(model: str) -> str:
    """The dated release behind a model's name."""
    return _RELEASES.get(model, model)


def created_at(rng: random.Random) -> int:
    """Unix seconds in the first weeks of 2026."""
    return _FIRST_DAY + rng.randrange(30 * 86_400)


def make_answer(ask: Ask, traffic: Traffic, cache: PromptCache, rng: random.Random) -> Answer:
    """What the model says to `ask`: drawn from `rng`, cut off at the request's limit, and counted."""
    reasoning = _reasoning_tokens(ask, rng)
    limit = ask.limit if ask.limit is not None else traffic.most_tokens * 10
    reasoning = min(reasoning, limit)
    left = limit - reasoning
    choices = [_choice(ask, traffic, left, rng) for _ in range(ask.count)]
    if ask.marks is None:
        cached, written = cache.read(ask.model, ask.prompt), 0
    else:
        cached, written = cache.read_marked(ask.model, ask.prompt, ask.marks)
    output = reasoning + sum(choice.tokens for choice in choices)
    return Answer(
        ask=ask,
        model=release_of(ask.model),
        created=created_at(rng),
        thoughts=pieces(rng, reasoning) if ask.shows_thoughts else [],
        choices=choices,
        usage=Usage(ask.tokens, cached, written, output, reasoning),
        rng=rng,
    )


def _reasoning_tokens(ask: Ask, rng: random.Random) -> int:
    if not ask.thinks:
        return 0
    tokens = min(2048, round(_REASONING.draw(rng)))
    if step := family_of(ask.model).reasoning_step:
        return max(1, tokens // step) * step
    return max(1, tokens // 4)  # Anthropic's recorded thinking is shorter


def _choice(ask: Ask, traffic: Traffic, left: int, rng: random.Random) -> Choice:
    if (tools := _tools_called(ask, traffic, rng)) and left > 0:
        calls = [ToolCall(tool.name, instance_json(tool.schema, rng)) for tool in tools]
        choice = Choice([], calls, "tool_calls")
        if choice.tokens <= left:
            return choice
    said = pieces(rng, traffic.output_tokens(rng)) if ask.schema is None else cut(instance_json(ask.schema, rng))
    if len(said) > left:
        return Choice(said[:left], [], "length")
    return Choice(said, [], "stop")


def _tools_called(ask: Ask, traffic: Traffic, rng: random.Random) -> list[Tool]:
    if not ask.tools or ask.tool_choice == "none":
        return []
    if named := [tool for tool in ask.tools if tool.name == ask.tool_choice]:
        return named[:1]
    if ask.tool_choice == "auto" and (ask.answers_tool or rng.random() >= traffic.tool_call_rate):
        return []
    wanted = 2 if ask.parallel and len(ask.tools) > 1 and rng.random() < 0.2 else 1
    return rng.sample(ask.tools, wanted)
