import asyncio

import pytest

from tellmeter.instruments.error_counts import MOST_FRAMES, track_errors
from tests.support.metrics import values_of


def fail(error=ValueError):
    raise error("a prompt")


def test_errors_are_counted_by_class_and_function(registry, own_counts):
    call = track_errors(labels={"endpoint": "/query"}, registry=registry)(fail)
    for error in (ValueError, ValueError, KeyError):
        with pytest.raises(error):
            call(error)
    assert values_of(registry, "error_count") == {
        "endpoint=/query,error_type=ValueError,function=fail": 2,
        "endpoint=/query,error_type=KeyError,function=fail": 1,
    }
    assert own_counts() == {}


def test_a_function_that_the_user_named_is_kept(registry):
    with pytest.raises(ValueError):
        track_errors(labels={"function": "invoke_bedrock"}, registry=registry)(fail)()
    assert values_of(registry, "error_count") == {"endpoint=,error_type=ValueError,function=invoke_bedrock": 1}


@pytest.mark.parametrize("error", [asyncio.CancelledError, GeneratorExit, KeyboardInterrupt, SystemExit])
def test_what_is_cancelled_is_no_error(error, registry):
    with pytest.raises(error):
        track_errors("e_total", registry=registry)(fail)(error)
    assert registry.families() == []


@pytest.mark.parametrize("given", [{"metric_name": "e_total"}, {"counter_name": "e_total"}])
def test_both_words_for_the_name(given, registry):
    with pytest.raises(ValueError):
        track_errors(**given, label_extractor=lambda: {"x": "y"}, registry=registry)(fail)()
    assert values_of(registry, "e") == {"error_type=ValueError,function=fail,x=y": 1}


def test_an_extractor_is_asked_for_failed_calls_alone(registry):
    asked = []

    def extractor(number):
        asked.append(number)
        return {"number": number}

    call = track_errors("e_total", label_extractor=extractor, registry=registry)(lambda number: 1 / number)
    call(1)
    with pytest.raises(ZeroDivisionError):
        call(0)
    assert asked == [0]


def test_a_traceback_has_places_and_no_message(registry, caplog):
    def deep(number):
        return deep(number - 1) if number else fail()

    with pytest.raises(ValueError):
        track_errors(include_traceback=True, registry=registry)(deep)(50)
    [record] = caplog.records
    told = record.getMessage()
    assert told.startswith("ValueError at ") and told.endswith("in fail") and "prompt" not in told
    assert told.count(" in ") == MOST_FRAMES


def test_without_parentheses_and_as_a_block(own_process, registry):
    @track_errors
    async def work():
        fail()

    with pytest.raises(ValueError):
        asyncio.run(work())
    assert values_of(own_process._process_registry, "error_count") == {
        "endpoint=,error_type=ValueError,function=work": 1
    }
    with pytest.raises(KeyError), track_errors("e_total", registry=registry):
        fail(KeyError)
    assert values_of(registry, "e") == {"error_type=KeyError": 1}
