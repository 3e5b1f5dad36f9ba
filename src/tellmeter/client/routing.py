"""Who answers for a model: `provider/model` says it, else the user's table, else the vendors' own names."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import NamedTuple

from ..errors import ConfigError, UnknownModelError
from ..wire.message import NO_HEADERS
from ..wire.providers import UNKNOWN, provider_of
from .endpoints import provider_named

_MOST_FOUND = 1024
# Whose own names have a slash. Elsewhere what is before it is a vendor's name for others' routers, and no address.
_WITH_SLASH = ("arn:aws", "models/gemini", "accounts/fireworks/")
NEAR = 3
"""How many near names an unknown model's error has."""


class Route(NamedTuple):
    """A provider (a value of `gen_ai.provider.name`, or the user's word for it) and its name for a model."""

    provider: str
    model: str


class Routes:
    """The table of an LLMClient.

    Args:
        models: name, or pattern with `*`, -> provider, or `provider/model` for an alias; the first that fits counts.
        providers: words of the user's own that stand before a slash, beside the usual ones.

    Raises:
        ConfigError: an entry whose provider is not known.
    """

    def __init__(self, models: Mapping[str, str] | None = None, providers: Iterable[str] = ()) -> None:
        self._own = frozenset(providers)
        self._table: list[tuple[str, Route]] = []
        self._found: dict[str, Route | None] = {}
        for name, target in (models or {}).items():
            if not isinstance(name, str) or not isinstance(target, str) or not name or not target:
                raise ConfigError(f"models[{name!r}]: it must be the name of a provider, or 'provider/model'")
            word, slash, model = target.partition("/")
            provider = self._provider(word)
            if provider is None:
                raise ConfigError(f"models[{name!r}] = {target!r}: no provider {word!r} is known; give its base_url")
            self._table.append((name, Route(provider, model if slash else "")))

    def find(self, model: str) -> Route | None:
        """Where a model is asked; None where nobody is known for it."""
        try:
            return self._found[model]
        except KeyError:
            if len(self._found) >= _MOST_FOUND:
                self._found.clear()
            return self._found.setdefault(model, self._find(model))

    def _find(self, model: str) -> Route | None:
        word, slash, rest = model.partition("/")
        provider = self._provider(word) if slash and rest else None
        if provider is not None:
            return Route(provider, rest)
        for pattern, route in self._table:
            if fnmatchcase(model, pattern):
                return Route(route.provider, route.model or model)
        provider = provider_of(None, None, NO_HEADERS, model)
        if provider == UNKNOWN or (slash and not model.startswith(_WITH_SLASH)):
            return None
        return Route(provider, model)

    def provider(self, word: str) -> str:
        """The provider that a word means.

        Raises:
            ConfigError: none.
        """
        found = self._provider(word)
        if found is None:
            raise ConfigError(f"no provider {word!r} is known; give its base_url")
        return found

    def _provider(self, word: str) -> str | None:
        return word if word in self._own else provider_named(word)

    def unknown(self, model: str) -> UnknownModelError:
        """The error that says so, with the names that may have been meant; slow, for their list is long."""
        names = [name for name, _ in self._table if "*" not in name] + _known_names()
        near = difflib.get_close_matches(model, dict.fromkeys(names), n=NEAR)
        hint = f"; near names are {', '.join(near)}" if near else ""
        error = UnknownModelError(
            f"no provider is known for the model {model[:200]!r}{hint}. Write 'provider/model', "
            "or add it to LLMClient(models={...})",
            category="not_found",
            model=model,
        )
        error.near = tuple(near)
        return error


def _known_names() -> list[str]:
    """The models of the price list."""
    try:
        from genai_prices.data import providers
    except Exception:  # without a price list there are no names to compare with
        return []
    return sorted({model.id for provider in providers for model in provider.models})
