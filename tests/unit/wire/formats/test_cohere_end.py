import msgspec
import pytest

from tellmeter.usage import Usage
from tellmeter.wire.answer import Answer
from tellmeter.wire.formats.cohere_end import CohereUsage, note_end, usage_of

BILLED = {"input_tokens": 8, "output_tokens": 50}
PROCESSED = {"input_tokens": 1394, "output_tokens": 55, "reasoning_tokens": 38}


def usage(**stated):
    return usage_of(msgspec.convert(stated, CohereUsage))


def test_what_is_billed_counts_and_its_cached_part_is_not_known():
    found = usage(billed_units=BILLED, tokens=PROCESSED, cached_tokens=1360)
    assert found == Usage(input_tokens=8, output_tokens=50, reasoning_tokens=38)


def test_what_was_processed_counts_where_nothing_is_billed():
    wanted = Usage(input_tokens=1394, output_tokens=55, cached_tokens=1360, reasoning_tokens=38)
    assert usage(tokens=PROCESSED, cached_tokens=1360) == wanted
    assert usage(tokens=PROCESSED, cached_tokens=1360, billed_units={"search_units": 1}) == wanted


def test_reasoning_is_part_of_what_is_billed():
    assert usage(billed_units={"output_tokens": 5}, tokens=PROCESSED).reasoning_tokens == 5


def test_images_are_input():
    assert usage(billed_units={"input_tokens": 2, "image_tokens": 30}) == Usage(input_tokens=32)


def test_nothing_stated_is_no_usage():
    assert usage_of(None) is usage() is usage(billed_units={"search_units": 1}, tokens={}) is None


@pytest.mark.parametrize(
    ("reason", "failed", "name"),
    [
        ("COMPLETE", False, None),
        ("MAX_TOKENS", False, None),
        ("USER_CANCEL", False, None),
        ("ERROR", True, None),
        ("ERROR_LIMIT", True, "error_limit"),
        ("TIMEOUT", True, "timeout"),
    ],
)
def test_reasons_to_end_that_are_failures(reason, failed, name):
    answer = Answer()
    note_end(answer, reason, None)
    assert (answer.finish_reason, answer.failed, answer.error_type) == (reason, failed, name)


def test_what_is_not_stated_stays():
    answer = Answer()
    note_end(answer, "COMPLETE", msgspec.convert({"billed_units": BILLED}, CohereUsage))
    note_end(answer, None, None)
    assert (answer.finish_reason, answer.usage) == ("COMPLETE", Usage(input_tokens=8, output_tokens=50))
