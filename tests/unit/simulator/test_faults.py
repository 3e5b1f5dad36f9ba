"""Faults: their text, and what they do to a body."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tellmeter.errors import ConfigError
from tellmeter.simulator import aws_frames
from tellmeter.simulator.answer import Event
from tellmeter.simulator.faults import (
    OK,
    Fault,
    HangUp,
    Stall,
    for_attempt,
    in_pieces,
    parse_fault,
    parse_script,
    spoil,
)
from tellmeter.wire.event_stream import Frames

seconds = st.floats(0, 86_400, allow_nan=False)
counts = st.integers(0, 10_000)
faults = st.one_of(
    st.builds(
        Fault,
        kind=st.just("status"),
        status=st.integers(400, 599),
        retry_after=st.none() | seconds,
        code=st.none() | st.from_regex(r"[a-z][a-z_]{0,20}", fullmatch=True),
    ),
    st.builds(Fault, kind=st.sampled_from(["reset", "close", "error-event", "garbage"]), after=counts),
    st.builds(Fault, kind=st.just("stall"), after=counts, seconds=seconds),
    st.builds(Fault, kind=st.sampled_from(["slow", "hang"]), seconds=seconds),
    st.builds(Fault, kind=st.sampled_from(["no-usage", "no-terminator", "ok"])),
)


@given(st.lists(faults, max_size=6))
def test_the_text_of_faults_reads_back(script):
    assert parse_script(", ".join(map(str, script))) == script


@given(st.text())
def test_any_text_is_a_fault_or_a_config_error(text):
    try:
        fault = parse_fault(text)
    except ConfigError:
        return
    assert parse_fault(str(fault)) == fault


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (500, Fault("status", 500)),
        ("429;retry-after=1", Fault("status", 429, retry_after=1.0)),
        (" 429 ; Retry_After = .5 ", Fault("status", 429, retry_after=0.5)),
        ("429;code=insufficient_quota", Fault("status", 429, code="insufficient_quota")),
        ("reset", Fault("reset", after=3)),
        ("RESET;after=0", Fault("reset", after=0)),
        ("stall;after=2;seconds=0.5", Fault("stall", after=2, seconds=0.5)),
        ("no_usage", Fault("no-usage")),
        (Fault("ok"), OK),
    ],
)
def test_what_can_be_written(text, fault):
    assert parse_fault(text) == fault


@pytest.mark.parametrize(
    "text",
    [
        *("", "explode", "status", "200", "600", "99999999999", "٤٢٩"),
        *("reset;after=-1", "reset;after=1.5", "reset;seconds=1"),
        *("stall;seconds=nan", "stall;seconds=inf", "stall;seconds=x", "stall;seconds"),
    ],
)
def test_what_is_no_fault_is_named(text):
    with pytest.raises(ConfigError, match="fault"):
        parse_fault(text)


def test_a_script_is_one_fault_an_attempt_and_the_last_for_the_rest():
    script = parse_script("500, 429;retry-after=0, ok")
    assert [for_attempt(script, attempt).status for attempt in range(5)] == [500, 429, 200, 200, 200]
    assert for_attempt([], 3) == OK


EVENTS = [Event(b'data: {"n": %d}\n\n' % n, 1, n == 5) for n in range(6)]


@pytest.mark.parametrize(
    ("text", "happens"),
    [
        ("ok", EVENTS),
        ("reset;after=2", [*EVENTS[:2], HangUp(reset=True)]),
        ("close;after=0", [HangUp(reset=False)]),
        ("reset;after=99", [*EVENTS[:5], HangUp(reset=True)]),
        ("stall;after=1;seconds=2", [EVENTS[0], Stall(2.0), *EVENTS[1:]]),
        ("no-terminator", EVENTS[:5]),
        ("error-event;after=3", [*EVENTS[:3], Event(b"oops")]),
        ("garbage;after=1", [EVENTS[0], Event(b'data: {"n"\n\n', 1), *EVENTS[2:]]),
        ("no-usage", EVENTS),
    ],
)
def test_what_happens_to_a_stream(text, happens):
    assert list(spoil(EVENTS, parse_fault(text), [Event(b"oops")])) == happens


def test_garbage_in_a_frame_of_amazons_is_in_its_payload():
    frames = [Event(aws_frames.event("contentBlockDelta", b'{"n":%d}' % n)) for n in range(3)]
    spoilt = list(spoil(frames, parse_fault("garbage;after=1")))
    assert [message.payload for event in spoilt for message in Frames().feed(event.data)] == [
        b'{"n":0}',
        b'{"n"',
        b'{"n":2}',
    ]


def test_slow_waits_before_every_event():
    assert list(spoil(EVENTS[:2], parse_fault("slow;seconds=3"))) == [Stall(3.0), EVENTS[0], Stall(3.0), EVENTS[1]]


@given(st.lists(st.binary(min_size=1), max_size=20).map(lambda all_: [Event(b) for b in all_]), faults)
def test_only_what_was_to_be_sent_is_sent_and_a_fault_always_happens(events, fault):
    played = list(spoil(events, fault, [Event(b"oops")]))
    if fault.kind in {"reset", "close", "stall"} and events:
        assert any(isinstance(item, HangUp | Stall) for item in played)
    sent = [item for item in played if isinstance(item, Event)]
    if fault.kind not in {"garbage", "error-event"}:
        assert sent == events[: len(sent)]


@given(st.binary(max_size=2000))
def test_a_body_in_pieces_is_the_body(body):
    made = in_pieces(body)
    assert b"".join(event.data for event in made) == body
    assert len(made) <= 8
