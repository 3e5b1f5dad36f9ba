import json
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tellmeter import counts
from tellmeter.wire import sse
from tellmeter.wire.formats import anthropic_messages, openai_chat, openai_completions, openai_responses
from tellmeter.wire.sse import CONTENT, IGNORED, OTHER, PLAIN, SseReader, split_event, text_template

FORMATS = (openai_chat, openai_completions, openai_responses, anthropic_messages)


def parsing(reader_class):
    """The same reader without templates: every event is parsed."""

    class Parsing(reader_class):
        __slots__ = ()

        def template(self, event):
            return None

    return Parsing()


def said(reader):
    return reader.events, reader.content_events, reader.done, reader.answer


def slowly(reader_class, frames):
    """One event at a time, with plain line ends, all of them parsed."""
    reader = parsing(reader_class)
    for frame in frames:
        reader.feed(frame + b"\n\n")
    reader.finish()
    return said(reader)


class Plain(SseReader):
    """Events are JSON strings; empty ones are no content."""

    __slots__ = ("seen",)

    format_name = "test"
    final_events = (b"final",)

    def __init__(self):
        super().__init__()
        self.seen = []

    def read(self, name, data, whole):
        try:
            text = json.loads(data)
        except ValueError:
            return OTHER if whole else IGNORED
        self.seen.append((name, text))
        return PLAIN if text else OTHER


def read(body, **settings):
    reader = Plain()
    for name, value in settings.items():
        setattr(reader, name, value)
    reader.feed(body)
    reader.finish()
    return reader


# ---------------------------------------------------------------------- framing


@pytest.mark.parametrize(
    ("event", "found"),
    [
        (b"data: 1", (b"", b"1")),
        (b"data:1", (b"", b"1")),
        (b"data:  1", (b"", b" 1")),
        (b"event: error\ndata: 1", (b"error", b"1")),
        (b"data: 1\nevent: error", (b"error", b"1")),
        (b"data: 1\ndata: 2", (b"", b"1\n2")),
        (b"data", (b"", b"")),
        (b": a comment", (b"", b"")),
        (b": a comment\ndata: 1", (b"", b"1")),
        (b"id: 7\nretry: 3\ndata: 1", (b"", b"1")),
        (b"database: 1", (b"", b"")),
        (b"", (b"", b"")),
    ],
)
def test_fields_of_an_event(event, found):
    assert split_event(event) == found


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("size", [1, 2, 3, 1000])
def test_every_line_end_cut_anywhere(end, size):
    body = b'\xef\xbb\xbfdata: "a"||: comment||event: x|data: "b"||||data: ""||data: "c"'.replace(b"|", end)
    reader = Plain()
    for at in range(0, len(body), size):
        reader.feed(body[at : at + size])
    assert reader.seen == [(b"", "a"), (b"x", "b"), (b"", "")]
    reader.finish()
    assert reader.seen[3:] == [(b"", "c")]
    assert (reader.events, reader.content_events) == (4, 3)


def test_comments_pings_and_the_terminator_are_no_events():
    reader = read(b': OPENROUTER PROCESSING\n\nevent: ping\ndata: "x"\n\nevent: x\n\ndata:\n\ndata: [DONE]\n\n')
    assert (reader.events, reader.done) == (0, True)


def test_events_after_the_terminator_are_read():
    reader = read(b'data: [DONE]\n\ndata: "late"\n\n')
    assert (reader.events, reader.done) == (1, True)


def test_the_last_event_needs_no_blank_line():
    assert read(b'data: "a"\n\ndata: "b"').events == 2
    assert read(b'data: "a"\n\ndata: "b"\n').events == 2
    assert read(b'data: "a"\r\n\r\ndata: "b"\r').events == 2


def test_an_event_that_breaks_off_is_none():
    assert read(b'data: "a"\n\ndata: "b').events == 1
    assert read(b'data: "a"\n\nda').events == 1


def test_finishing_twice_reads_once():
    reader = read(b'data: "a"')
    reader.finish()
    assert reader.events == 1


def test_nothing_at_all():
    reader = read(b"")
    reader.feed(b"")
    assert said(reader) == said(Plain())


def test_a_reader_that_fails_is_counted_and_raises_nothing():
    class Broken(Plain):
        format_name = "broken"

        def read(self, name, data, whole):
            raise KeyError(name)

    before = counts.snapshot().get("unreadable_event", {}).get("broken", 0)
    reader = Broken()
    reader.feed(b"data: 1\n\ndata: 2")
    reader.finish()
    assert counts.snapshot()["unreadable_event"]["broken"] == before + 2
    assert reader.events == 2


def test_what_is_no_bytes_raises_nothing():
    reader = Plain()
    reader.feed(None)
    reader.feed(b'data: "a"\n\n')
    assert reader.events == 1


