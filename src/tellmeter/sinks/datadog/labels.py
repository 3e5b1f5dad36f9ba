"""The tags of a record's metrics, by Datadog's rules; metric names and constant tags too."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence

from ...errors import ConfigError
from ...records import AgentMetrics

# https://docs.datadoghq.com/getting_started/tagging/: letters (of any alphabet), digits, _ - : . /, lower case, begins
# with a letter, 200 characters at most. 200 bytes here, which is never more, so that a datagram's length is bounded.
TAG_BYTES = 200
MOST_TAGS = 30
"""Of one metric, so that a line of DogStatsD fits the 8192 bytes that an Agent reads."""

# https://docs.datadoghq.com/metrics/custom_metrics/: ASCII letters, digits, _ and ., 200 characters at most.
_NAMESPACE = re.compile(r"[A-Za-z][A-Za-z0-9_]*(\.[A-Za-z0-9_]+)*")
_NAMESPACE_LENGTH = 100

_FOREIGN = re.compile(r"[^\w:./-]+")
_UNDERSCORES = re.compile(r"_{2,}")
_OWN = ("provider", "model", "operation", "status", "error", "error_category")
# https://docs.datadoghq.com/getting_started/tagging/unified_service_tagging/
_UNIFIED = (("service", "DD_SERVICE"), ("env", "DD_ENV"), ("version", "DD_VERSION"))
_KNOWN_SETS = 4096

Tags = tuple[str, ...]


def clean(text: str) -> str:
    """A text as it may stand in a tag: what Datadog would change is changed here, so that two sides agree."""
    text = _UNDERSCORES.sub("_", _FOREIGN.sub("_", text.lower()))
    return text.encode()[:TAG_BYTES].decode("utf-8", "ignore").rstrip("_")


def tag(name: str, value: str) -> str:
    """`name:value`; a value of which nothing is left is `unknown`."""
    name = clean(name).replace(":", "_")
    if not name[:1].isalpha():
        name = f"tag_{name}"
    return clean(f"{name}:{clean(value).lstrip('_') or 'unknown'}")


class Labels:
    """Gives records their tags: provider, model, operation, status, error, error_category, and those chosen.

    Args:
        tags: constant ones, as `team:search`; None takes those of `DD_TAGS`.
        tag_names: which tags of records become tags of metrics. Each value of one is paid for: choose few.
        unified: service, env and version; None takes `DD_SERVICE`, `DD_ENV`, `DD_VERSION`.

    Raises:
        ConfigError: tags that are none, names that are ours, too many.
    """

    def __init__(
        self, tags: Iterable[str] | None, tag_names: Iterable[str], unified: Sequence[str | None] = (None, None, None)
    ) -> None:
        if tags is None:
            tags = re.split(r"[,\s]+", os.environ.get("DD_TAGS", "").strip(", "))
            tags = [one for one in tags if one]
        constant = [_constant(one) for one in _texts("tags", tags)]
        for (name, variable), value in zip(_UNIFIED, unified, strict=True):
            value = os.environ.get(variable) if value is None else value
            if value:
                constant.append(tag(name, str(value)))
        self.constant: Tags = tuple(dict.fromkeys(constant))
        self.names = tuple(dict.fromkeys(_texts("tag_names", tag_names)))
        taken = {*_OWN, *(one.partition(":")[0] for one in self.constant)}
        for name in self.names:
            as_tag = tag(name, "").partition(":")[0]
            if as_tag in taken:
                raise ConfigError(f"tag_names: {name[:40]!r} is the name of a tag that is there already")
            taken.add(as_tag)
        if len(self.constant) + len(self.names) + len(_OWN) > MOST_TAGS:
            raise ConfigError(f"tags and tag_names: {MOST_TAGS - len(_OWN)} at most, and every one costs")
        self._known: dict[tuple[str | None, ...], Tags] = {}

    def of(self, record: AgentMetrics) -> Tags:
        """The tags of a record, sorted by nothing but their kind: equal for equal values."""
        given = record.tags
        key = (
            record.provider,
            record.model,
            record.operation,
            record.status,
            record.error_class,
            record.error_category,
            *(given.get(name) for name in self.names),
        )
        tags = self._known.get(key)
        if tags is None:
            if len(self._known) >= _KNOWN_SETS:
                self._known.clear()
            pairs = zip((*_OWN, *self.names), key, strict=True)
            own = (tag(name, value) for name, value in pairs if value is not None)
            tags = self._known[key] = (*own, *self.constant)
        return tags


def namespaced(namespace: object) -> str:
    """What stands before the names of metrics, with its dot.

    Raises:
        ConfigError: a text that cannot begin a metric's name.
    """
    fits = isinstance(namespace, str) and _NAMESPACE.fullmatch(namespace) and len(namespace) <= _NAMESPACE_LENGTH
    if not fits:
        raise ConfigError(
            f"namespace = {str(namespace)[:40]!r}: it must be letters, digits, _ and . and begin with a letter, "
            f"{_NAMESPACE_LENGTH} characters at most, as llm"
        )
    return f"{namespace}."


def _constant(text: str) -> str:
    name, colon, value = text.partition(":")
    cleaned = tag(name, value) if colon else clean(text)
    if not text.strip() or not cleaned[:1].isalpha():
        raise ConfigError(f"tags: {text[:40]!r} is no tag; write name:value, as team:search")
    return cleaned


def _texts(name: str, given: object) -> list[str]:
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise ConfigError(f"{name}: a list of texts is needed")
    texts = list(given)
    if not all(isinstance(one, str) and one for one in texts):
        raise ConfigError(f"{name}: a list of texts is needed, none of them empty")
    return texts


def listed(text: str) -> list[str]:
    """A list in a URL: its parts stand between commas."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts:
        raise ValueError("texts with commas between them")
    return parts
