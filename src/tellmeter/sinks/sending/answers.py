"""What an HTTP answer means for a batch: one table of statuses, and Retry-After."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import NamedTuple

from ...pipeline.outcome import Delivered, Outcome, Rejected, RetryLater, TooLarge

PAUSE_SECONDS = 60.0
"""How long a sink rests after what only a person can cure: a wrong key, an untrusted certificate."""

ANSWER_BYTES = 64 * 1024

_LONGEST = 365 * 86_400.0
_CHARACTERS = 64
# The three forms of RFC 9110, 5.6.7: the preferred one, RFC 850's and asctime's. All are GMT, whatever the locale here.
_TIME = r"(?P<time>[0-9]{2}:[0-9]{2}:[0-9]{2})"
_DATES = (
    re.compile(rf"[A-Z][a-z]{{2}}, (?P<day>[0-9]{{2}}) (?P<month>[A-Z][a-z]{{2}}) (?P<year>[0-9]{{4}}) {_TIME} GMT"),
    re.compile(rf"[A-Z][a-z]+, (?P<day>[0-9]{{2}})-(?P<month>[A-Z][a-z]{{2}})-(?P<year>[0-9]{{2}}) {_TIME} GMT"),
    re.compile(rf"[A-Z][a-z]{{2}} (?P<month>[A-Z][a-z]{{2}}) (?P<day>[ 0-9][0-9]) {_TIME} (?P<year>[0-9]{{4}})"),
)
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

# Statuses that mean something of their own. Of the rest, 2xx is delivered, 3xx and 4xx rejected, 5xx tried again.
_OUTCOMES: dict[int, Outcome] = {
    401: RetryLater(PAUSE_SECONDS, "unauthorized"),
    403: RetryLater(PAUSE_SECONDS, "forbidden"),
    408: RetryLater(None, "http_408"),
    413: TooLarge(),
    425: RetryLater(None, "http_425"),
}
_TELLS_WHEN = (429, 503)


class HTTPAnswer(NamedTuple):
    """An answer: headers by their names in lower case; of the body as much as was asked for, never unpacked."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class NoAnswer(NamedTuple):
    """There was none; `reason` is a short name, `detail` what may be shown beside it."""

    reason: str
    detail: str = ""


def outcome_of(status: int, retry_after_header: str | None, now: float) -> Outcome:
    """What became of a batch that was answered with `status`; `now` is Unix time."""
    if status in _OUTCOMES:
        return _OUTCOMES[status]
    if status in _TELLS_WHEN:
        return RetryLater(retry_after(retry_after_header, now), f"http_{status}")
    if status >= 500:
        return RetryLater(None, f"http_{status}")
    if 200 <= status < 300:
        return Delivered()
    return Rejected("redirected" if 300 <= status < 400 else f"http_{status}")


def retry_after(value: str | None, now: float) -> float | None:
    """The seconds that a Retry-After header asks for, 0.0 to one year; None for what says nothing (negative, NaN).

    Seconds or a date in any form of RFC 9110, 5.6.7, which is taken from `now` (Unix time). Never raises.
    """
    text = value.strip() if isinstance(value, str) else ""
    if not text or len(text) > _CHARACTERS:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = _until(text, now)
    if math.isnan(seconds) or seconds < 0:
        return None
    return min(seconds, _LONGEST)


def _until(date: str, now: float) -> float:
    found = next(filter(None, (form.fullmatch(date) for form in _DATES)), None)
    if found is None:
        return math.nan
    year, this_year = int(found["year"]), datetime.fromtimestamp(now, UTC).year
    if len(found["year"]) == 2:  # as RFC 9110 reads them: of this century, unless more than 50 years ahead
        year += this_year // 100 * 100
        year -= 100 if year > this_year + 50 else 0
    hour, minute, second = map(int, found["time"].split(":"))
    try:
        moment = datetime(year, _MONTHS.index(found["month"]) + 1, int(found["day"]), hour, minute, second, tzinfo=UTC)
    except ValueError:
        return math.nan
    return max(0.0, moment.timestamp() - now)