# ---------------------------------------------------------------------- bounds


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(sse, "MAX_EVENT", 100)
    monkeypatch.setattr(sse, "MAX_FINAL_EVENT", 1000)


def oversized():
    return counts.snapshot().get("oversize_event", {}).get("test", 0)


@pytest.mark.parametrize("size", [1, 7, 64, 10_000])
@pytest.mark.parametrize("length", [80, 91, 92, 93, 94, 95, 96, 99, 100, 101, 110, 500])
def test_an_oversize_event_is_skipped_to_its_end_and_counted(small, size, length):
    before = oversized()
    body = b'data: "a"\n\ndata: "%s"\n\ndata: "b"\n\n' % (b"x" * length)
    reader = Plain()
    for at in range(0, len(body), size):
        reader.feed(body[at : at + size])
    too_large = length + 8 > 100
    assert reader.events == 3
    assert [text[:1] for _, text in reader.seen] == (["a", "b"] if too_large else ["a", "x", "b"])
    assert oversized() == before + too_large


@pytest.mark.parametrize("size", [1, 50, 10_000])
def test_a_final_event_may_be_larger(small, size):
    body = b'event: final\ndata: "%s"\n\nevent: final\ndata: "%s"\n\n' % (b"x" * 500, b"x" * 1500)
    reader = Plain()
    for at in range(0, len(body), size):
        reader.feed(body[at : at + size])
    assert reader.events == 2
    assert len(reader.seen) == 1


def test_an_oversize_event_that_never_ends_is_counted_once(small):
    before = oversized()
    assert read(b'data: "a"\n\ndata: "' + b"x" * 500).events == 2
    assert oversized() == before + 1


def test_memory_does_not_grow_with_the_stream():
    def held(value):
        if isinstance(value, (list, tuple)):
            return sys.getsizeof(value) + sum(map(held, value))
        return sys.getsizeof(value)

    sizes = []
    reader = openai_chat.Reader()
    for number in range(2000):
        delta = {"tool_calls": [{"index": number, "id": f"c{number}", "function": {"name": f"f{number}"}}]}
        reader.feed(chat({"content": "a" * (number % 7 + 1)}) + b"\n\n")
        reader.feed(chat(delta) + b"\n\ndata: {")
        reader.feed(b"}\n\n")
        held_now = sum(held(getattr(reader, name)) for name in (*SseReader.__slots__, "_calls"))
        sizes.append(held_now + held(reader.answer.tools))
    assert len(reader.answer.tools) == 64
    assert max(sizes[200:]) <= max(sizes[:200])


def test_a_large_event_in_small_pieces_costs_its_size_once():
    reader = Plain()
    joined = []

    class Parts(list):
        def append(self, part):
            joined.append(len(part))
            super().append(part)

    reader._parts = Parts([b"data: "])
    for _ in range(1000):
        reader.feed(b"x" * 100)
    assert sum(joined) == 100_000


# ---------------------------------------------------------------------- templates


def test_plain_events_are_counted_without_being_parsed():
    parsed = []

    class Watching(openai_chat.Reader):
        def read(self, name, data, whole):
            parsed.append(data)
            return super().read(name, data, whole)

    reader = Watching()
    texts = ["a", " b", "\\", '"', '\\"', "é", "\n", "x" * 5000]
    reader.feed(b"".join(chat({"content": text}) + b"\n\n" for text in texts))
    assert (reader.events, reader.content_events) == (8, 8)
    assert len(parsed) == 1
    reader.feed(chat({"content": ""}) + b"\n\n")
    assert (reader.events, reader.content_events) == (9, 8)
    assert len(parsed) == 2


def test_padding_is_part_of_the_template():
    event = chat({"content": "a"}, obfuscation="abc")
    made = text_template(event, (b'"content":"',))
    assert made.middle.endswith(b'"obfuscation":"')
    reader = openai_chat.Reader()
    reader.feed(b"".join(chat({"content": "a"}, obfuscation="x" * n) + b"\n\n" for n in range(8)))
    assert (reader.events, reader.content_events, reader._luck) == (8, 8, sse._LUCK)


def test_streams_without_plain_events_stop_trying():
    reader = openai_chat.Reader()
    for number in range(100):
        reader.feed(chat({"content": "a"}, created=number) + b"\n\n")
    assert reader._template is None
    assert (reader.events, reader.content_events) == (100, 100)


def test_a_head_too_large_to_keep_is_no_template():
    assert text_template(chat({"content": "a"}, citations=["x" * 5000]), (b'"content":"',)) is None
    assert text_template(chat({"content": ""}), (b'"content":"',)) is None
    assert text_template(b'data: {"content":"broken', (b'"content":"',)) is None


