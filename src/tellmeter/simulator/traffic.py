"""How the simulated providers behave: seeded draws of waiting times, lengths and failures."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from ..errors import ConfigError

_VENDORS = re.compile(r"^([a-z-]+\.)+")


class LogNormal(NamedTuple):
    """exp(N(mu, sigma)): the shape of token counts and of waiting times in every trace we have."""

    mu: float
    sigma: float

    def draw(self, rng: random.Random) -> float:
        """One value."""
        return rng.lognormvariate(self.mu, self.sigma)


# Tokens of a call, fitted to the conversation and code services of the Azure LLM inference trace of 2023
# (Azure/AzurePublicDataset, CC-BY-4.0; Patel et al., "Splitwise", ISCA 2024): 11,620 and 5,291 requests.
CHAT_INPUT = LogNormal(6.71, 0.98)
CHAT_OUTPUT = LogNormal(4.97, 0.89)
CODE_INPUT = LogNormal(7.00, 1.34)
CODE_OUTPUT = LogNormal(2.77, 0.84)


class Family(NamedTuple):
    """How the models of one family answer.

    `first_ms` is the time to the first token, `token_ms` the mean time between tokens; both medians over calls.
    Models that reason by themselves state their reasoning tokens in steps of `reasoning_step`; others have 0.
    """

    first_ms: float
    first_sigma: float
    token_ms: float
    reasoning_step: int = 0

    @property
    def reasons(self) -> bool:
        """Whether it reasons without being told to."""
        return self.reasoning_step > 0


# Medians and spreads of `openai-processing-ms` and `x-envoy-upstream-service-time` in recorded answers of 2024 to 2026
# (first_ms: of streams; token_ms: of whole answers, less first_ms, by output tokens). For Gemini and Nova the same of
# `server-timing` and `latencyMs`, of a few dozen answers. The longest prefix wins.
FAMILIES: dict[str, Family] = {
    "": Family(400, 0.6, 18),
    "gpt-3.5": Family(230, 0.7, 13),
    "gpt-4": Family(600, 0.6, 30),
    "gpt-4o": Family(360, 0.57, 16),
    "gpt-4o-mini": Family(390, 0.77, 14),
    "gpt-4.1": Family(380, 0.6, 14),
    "gpt-5": Family(500, 0.7, 11, reasoning_step=64),
    "gpt-5-chat": Family(500, 0.7, 11),
    "gpt-6": Family(500, 0.7, 11, reasoning_step=64),
    "o1": Family(700, 0.7, 12, reasoning_step=64),
    "o3": Family(600, 0.7, 11, reasoning_step=64),
    "o4": Family(600, 0.7, 9, reasoning_step=64),
    "text-embedding": Family(80, 0.8, 0),
    "gemini": Family(480, 0.5, 5, reasoning_step=1),
    "gemini-2.0": Family(480, 0.3, 6.5),
    "gemini-2.5-flash-lite": Family(480, 0.5, 5),
    "gemini-2.5-pro": Family(1900, 0.5, 13, reasoning_step=1),
    "gemini-embedding": Family(270, 0.3, 0),
    "nova": Family(330, 0.3, 4),
    "claude": Family(1080, 0.4, 20),
    "claude-3": Family(900, 0.6, 22),
    "claude-haiku": Family(750, 0.8, 9),
    "claude-opus": Family(1500, 0.5, 25),
}

# What fails when `error_rate` says that something does, and how often (weights). No recording of a production service
# tells; the mix is ours: mostly throttling, some server errors, a few broken connections.
ERRORS: dict[str, Mapping[str, float]] = {
    "openai": {"429;retry-after=0.5": 5, "500": 3, "503": 2, "reset;after=5": 1},
    "anthropic": {"429;retry-after=1": 3, "529": 5, "500": 2, "error-event;after=6": 1},
    "gemini": {"429;retry-after=1": 3, "503": 5, "500": 2, "reset;after=5": 1},
    "bedrock": {"429": 5, "503": 3, "500": 2, "error-event;after=6": 1},
}


def family_of(model: str) -> Family:
    """The family whose prefix is the longest that `model` starts with.

    What stands before the name is skipped: a path (`openai/`), or Bedrock's regions and vendors (`us.anthropic.`).
    """
    name = _VENDORS.sub("", model.rpartition("/")[2])
    return FAMILIES[max((prefix for prefix in FAMILIES if name.startswith(prefix)), key=len)]


class Traffic(msgspec.Struct, frozen=True, kw_only=True):
    """The behaviour of the simulator.

    Attributes:
        seed: everything that is drawn follows from it, from the request, and from how often that request came before.
        speed: a factor on every simulated wait: 1.0 is as slow as the real providers, 0.1 ten times faster, 0.0 does
            not wait at all. The seconds of a scripted fault are not scaled.
        error_rate: the share of requests (0..1) that fail by chance.
        errors: what they fail with: a fault's text (see `faults.py`) to its weight. None: `ERRORS` of the provider.
        tool_call_rate: the share of answers (0..1) that call a tool when some are offered and none is demanded.
        cache_minimum: the shortest prompt prefix, in tokens, that is cached. Real providers: 1024.
        most_tokens: the longest answer, in output tokens, before the request's own limit.
    """

    seed: int = 0
    speed: float = 1.0
    error_rate: float = 0.0
    errors: Mapping[str, float] | None = None
    tool_call_rate: float = 0.7
    cache_minimum: int = 1024
    most_tokens: int = 1000

    def __post_init__(self) -> None:
        for name in ("error_rate", "tool_call_rate"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ConfigError(f"Traffic.{name} is {getattr(self, name)!r}; it must be between 0 and 1")
        if not 0.0 <= self.speed < math.inf:
            raise ConfigError(f"Traffic.speed is {self.speed!r}; it must be 0 or more")
        for name in ("cache_minimum", "most_tokens"):
            if getattr(self, name) < 1:
                raise ConfigError(f"Traffic.{name} is {getattr(self, name)!r}; it must be 1 or more")
        if self.errors is not None and (not self.errors or min(self.errors.values()) <= 0):
            raise ConfigError("Traffic.errors must name at least one fault, each with a weight above 0")

    def rng(self, *what: object) -> random.Random:
        """A generator of its own for one request."""
        return random.Random(f"{self.seed}|{'|'.join(map(str, what))}")

    def error(self, provider: str, rng: random.Random) -> str | None:
        """The text of the fault that a request meets by chance, mostly None."""
        if rng.random() >= self.error_rate:
            return None
        table = self.errors if self.errors is not None else ERRORS[provider]
        return rng.choices(list(table), list(table.values()))[0]

    def output_tokens(self, rng: random.Random) -> int:
        """The length of a text answer."""
        return max(1, min(self.most_tokens, round(CHAT_OUTPUT.draw(rng))))

    def pace(self, model: str, rng: random.Random) -> Pace:
        """The waiting times of one answer."""
        family = family_of(model)
        first = LogNormal(math.log(family.first_ms), family.first_sigma).draw(rng)
        token = family.token_ms * LogNormal(0.0, 0.3).draw(rng)
        return Pace(first / 1000 * self.speed, token / 1000 * self.speed, rng)


class Pace:
    """The waiting times of one answer, in seconds, already scaled."""

    __slots__ = ("_rng", "first", "token")

    def __init__(self, first: float, token: float, rng: random.Random) -> None:
        self.first = first
        self.token = token
        self._rng = rng

    def gap(self, tokens: int) -> float:
        """How long `tokens` output tokens take: uneven, and once in a hundred times a pause."""
        if not tokens or not self.token:
            return 0.0
        pause = 15.0 if self._rng.random() < 0.01 else 0.0
        return self.token * (tokens * self._rng.lognormvariate(-0.125, 0.5) + pause)

    def whole(self, tokens: int) -> float:
        """How long a whole answer of `tokens` output tokens takes."""
        return self.first + self.token * tokens
