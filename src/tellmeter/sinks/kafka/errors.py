"""What librdkafka's errors mean for a message: one table."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from ...pipeline.outcome import Delivered, Outcome, Partial, Rejected, RetryLater, TooLarge

PAUSE_SECONDS = 60.0
"""How long the sink rests after what only a person can cure."""

_NO_NAME = re.compile(r"[^a-z0-9_]")


class Fate(NamedTuple):
    """What becomes of a message that failed: `retry`, `pause` (a retry after a rest), `split` or `reject`."""

    kind: str
    reason: str


TIMEOUT = Fate("retry", "timeout")
UNREACHABLE = Fate("retry", "unreachable")

_UNAUTHORIZED = Fate("pause", "unauthorized")
_FORBIDDEN = Fate("pause", "forbidden")
_NO_TOPIC = Fate("pause", "no_topic")
_TOO_LARGE = Fate("split", "too_large")

# By the names of KafkaError. What is not here is tried again: most of Kafka's errors pass.
_FATES = {
    "MSG_SIZE_TOO_LARGE": _TOO_LARGE,
    "RECORD_LIST_TOO_LARGE": _TOO_LARGE,
    "TOPIC_AUTHORIZATION_FAILED": _FORBIDDEN,
    "CLUSTER_AUTHORIZATION_FAILED": _FORBIDDEN,
    "SECURITY_DISABLED": _FORBIDDEN,
    "SASL_AUTHENTICATION_FAILED": _UNAUTHORIZED,
    "UNSUPPORTED_SASL_MECHANISM": _UNAUTHORIZED,
    "_AUTHENTICATION": _UNAUTHORIZED,
    "_SSL": Fate("pause", "tls"),
    "UNKNOWN_TOPIC_OR_PART": _NO_TOPIC,
    "TOPIC_EXCEPTION": _NO_TOPIC,
    "_UNKNOWN_TOPIC": _NO_TOPIC,
    "_UNKNOWN_PARTITION": _NO_TOPIC,
    "UNSUPPORTED_VERSION": Fate("pause", "unsupported"),
    "UNSUPPORTED_COMPRESSION_TYPE": Fate("pause", "unsupported"),
    "_UNSUPPORTED_FEATURE": Fate("pause", "unsupported"),
    "INVALID_RECORD": Fate("reject", "invalid_record"),
    "INVALID_TIMESTAMP": Fate("reject", "invalid_timestamp"),
    "POLICY_VIOLATION": Fate("reject", "policy_violation"),
    "_PURGE_QUEUE": TIMEOUT,
    "_PURGE_INFLIGHT": TIMEOUT,
    "_MSG_TIMED_OUT": TIMEOUT,
    "_TIMED_OUT": TIMEOUT,
    "_TIMED_OUT_QUEUE": TIMEOUT,
    "REQUEST_TIMED_OUT": TIMEOUT,
    "_TRANSPORT": UNREACHABLE,
    "_ALL_BROKERS_DOWN": UNREACHABLE,
    "_RESOLVE": Fate("retry", "dns"),
}

ADVICE = {
    "unauthorized": "it does not know the user or password: check sasl.mechanism, sasl.username and sasl.password",
    "forbidden": "the user may not write to the topic: allow it WRITE (and IDEMPOTENT_WRITE before Kafka 2.8)",
    "no_topic": "there is no such topic: make it",
    "tls": "TLS failed: check the certificate, or give the file of the authority as ssl.ca.location",
    "unsupported": "it is too old for these settings: try enable.idempotence=false or another compression.type",
}
"""What a person can do about a pause."""


def fate(name: str) -> Fate:
    """What becomes of a message that failed with an error of this name, or of all after it where it is no message's."""
    return _FATES.get(name) or Fate("retry", f"kafka_{_NO_NAME.sub('_', name.lower().strip('_'))[:40]}")


def outcome(count: int, failed: Mapping[int, Fate]) -> Outcome:
    """What became of a batch of `count` messages, of which those at these indexes failed."""
    if not failed:
        return Delivered()
    rejected = tuple(sorted(index for index, one in failed.items() if one.kind == "reject"))
    again = tuple(sorted(failed.keys() - set(rejected)))
    kinds = {one.kind for one in failed.values()}
    # The reason of what is tried again goes before that of what is dropped: only it steers what happens next.
    first = next(one for kind in ("pause", "retry", "split", "reject") for one in failed.values() if one.kind == kind)
    if len(rejected) == count:
        return Rejected(first.reason)
    if len(again) < count:
        return Partial(again, rejected, first.reason)
    if kinds == {"split"}:
        return TooLarge()
    return RetryLater(PAUSE_SECONDS if "pause" in kinds else None, first.reason)