# ---------------------------------------------------------------------- fast and slow, whole and cut


def chat(delta, *, finish=None, spaced=False, ascii_only=False, **more):
    body = {
        "id": "c",
        "model": "m",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
        "usage": None,
        **more,
    }
    separators = None if spaced else (",", ":")
    return b"data: " + json.dumps(body, separators=separators, ensure_ascii=ascii_only).encode("utf-8", "replace")


TEXT = st.one_of(
    st.text(st.characters(exclude_categories=("Cs",)), max_size=8),
    st.sampled_from(
        ["", "a", "\\", '"', '\\"', '"},"finish_reason":"stop"', "data: [DONE]\n\n", '"usage":{', '{"tool_calls":[', "\r\n"]
    ),
)
USAGE = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}


@st.composite
def chat_frames(draw):
    """Runs of events that are alike, as streams have them, and everything that may come between."""
    frames = []
    for _ in range(draw(st.integers(1, 5))):
        key = draw(st.sampled_from(["content", "content", "reasoning", "reasoning_content", "refusal"]))
        style = {"spaced": draw(st.booleans()), "ascii_only": draw(st.booleans())}
        padded = draw(st.booleans())
        for text in draw(st.lists(TEXT, max_size=6)):
            more = {"obfuscation": "x" * draw(st.integers(0, 3))} if padded else {}
            frames.append(chat({key: text}, **style, **more))
        frames.extend(
            draw(
                st.lists(
                    st.sampled_from(
                        [
                            chat({"role": "assistant", "content": ""}),
                            chat({"content": None}),
                            chat({"content": [{"type": "text", "text": "a"}]}),
                            chat({"content": "a"}, finish="stop"),
                            chat({}, finish="length"),
                            chat({"content": "a"}, usage=USAGE),
                            chat({"content": "a"}, model="other"),
                            chat({"tool_calls": [{"index": 0, "id": "t", "function": {"name": "f", "arguments": ""}}]}),
                            chat({"tool_calls": [{"index": 0, "function": {"arguments": '{"a'}}]}),
                            chat({"function_call": {"name": "g", "arguments": "{"}}),
                            b'data: {"choices":[],"usage":%s}' % json.dumps(USAGE).encode(),
                            b'data: {"error":{"message":"no","type":"server_error","code":502}}',
                            b'event: error\ndata: {"error":{"type":"server_error"}}',
                            b'data: {"choices":[{"index":0,"delta":{"content":"a"}},{"index":1,"delta":{"content":"b"}}]}',
                            b'data: {"choices":\ndata: [{"index":0,"delta":{"content":"a"}}]}',
                            b'data: {"choices":[{"delta":{"content":"a"',
                            b"data: []",
                            b"data: [DONE]",
                            b": OPENROUTER PROCESSING",
                            b"event: ping\ndata: {}",
                        ]
                    ),
                    max_size=3,
                )
            )
        )
    return frames


@st.composite
def responses_frames(draw):
    frames = []
    for _ in range(draw(st.integers(1, 5))):
        kind = draw(st.sampled_from(["response.output_text.delta", "response.reasoning_summary_text.delta"]))
        layout = draw(st.sampled_from(["event: {kind}\ndata: {body}", "data: {body}", "data: {body}\nevent: {kind}"]))
        last = draw(st.booleans())
        for number, text in enumerate(draw(st.lists(TEXT, max_size=6))):
            body = {"sequence_number": number, "delta": text}
            body = {**body, "type": kind} if last else {"type": kind, **body}
            text = json.dumps(body, separators=(",", ":"))
            frames.append(layout.replace("{kind}", kind).replace("{body}", text).encode())
        final = {"id": "r", "status": "completed", "usage": {"input_tokens": 1, "output_tokens": 2}}
        item = {"type": "function_call", "name": "f"}
        for body in draw(
            st.lists(
                st.sampled_from(
                    [
                        {"type": "response.created", "response": {"id": "r", "model": "m", "status": "in_progress"}},
                        {"type": "response.output_item.added", "item": item, "output_index": 0},
                        {"type": "response.completed", "response": final},
                        {"type": "response.failed", "response": {"status": "failed", "error": {"code": "server_error"}}},
                        {"type": "keepalive"},
                        {"type": "error", "code": "rate_limit_exceeded"},
                    ]
                ),
                max_size=3,
            )
        ):
            frames.append(b"event: %s\ndata: %s" % (body["type"].encode(), json.dumps(body).encode()))
    return frames


