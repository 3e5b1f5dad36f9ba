"""track_llm_usage: one's own function, or a block of it, as one LLM call of the process's collector.

Where a provider call was seen inside, that one is counted and this one is not: the innermost knows best.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from types import FunctionType
from typing import Any, cast, overload

from ..call import Call
from ..cleaning import MODEL_LENGTH, SHORT_LENGTH, clean_optional_float, clean_tags, clean_text
from ..context import enclosing, reset, tags_in_force
from ..process import get_metrics_collector
from ..wire.answer import Answer
from .instrument import Instrument, LabelExtractor, Labels, is_function
from .own_call import OwnCall, Terms, provider_by
from .steps import stepwise
from .usage import read_result
from .wrapping import CANCELLED, SUCCESS, F, Open, caught, kind_of, wrapped

_GENERATORS = frozenset({"generator", "async_generator"})


class _Watch:
    """One call of a decorated function, or one entry of a block."""

    __slots__ = ("call",)

    def __init__(self, call: OwnCall) -> None:
        self.call = call

    def item(self, value: object) -> None:
        """An item of a stream; what an awaitable of old waits for is none."""
        call = self.call
        if call.method == "stream":
            call.leave()
            call.came(value)

    def end(self, outcome: str, result: object, error: BaseException | None) -> None:
        """The function returned, raised, or was broken off."""
        call = self.call
        call.leave()
        call.items_ended()
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
        call = self.call
        answer = call.stated_by_items()
        if (answer is None or answer.usage is None) and result is not None:
            answer = read_result(result)
        if answer is not None:
            call.know(answer)
        call.failed(error, answer or Answer())


class LLMUsage(Instrument):
    """What `track_llm_usage` gives: a decorator, and a block that yields its Call."""

    def __init__(
        self,
        *,
        provider: object,
        model: object,
        operation: object,
        terms: Terms,
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

    def _begin(self, model: str, method: str, labels: Mapping[str, str]) -> OwnCall:
        token = tags_in_force.set({**tags_in_force.get(), **labels})
        try:
            call = OwnCall(
                get_metrics_collector(),
                provider=self._provider or provider_by(model),
                model=model,
                operation=self._operation,
                method=method,
            )
        finally:
            reset(tags_in_force, token)
        call.terms = self._terms
        if method == "stream":
            call.measure()
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
        terms=Terms(bool(track_tokens), bool(track_cost), rates if any(rates) else None),
        labels=labels,
        label_extractor=label_extractor,
    )


def _rate(given: float) -> float:
    """ConfigError would come at the import of the user's module, for what the price book knows anyway."""
    return clean_optional_float(given, "cost_per_1k") or 0.0


def _own_call() -> OwnCall | None:
    """The innermost call of one's own code that the running code is inside of."""
    found = enclosing.get()
    return found if isinstance(found, OwnCall) else None


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
