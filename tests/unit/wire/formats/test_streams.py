"""What a stream says depends neither on how its bytes are cut, nor on which of its events are parsed."""

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from tellmeter.wire.formats import anthropic_messages, openai_chat, openai_completions, openai_responses
from tellmeter.wire.sse import split_event

FORMATS = (openai_chat, openai_completions, openai_responses, anthropic_messages)


def parsing(reader_class):
    """The same reader without templates: every event is parsed."""

    class Parsing(reader_class):
        __slots__ = ()

        def template(self, event):
            return None

    return Parsing()


def said(reader):
    return reader.events, reader.content_events, reader.text_size, reader.done, reader.answer


def slowly(reader_class, frames):
    """One event at a time, with plain line ends, all of them parsed."""
    reader = parsing(reader_class)
    for frame in frames:
        reader.feed(frame + b"\n\n")
    reader.finish()
    return said(reader)


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
        [
            "",
            "a",
            "\\",
            '"',
            '\\"',
            '"},"finish_reason":"stop"',
            "data: [DONE]\n\n",
            '"usage":{',
            '{"tool_calls":[',
            "\r\n",
        ]
    ),
)
TWO_CHOICES = b'data: {"choices":[{"index":0,"delta":{"content":"a"}},{"index":1,"delta":{"content":"b"}}]}'
USAGE = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}


def named(body):
    return b"event: %s\ndata: %s" % (body["type"].encode(), json.dumps(body).encode())


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
                            TWO_CHOICES,
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
        between = draw(
            st.lists(
                st.sampled_from(
                    [
                        {"type": "response.created", "response": {"id": "r", "model": "m", "status": "in_progress"}},
                        {"type": "response.output_item.added", "item": item, "output_index": 0},
                        {"type": "response.completed", "response": final},
                        {
                            "type": "response.failed",
                            "response": {"status": "failed", "error": {"code": "server_error"}},
                        },
                        {"type": "keepalive"},
                        {"type": "error", "code": "rate_limit_exceeded"},
                    ]
                ),
                max_size=3,
            )
        )
        frames.extend(map(named, between))
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
        with_name = draw(st.booleans())
        for text in draw(st.lists(TEXT, max_size=6)):
            body = {"type": "content_block_delta", "index": index, "delta": {"type": kind, key: text}}
            data = b"data: " + json.dumps(body, separators=separators).encode() + b" " * draw(st.integers(0, 3))
            frames.append(b"event: content_block_delta\n" + data if with_name else data)
        usage = {"input_tokens": 3, "output_tokens": 1, "cache_read_input_tokens": 2}
        between = draw(
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
        )
        frames.extend(map(named, between))
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
            st.sampled_from(
                [b"data: ", b"\n", b"\r", b"\n\n", b"event: error", b"{", b"}", b'"', b"[", b"null", b":", b"\\"]
            ),
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
