"""track_llm_usage: one's own function, or a block of it, as one LLM call of the process's collector.

Where a provider call was seen inside, that one is counted and this one is not: the innermost knows best.
"""

from __future__ import annotations

import contextvars
import inspect
from collections.abc import Callable, Mapping
from types import FunctionType
from typing import Any, NamedTuple, cast, overload

import msgspec

from ..call import Call
from ..cleaning import MODEL_LENGTH, SHORT_LENGTH, clean_optional_float, clean_tags, clean_text
from ..context import Enclosing, enclosing, reset, tags_in_force
from ..counts import count
from ..process import get_metrics_collector
from ..records import AgentMetrics
from ..usage import Usage
from ..wire.answer import Answer
from ..wire.message import NO_HEADERS
from ..wire.providers import UNKNOWN, provider_of
from .instrument import Instrument, LabelExtractor, Labels, is_function
from .steps import stepwise
from .usage import Reading, has_content, read_result, status_code_of
from .wrapping import CANCELLED, SUCCESS, F, Open, caught, kind_of, wrapped

_GENERATORS = frozenset({"generator", "async_generator"})
_ASIDE = frozenset({"embeddings", "count_tokens"})  # what a function does beside generating
_MOST_INSIDE = 16  # calls inside that are remembered; one is enough, unless it turns out to be none
_NOTHING = Usage()


class _Terms(NamedTuple):
    """What is to be recorded, and the US dollars per 1,000 tokens (input, output) where the user gives them."""

    tokens: bool
    cost: bool
    rates: tuple[float, float] | None


class _OwnCall(Call):
    """A call of one's own code, which steps back behind the calls that are seen inside it."""

    terms: _Terms
    stated: Answer | None = None  # what the result says, with what the call's own fields have no place for
    _tokens: tuple[contextvars.Token[Enclosing | None], contextvars.Token[Mapping[str, str]]] | None = None
    inside: list[Any]  # is there once a call began inside
    _generated = False
    _left: tuple[Enclosing | None, Mapping[str, str]] | None = None  # what its code had set itself, tags for one

    def enter(self) -> None:
        """What begins from here on is inside the call, and has its tags."""
        inside, tags = self._left or (self, self._context_tags)
        self._tokens = enclosing.set(inside), tags_in_force.set(tags)

    def leave(self) -> None:
        """What begins from here on is not; nothing happens where it was not entered."""
        tokens, self._tokens = self._tokens, None
        if tokens is not None:
            self._left = enclosing.get(), tags_in_force.get()
            reset(tags_in_force, tokens[1])
            reset(enclosing, tokens[0])

    def contain(self, call: object) -> None:
        """Note a call inside; from here on it is the one in progress."""
        if self.ended:  # a task that this call started outlives it
            return
        self.target.open_calls.pop(id(self), None)
        inside = self.__dict__.setdefault("inside", [])
        if len(inside) < _MOST_INSIDE:
            inside.append(call)

    def generated_inside(self) -> bool:
        """Whether a call inside that is counted is this one."""
        if not self._generated and "inside" in self.__dict__:
            self._generated = any(call.operation not in _ASIDE and call.is_recorded() for call in self.inside)
        return self._generated

    def asked_aside(self) -> bool:
        """Whether a call inside is this one unless somebody answered whom nobody else saw: a question's embedding."""
        return not self.output_tokens and any(call.is_recorded() for call in self.__dict__.get("inside", ()))

    def forget(self) -> None:
        """Let go of what only a call in progress needs: tasks that it started may keep it for ever."""
        self._left = None  # it refers back to the call
        self.__dict__.pop("inside", None)

    def know(self, answer: Answer) -> None:
        """Take over what the result states."""
        self.response_model = answer.response_model
        self.model = self.model or answer.response_model or ""
        self.finish_reason = answer.finish_reason
        self.request_id = answer.response_id
        usage = answer.usage
        if usage is not None:
            self.stated = answer
            self.input_tokens, self.output_tokens = usage.input_tokens, usage.output_tokens

    # ------------------------------------------------------------------ on the router thread

    def _record(self, *, usage: Usage, service_tier: str | None = None, **rest: Any) -> AgentMetrics:
        terms = self.terms
        self.provider = self.provider or _provider_by(self.model)
        answer = self.stated
        if answer is not None:
            usage, service_tier = answer.usage or usage, answer.service_tier
        unknown = answer is None and not self.refused and usage == _NOTHING
        if unknown and rest["status"] == "success":
            count("usage_missing", self.provider)
        by_rates = terms.rates is not None and self.cost_usd is None and not unknown and not self.refused
        self.unpriced = unknown or by_rates or not terms.cost
        self.refused = self.refused and terms.cost
        record = super()._record(usage=usage, service_tier=service_tier, **rest)
        changes: dict[str, Any] = {}
        if by_rates and terms.cost and terms.rates is not None and self.target.config.enable_cost_tracking:
            of_input, of_output = terms.rates
            cost = (usage.input_tokens * of_input + usage.output_tokens * of_output) / 1000
            changes.update(cost_usd=cost, price_version="override")
        if not terms.tokens:
            changes.update(dict.fromkeys(_COUNTS, 0))
            if record.stream is not None:
                changes["stream"] = msgspec.structs.replace(record.stream, output_tokens=0, tokens_per_second=0.0)
        return msgspec.structs.replace(record, **changes) if changes else record


