"""`tellmeter summary`: what a store knows of the calls so far."""

from __future__ import annotations

import re
import sys
import time

import msgspec

from ..errors import ConfigError
from ..sinks import urls
from ..sinks.address import redact
from ..sinks.query import check_breakdown
from .stores import Answers, ask, chosen_url, run_filter

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
DEFAULT_SINCE = "1d"


def summary(
    store: str | None = None,
    since: str | None = None,
    by: str = "model",
    run: str | None = None,
    *,
    as_json: bool = False,
) -> int:
    """Print one row per value of `by` over the calls since `since`, as a table or as JSON."""
    window = since or ("all" if run else DEFAULT_SINCE)
    seconds = parse_since(window)
    check_breakdown(by)
    url = chosen_url(store)
    answers = ask(urls.store_from_url(url, must_exist=True), by, **run_filter(run, seconds, time.time()))
    if as_json:
        sys.stdout.buffer.write(to_json(answers, by=by, since=window, run=run, store=redact(url)) + b"\n")
        return 0
    scope = f" of run {run}" if run else ""
    period = "" if seconds is None else f" of the last {window}"
    if not answers.total.count:
        hint = "" if seconds is None else "; --since all shows older ones"
        sys.stdout.write(f"no calls{scope}{period} in {redact(url)}{hint}\n")
        return 0
    from .tables import print_table

    print_table(answers, by, title=f"calls{scope}{period} in {redact(url)}")
    return 0


def to_json(answers: Answers, *, by: str, since: str, run: str | None, store: str) -> bytes:
    """`{"store", "since", "run", "by", "groups": {value: summary}, "total": summary}`, summaries as MetricsSummary."""
    shown = {"store": store, "since": since, "run": run, "by": by, "groups": dict(answers), "total": answers.total}
    return msgspec.json.format(msgspec.json.encode(shown))


def parse_since(text: str) -> float | None:
    """Seconds of `30s`, `15m`, `1h`, `7d`, `2w`; None for `all`."""
    if text == "all":
        return None
    found = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)([smhdw])", text)
    if found is None or not float(found[1]):
        raise ConfigError(f"--since {text}: it must be a number with s, m, h, d or w (as 30s, 15m, 1h, 7d), or all")
    return float(found[1]) * _UNITS[found[2]]
