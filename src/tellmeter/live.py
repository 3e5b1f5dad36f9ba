"""What is in progress now, read from the calls that have not ended."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from .call import Call
from .guard import note

if TYPE_CHECKING:
    from .streams.report import StreamReport

CALLBACK_SECONDS = 1.0  # a function of the user's that hangs must not make every flush wait

Counts = Counter[tuple[str, ...]]


def in_progress(calls: Iterable[Call], tags: Mapping[str, str], label_tags: Sequence[str]) -> tuple[Counts, Counts]:
    """How many calls and streams there are by (provider, model, each of `label_tags`); `tags` are under their own."""
    requests, streams = Counts(), Counts()
    for call in calls:
        try:
            provider, model, streaming = call.live()
            known = {**tags, **call.live_tags()}
        except Exception as error:
            note("metrics", error)
            continue
        labels = (provider, model, *(known.get(tag, "") for tag in label_tags))
        requests[labels] += 1
        if streaming:
            streams[labels] += 1
    return requests, streams


def running_streams(calls: Iterable[Call], tags: Mapping[str, str]) -> list[StreamReport]:
    """What is known now of each stream of an LLM call, the oldest first."""
    from .streams.running import report_of  # with the first question

    found = []
    for call in calls:
        try:
            if call.meter is not None and call.meter.wanted and call.is_recorded():
                found.append(report_of(call, call.meter, tags))
        except Exception as error:
            note("stream", error)
    return sorted(found, key=lambda one: one.start_time)


def settle_callbacks(deadline: float) -> None:
    """Wait until functions that are told of streams are told, at most a second and until `deadline`."""
    callbacks = sys.modules.get("tellmeter.streams.callbacks")  # there once a stream was watched
    if callbacks is not None:
        callbacks.settle(min(deadline, time.monotonic() + CALLBACK_SECONDS))