_COUNTS = ("input_tokens", "output_tokens", "cached_tokens", "cache_write_tokens", "reasoning_tokens")


class _Watch:
    """One call of a decorated function, or one entry of a block."""

    __slots__ = ("call", "reading")

    def __init__(self, call: _OwnCall) -> None:
        self.call = call
        self.reading: Reading | None = None

    def item(self, value: object) -> None:
        """An item of a stream: the first one with content is the first token."""
        call = self.call
        if call.method != "stream":  # what an awaitable of old waits for is no item
            return
        call.leave()
        if not call._first_token_at and has_content(value):
            call.first_token()
        if not call.generated_inside():
            if self.reading is None:
                self.reading = Reading()
            self.reading.take(value)

    def end(self, outcome: str, result: object, error: BaseException | None) -> None:
        """The function returned, raised, or was broken off."""
        call = self.call
        call.leave()
        counted = False
        try:
            counted = call.generated_inside()
            if not counted:
                self._read(result, error)
                counted = call.asked_aside()
        except Exception as problem:
            caught(problem)
        finally:  # also where the user interrupts
            call.forget()
            if counted:
                call.discard()
            elif outcome == CANCELLED and (error is None or isinstance(error, GeneratorExit)):
                call.end("closed_early")
            else:
                call.end(error=None if outcome == SUCCESS else error)

    def _read(self, result: object, error: BaseException | None) -> None:
        answer = self.reading.answer if self.reading is not None else Answer()
        if answer.usage is None and result is not None:
            answer = read_result(result)
        call = self.call
        if self.reading is not None or result is not None:
            call.know(answer)
        code = status_code_of(error)
        if code is not None:
            call.status_code = code
            call.refused = code >= 400 and answer.usage is None


