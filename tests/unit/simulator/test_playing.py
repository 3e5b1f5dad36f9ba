"""Playing a reply: headers, events, pace and what a fault does, without a network."""

import asyncio

import pytest

from tellmeter.simulator.answer import Event
from tellmeter.simulator.faults import OK, parse_fault
from tellmeter.simulator.playing import Reply, Served, play
from tellmeter.simulator.traffic import Traffic

EVENTS = [Event(b"event %d\n\n" % n, 1) for n in range(5)]
HEADERS = [(b"content-type", b"text/plain"), (b"content-length", b"45")]


class Transport:
    """A connection that notes how it ends."""

    def __init__(self):
        self.ended = None
        self.over = asyncio.Event()

    def get_write_buffer_size(self):
        return 0

    def is_closing(self):
        return False

    def get_extra_info(self, name):
        return self

    def setsockopt(self, *option):
        self.ended = "linger"

    def abort(self):
        self.ended = f"{self.ended} abort"
        self.over.set()

    def close(self):
        self.ended = "close"
        self.over.set()


def played(reply, fault=OK, *, stream=True, transport=None):
    """(messages, seconds at which each was sent, what was noted)"""
    served = Served(path="/", stream=stream)
    sent, at = [], []

    async def run():
        clock = asyncio.get_running_loop().time
        begun = clock()

        async def send(message):
            sent.append(message)
            at.append(clock() - begun)

        scope = {"state": {"transport": transport}} if transport else {}
        task = asyncio.ensure_future(play(scope, reply, send, served, fault))
        if transport is not None:
            await transport.over.wait()
            task.cancel()  # as the disconnect does
            await asyncio.wait([task])
        else:
            await task

    asyncio.run(run())
    return sent, at, served


def test_headers_events_and_an_end_are_sent():
    sent, _, served = played(Reply(201, HEADERS, EVENTS))
    assert sent[0] == {"type": "http.response.start", "status": 201, "headers": HEADERS}
    assert [message["body"] for message in sent[1:]] == [*(event.data for event in EVENTS), b""]
    assert [message["more_body"] for message in sent[1:]] == [True] * 5 + [False]
    assert (served.status, served.events, served.whole) == (201, 5, True)


def test_a_reply_without_events_still_has_headers():
    sent, _, served = played(Reply(200, HEADERS, []))
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    assert served.whole


def test_silence_comes_before_the_headers_and_pauses_between_events():
    _, at, _ = played(Reply(200, HEADERS, EVENTS[:2], wait=0.05, pause=0.03))
    assert at[0] >= 0.05
    assert at[2] - at[0] >= 0.05


def test_events_come_at_the_pace_of_their_tokens():
    pace = Traffic(speed=0.01).pace("gpt-4o", Traffic().rng(1))
    _, at, _ = played(Reply(200, HEADERS, EVENTS, pace=pace))
    assert at[-1] >= pace.first * 0.6


def test_a_stall_in_the_middle_is_silent_there():
    _, at, served = played(Reply(200, HEADERS, EVENTS), parse_fault("stall;after=2;seconds=0.05"))
    assert at[3] - at[2] >= 0.05
    assert served.whole


def test_a_stall_before_the_first_byte_holds_the_headers():
    _, at, _ = played(Reply(200, HEADERS, EVENTS), parse_fault("stall;seconds=0.05"))
    assert at[0] >= 0.05


@pytest.mark.parametrize(
    ("text", "bodies", "ended"),
    [
        ("reset;after=2", 2, "linger abort"),
        ("close;after=2", 2, "close"),
        ("reset;after=0", None, "linger abort"),
        ("hang;seconds=0", None, "close"),
    ],
)
def test_a_connection_is_ended_under_the_response(text, bodies, ended):
    transport = Transport()
    sent, _, served = played(Reply(200, HEADERS, EVENTS), parse_fault(text), transport=transport)
    assert transport.ended == ended
    assert len(sent) == (0 if bodies is None else 1 + bodies)
    assert not served.whole


def test_without_a_connection_to_break_the_application_raises():
    with pytest.raises(ConnectionAbortedError):
        played(Reply(200, HEADERS, EVENTS), parse_fault("reset"))


def test_a_body_that_is_not_streamed_comes_in_pieces_when_something_happens_to_it():
    body = Reply(200, HEADERS, [Event(bytes(45))])
    sent, _, served = played(body, parse_fault("slow;seconds=0.001"), stream=False)
    assert len(sent) == 1 + 8 + 1
    assert served.whole
    sent, _, _ = played(body, OK, stream=False)
    assert len(sent) == 1 + 1 + 1


def test_garbage_has_no_length_promised():
    sent, _, served = played(Reply(200, HEADERS, [Event(bytes(45))]), parse_fault("garbage"), stream=False)
    assert sent[0]["headers"] == HEADERS[:1]
    assert b"".join(message["body"] for message in sent[1:]).startswith(b"<html>")
    assert not served.whole


@pytest.mark.parametrize("text", ["no-terminator", "error-event"])
def test_what_only_a_stream_can_suffer_leaves_a_body_alone(text):
    sent, _, served = played(Reply(200, HEADERS, [Event(bytes(45))]), parse_fault(text), stream=False)
    assert sent[1]["body"] == bytes(45)
    assert served.whole
