from __future__ import annotations

import pytest
from confluent_kafka import KafkaError
from hypothesis import given
from hypothesis import strategies as st

from tellmeter.pipeline.outcome import Delivered, Partial, Rejected, RetryLater, TooLarge
from tellmeter.sinks.kafka import errors
from tellmeter.sinks.kafka.errors import ADVICE, Fate, fate, outcome

RETRY, OTHER = Fate("retry", "timeout"), Fate("retry", "unreachable")
PAUSE, SPLIT = Fate("pause", "forbidden"), Fate("split", "too_large")
REJECT = Fate("reject", "invalid_record")


@pytest.mark.parametrize(
    ("failed", "expected"),
    [
        ({}, Delivered()),
        ({0: RETRY, 1: RETRY, 2: OTHER}, RetryLater(None, "timeout")),
        ({0: RETRY, 1: PAUSE, 2: RETRY}, RetryLater(60.0, "forbidden")),
        ({0: SPLIT, 1: SPLIT, 2: SPLIT}, TooLarge()),
        ({0: SPLIT, 1: SPLIT, 2: RETRY}, RetryLater(None, "timeout")),
        ({0: REJECT, 1: REJECT, 2: REJECT}, Rejected("invalid_record")),
        ({2: REJECT, 0: REJECT}, Partial((), (0, 2), "invalid_record")),
        ({2: RETRY}, Partial((2,), (), "timeout")),
        ({1: SPLIT}, Partial((1,), (), "too_large")),
        ({1: REJECT, 2: RETRY, 0: SPLIT}, Partial((0, 2), (1,), "timeout")),
    ],
)
def test_what_became_of_three_messages(failed, expected):
    assert outcome(3, failed) == expected


@given(st.integers(1, 9), st.data())
def test_every_message_is_delivered_retried_or_rejected(count, data):
    failed = data.draw(st.dictionaries(st.integers(0, count - 1), st.sampled_from([RETRY, PAUSE, SPLIT, REJECT])))
    found = outcome(count, failed)
    everything = tuple(range(count))
    if isinstance(found, Partial):
        again, rejected = found.retry, found.rejected
    else:
        again = everything if isinstance(found, (RetryLater, TooLarge)) else ()
        rejected = everything if isinstance(found, Rejected) else ()
    assert set(rejected) == {index for index, one in failed.items() if one is REJECT}
    assert set(again) == failed.keys() - set(rejected)


def test_the_table_names_errors_that_there_are():
    assert {name for name in errors._FATES if not hasattr(KafkaError, name)} == set()
    pauses = {one.reason for one in errors._FATES.values() if one.kind == "pause"}
    assert pauses == set(ADVICE)


def test_every_error_has_a_fate_with_a_short_name():
    for name in dir(KafkaError):
        if isinstance(getattr(KafkaError, name), int):
            found = fate(name)
            assert found.kind in ("retry", "pause", "split", "reject")
            assert found.reason.replace("_", "").isalnum()
            assert len(found.reason) <= 64


def test_an_error_that_nobody_knows_is_tried_again():
    assert fate("_FATAL") == Fate("retry", "kafka_fatal")
    assert fate("ERR_9999?!") == Fate("retry", "kafka_err_9999__")