class LLMUsage(Instrument):
    """What `track_llm_usage` gives: a decorator, and a block that yields its Call."""

    def __init__(
        self,
        *,
        provider: object,
        model: object,
        operation: object,
        terms: _Terms,
        labels: Labels,
        label_extractor: LabelExtractor | None,
    ) -> None:
        super().__init__(labels, label_extractor)
        self._provider = clean_text(provider or "", "provider", SHORT_LENGTH)
        self._model = clean_text(model or "", "model", MODEL_LENGTH)
        self._operation = clean_text(operation or "chat", "operation", SHORT_LENGTH)
        self._terms = terms
        self._tags = clean_tags(self._labels)

    def __call__(self, function: F) -> F:
        """The function, with each of its calls metered. Raises TypeError for a class, or what cannot be called."""
        given: Any = function
        if isinstance(given, (classmethod, staticmethod)):
            return cast("F", type(given)(self(given.__func__)))
        opened = self._opener(given)
        if type(given) is FunctionType and (kind := kind_of(given)) in _GENERATORS:
            given = stepwise(given, kind, _own_call)
        return cast("F", wrapped(given, opened))

    def __enter__(self) -> Call:  # type: ignore[override]
        super().__enter__()
        return _own_call() or Call.__new__(Call)

    async def __aenter__(self) -> Call:  # type: ignore[override]
        return self.__enter__()

    def _opener(self, function: Callable[..., Any] | None) -> Open:
        method = "embed" if self._operation == "embeddings" else "generate"
        if callable(function) and kind_of(function) in _GENERATORS:
            method = "stream"
        model_of = None if self._model or function is None else _model_argument(function)
        extract = self._of_call(function)

        def opened(_: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Watch:
            model = self._model if model_of is None else model_of(args, kwargs)
            found = None if extract is None else extract(args, kwargs)
            return _Watch(self._begin(model, method, {**self._tags, **clean_tags(found)} if found else self._tags))

        return opened

    def _begin(self, model: str, method: str, labels: Mapping[str, str]) -> _OwnCall:
        token = tags_in_force.set({**tags_in_force.get(), **labels})
        try:
            call = _OwnCall(
                get_metrics_collector(),
                provider=self._provider or _provider_by(model),
                model=model,
                operation=self._operation,
                method=method,
            )
        finally:
            reset(tags_in_force, token)
        call.terms = self._terms
        call.enter()
        return call


@overload
def track_llm_usage(provider: F, /) -> F: ...
@overload
def track_llm_usage(
    provider: str | None = None,
    model: str | None = None,
    track_tokens: bool = True,
    track_cost: bool = True,
    cost_per_1k_prompt: float = 0.0,
    cost_per_1k_completion: float = 0.0,
    label_extractor: LabelExtractor | None = None,
    *,
    labels: Labels = None,
    operation: str = "chat",
) -> LLMUsage: ...
def track_llm_usage(
    provider: Any = None,
    model: str | None = None,
    track_tokens: bool = True,
    track_cost: bool = True,
    cost_per_1k_prompt: float = 0.0,
    cost_per_1k_completion: float = 0.0,
    label_extractor: LabelExtractor | None = None,
    *,
    labels: Labels = None,
    operation: str = "chat",
) -> Any:
    """Meter a function, or a block, as one LLM call. Tokens are read from what it returns or yields.

    A block yields its `Call`, on which tokens are set by hand. Where `instrument()`, or another decorator or block,
    sees a call inside, that one is counted instead of this one, under the labels given here. What a result does not
    state is not guessed: without a usage there are no tokens, and no cost.

    Args:
        provider: who answers; by the model's name where it is not given.
        model: what is asked for; the call's own argument `model` where it is not given, else what the result states.
        track_tokens: False records 0 tokens; the cost is still that of the tokens used.
        track_cost: False records no cost.
        cost_per_1k_prompt: US dollars per 1,000 input tokens, cached ones among them.
        cost_per_1k_completion: US dollars per 1,000 output tokens. If both rates are 0, the price book knows the price.
        label_extractor: called with a call's arguments as it begins; its dict wins over `labels`.
        labels: the tags of the call, and of the calls seen inside it.
        operation: `chat`, `embeddings`, or what else the call does.
    """
    if is_function(provider):
        return track_llm_usage()(provider)
    rates = (_rate(cost_per_1k_prompt), _rate(cost_per_1k_completion))
    return LLMUsage(
        provider=provider,
        model=model,
        operation=operation,
        terms=_Terms(bool(track_tokens), bool(track_cost), rates if any(rates) else None),
        labels=labels,
        label_extractor=label_extractor,
    )


def _rate(given: float) -> float:
    """ConfigError would come at the import of the user's module, for what the price book knows anyway."""
    return clean_optional_float(given, "cost_per_1k") or 0.0


def _own_call() -> _OwnCall | None:
    """The innermost call of one's own code that the running code is inside of."""
    found = enclosing.get()
    return found if isinstance(found, _OwnCall) else None


def _provider_by(model: str) -> str:
    named = provider_of(None, None, NO_HEADERS, model) if model else UNKNOWN
    return "" if named == UNKNOWN else named


def _model_argument(function: Callable[..., Any]) -> Callable[[tuple[Any, ...], dict[str, Any]], str]:
    """What finds the argument `model` of a call of the function; it gives "" where there is none, or it is no text."""
    place, default = _place_of_model(function)

    def model_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        given = kwargs.get("model", args[place] if place is not None and place < len(args) else default)
        return clean_text(given, "model", MODEL_LENGTH) if isinstance(given, str) else ""

    return model_of


def _place_of_model(function: Callable[..., Any]) -> tuple[int | None, object]:
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except Exception:  # a builtin, or an object that lies about itself
        return None, ""
    for place, parameter in enumerate(parameters):
        if parameter.name == "model":
            positional = parameter.kind in {parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD}
            return place if positional else None, parameter.default
    return None, ""
