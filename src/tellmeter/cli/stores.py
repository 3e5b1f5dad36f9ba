"""The store that a command asks, and the questions as plain calls."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from ..config import default_store_url
from ..records import MetricsSummary
from ..sinks.base import MetricsStore


def chosen_url(given: str | None) -> str:
    """The store's URL, the same from every folder: `--store`, else the default."""
    return absolute(given.strip() if given else default_store_url())


def absolute(url: str) -> str:
    """A relative SQLite path, made absolute: a metered program may work in another folder."""
    scheme, sign, path = url.partition(":///")
    if scheme == "sqlite" and sign and path and not path.startswith((":memory:", "/", "~")):
        return f"sqlite:///{Path(path).absolute()}"
    return url


def masked(url: str) -> str:
    """The URL without its password and query, as it may be shown."""
    try:
        parts = urlsplit(url)
        password = parts.password
    except ValueError:
        return url.partition(":")[0] + ":..."
    netloc = parts.netloc.replace(f":{password}@", ":***@") if password else parts.netloc
    shown = urlunsplit((parts.scheme, netloc, parts.path, "", ""))
    return f"{shown}?..." if parts.query else shown


class Answers(dict[str, MetricsSummary]):
    """One summary per value, most calls first; `total` is over all calls, those without the value too."""

    total: MetricsSummary


def ask(store: MetricsStore, by: str, **filters: Any) -> Answers:
    """A breakdown and its total. Filters are those of `MetricsStore`."""
    import asyncio  # costs as much as the rest of the command's start

    async def questions() -> Answers:
        answers = Answers(await store.get_breakdown(by, **filters))
        answers.total = await store.get_summary(None, **filters)
        return answers

    return asyncio.run(questions())


def run_filter(run: str | None, since: float | None, now: float) -> Mapping[str, Any]:
    """The filters of one run, and of the last `since` seconds; None for no bound."""
    filters: dict[str, Any] = {}
    if run:
        filters["tags"] = {"run": run}
    if since is not None:
        filters["start_time"] = now - since
    return filters
