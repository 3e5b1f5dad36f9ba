from __future__ import annotations

import pytest

from tellmeter import ConfigError, on
from tellmeter.streams.events import anybody, handlers_of
from tellmeter.streams.report import EVENTS


def test_a_handler_is_told_until_it_is_taken_off() -> None:
    def first(report: object) -> None: ...

    def second(report: object) -> None: ...

    off_first, off_second = on("stream.stall", first), on("stream.stall", second)
    assert handlers_of("stream.stall") == (first, second)
    assert anybody("stream.start", "stream.stall") and not anybody("stream.start", "stream.error")
    off_first()
    off_first()
    assert handlers_of("stream.stall") == (second,)
    off_second()
    assert not anybody(*EVENTS)


def test_the_same_handler_twice_is_taken_off_once_each() -> None:
    def handler(report: object) -> None: ...

    offs = [on("stream.error", handler), on("stream.error", handler)]
    offs[0]()
    assert handlers_of("stream.error") == (handler,)
    offs[1]()
    assert handlers_of("stream.error") == ()


@pytest.mark.parametrize("event", ["start", "stream.stop", "", "stream.Start"])
def test_an_event_that_is_none_is_told_with_those_there_are(event: str) -> None:
    with pytest.raises(ConfigError, match="stream.first_token"):
        on(event, print)


def test_what_cannot_be_called_is_refused() -> None:
    with pytest.raises(ConfigError, match="NoneType"):
        on("stream.start", None)  # type: ignore[arg-type]
