"""The store that a command asks, and the questions as plain calls."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from ..config import default_store_url
from ..records import MetricsSummary
from ..sinks import urls
from ..sinks.address import parse
from ..sinks.base import MetricsStore


def chosen_url(given: str | None) -> str:
    """The URL of `--store`, else the default; the same from every folder, for a metered program may work in another.

    Raises:
        ConfigError: a URL that names no store.
    """
    _, url = urls.known_url(given or default_store_url(), urls.STORES)
    path = file_of(url)
    return url if path is None else url.replace(parse(url).location, f"///{path}", 1)


def file_of(url: str) -> Path | None:
    """The file of a store that is one."""
    address = parse(url)
    return address.file() if address.scheme == "sqlite" and address.location.startswith("///") else None


def opened(url: str) -> MetricsStore | None:
    """The store, proved to work; None for one that is not made yet.

    Raises:
        StoreError: it cannot be read, or a newer tellmeter wrote it; says what to do.
    """
    path = file_of(url)
    if path is not None:
        return urls.store_from_url(url, must_exist=True) if path.exists() else None
    store: Any = urls.store_from_url(url)
    store.check()  # where it is a server's table it is made here, for a program is about to write to it
    return cast(MetricsStore, store)


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