@st.composite
def anthropic_frames(draw):
    frames = []
    for index in range(draw(st.integers(1, 5))):
        kind, key = draw(
            st.sampled_from(
                [
                    ("text_delta", "text"),
                    ("thinking_delta", "thinking"),
                    ("input_json_delta", "partial_json"),
                    ("signature_delta", "signature"),
                    ("citations_delta", "citation"),
                ]
            )
        )
        separators = draw(st.sampled_from([None, (",", ":")]))
        named = draw(st.booleans())
        for text in draw(st.lists(TEXT, max_size=6)):
            body = {"type": "content_block_delta", "index": index, "delta": {"type": kind, key: text}}
            data = b"data: " + json.dumps(body, separators=separators).encode() + b" " * draw(st.integers(0, 3))
            frames.append(b"event: content_block_delta\n" + data if named else data)
        usage = {"input_tokens": 3, "output_tokens": 1, "cache_read_input_tokens": 2}
        for body in draw(
            st.lists(
                st.sampled_from(
                    [
                        {"type": "message_start", "message": {"id": "m", "model": "claude", "usage": usage}},
                        {"type": "content_block_start", "content_block": {"type": "tool_use", "name": "f"}},
                        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 9}},
                        {"type": "message_stop"},
                        {"type": "ping"},
                        {"type": "error", "error": {"type": "overloaded_error"}},
                    ]
                ),
                max_size=3,
            )
        ):
            frames.append(b"event: %s\ndata: %s" % (body["type"].encode(), json.dumps(body).encode()))
    return frames


@st.composite
def completions_frames(draw):
    frames = []
    for _ in range(draw(st.integers(1, 4))):
        for text in draw(st.lists(TEXT, max_size=6)):
            finish = draw(st.sampled_from([None, None, None, "stop"]))
            body = {"id": "c", "model": "m", "choices": [{"text": text, "index": 0, "finish_reason": finish}]}
            frames.append(b"data: " + json.dumps(body, separators=(",", ":")).encode())
        frames.extend(draw(st.lists(st.sampled_from([b"data: [DONE]", b'data: {"value":"a"}', b": c"]), max_size=2)))
    return frames


FRAMES = st.one_of(
    st.tuples(st.just(openai_chat), chat_frames()),
    st.tuples(st.just(openai_responses), responses_frames()),
    st.tuples(st.just(anthropic_messages), anthropic_frames()),
    st.tuples(st.just(openai_completions), completions_frames()),
)


@settings(max_examples=400, deadline=None)
@given(
    FRAMES,
    st.sampled_from([b"\n", b"\r\n", b"\r"]),
    st.lists(st.integers(1, 400), min_size=1, max_size=20),
    st.booleans(),
    st.booleans(),
    st.integers(2, 3),
)
def test_templates_and_cuts_change_nothing(frames, line_end, sizes, bom, unended, blanks):
    form, events = frames
    body = b"".join(event + b"\n" * blanks for event in events)
    body = (body.rstrip(b"\n") if unended else body).replace(b"\n", line_end)
    body = (b"\xef\xbb\xbf" if bom else b"") + body
    reader = form.Reader()
    at = number = 0
    while at < len(body):
        size = sizes[number % len(sizes)]
        reader.feed(body[at : at + size])
        at += size
        number += 1
    reader.finish()
    # The last event may break off where it is no JSON; whole it counts.
    whole = slowly(form.Reader, events)
    if unended and events and whole[0] != reader.events:
        whole = slowly(form.Reader, events[:-1])
    assert said(reader) == whole


@settings(max_examples=300, deadline=None)
@given(chat_frames())
def test_content_is_what_a_full_parse_finds(frames):
    events = content = 0
    for frame in frames:
        name, data = split_event(frame)
        if not data or name == b"ping" or data == b"[DONE]":
            continue
        events += 1
        try:
            body = json.loads(data)
            choices = body.get("choices") or []
        except (ValueError, AttributeError):
            continue
        keys = ("content", "reasoning", "reasoning_content", "refusal", "tool_calls", "function_call")
        content += any(choice["delta"].get(key) for choice in choices for key in keys)
    assert slowly(openai_chat.Reader, frames)[:2] == (events, content)


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(FORMATS),
    st.lists(
        st.one_of(
            st.binary(max_size=30),
            st.sampled_from([b"data: ", b"\n", b"\r", b"\n\n", b"event: error", b"{", b"}", b'"', b"[", b"null", b":", b"\\"]),
            st.just(b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n'),
        ),
        max_size=30,
    ),
)
def test_no_bytes_make_a_reader_raise(form, pieces):
    whole, cut = form.Reader(), form.Reader()
    whole.feed(b"".join(pieces))
    for piece in pieces:
        cut.feed(piece)
    whole.finish()
    cut.finish()
    assert said(whole) == said(cut)


def test_kinds_are_ordered():
    assert IGNORED < OTHER < CONTENT < PLAIN
