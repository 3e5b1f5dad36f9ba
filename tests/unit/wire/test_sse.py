import json
import sys

import pytest

from tellmeter import counts
from tellmeter.wire import sse
from tellmeter.wire.formats import openai_chat, openai_completions
from tellmeter.wire.sse import CONTENT, IGNORED, OTHER, PLAIN, SseReader, head_template, split_event, text_template


def said(reader):
    return reader.events, reader.content_events, reader.text_size, reader.done, reader.answer


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


def test_what_is_kept_of_an_event_in_small_pieces_is_no_larger_than_the_event():
    reader = Plain()
    for _ in range(100_000):
        reader.feed(b"xxx")
    assert sys.getsizeof(reader._rest) < 2 * 300_000


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
    assert reader.text_size == sum(len(json.dumps(text, ensure_ascii=False).encode()) - 2 for text in texts)
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
    assert reader.text_size == 8


def test_text_beside_the_one_that_changes_has_its_size():
    reader = openai_chat.Reader()
    event = b'data: {"choices":[{"delta":{"content":"%s"}},{"index":1,"delta":{"content":"same"}}]}\n\n'
    reader.feed(b"".join(event % text for text in (b"a", b"bc", b'\\"', b"def")))
    assert (reader.content_events, reader.text_size) == (4, 1 + 2 + 2 + 3 + 4 * len("same"))


def test_a_string_that_is_no_text_makes_no_template():
    event = b'data: {"text":"%s","choices":[{"delta":{"audio":{"data":"abc"}}}]}\n\n'
    reader = openai_chat.Reader()
    for text in (b"abcd", b"ab", b"a"):
        reader.feed(event % text)
    assert (reader.content_events, reader.text_size, reader._template) == (3, 0, None)


LINE = b'data: {"type":"d","n":%d,"delta":"%s"%s}'


@pytest.mark.parametrize("rest", [b"", b',"pad":"xyz"', b',"n":1', b',"a":[],"b":{"c":"d"}'])
@pytest.mark.parametrize("tail", [b"", b"\nevent: d"])
def test_texts_of_lines_whose_rest_is_free(rest, tail):
    texts = [b"a", b"", b'\\"', b"\\\\", b'\\",\\"b\\"}', b"},", b"long" * 50]
    lines = [LINE % (9 + number, text, rest) + tail + b"\n\n" for number, text in enumerate(texts)]
    template = head_template(lines[0][:-2], (b'data: {"type":"d"',), (b'"none":"', b'"delta":"'), tail)
    data = b"".join(lines)
    assert template.run(data, 0) == (len(texts), sum(map(len, texts)), len(data))
    other = b'data: {"type":"d","n":1}' + tail + b"\n\n"
    assert template.run(lines[0] + other, 0) == (1, 1, len(lines[0]))
    assert template.run(other, 0) == (0, 0, 0)


def test_a_text_right_after_the_head_ends_at_the_last_quote_of_its_line():
    head = b'data: {"delta":{"text":"'
    template = head_template(head + b'a"}  }', (b"data: []", head))
    data = b"".join(head + text + b'"}' + b" " * pad + b"}\n\n" for pad, text in enumerate([b"", b'\\"}', b"abc"]))
    assert template.run(data, 0) == (3, 6, len(data))


def test_lines_without_the_text_make_no_template():
    assert head_template(b'data: {"n":1}', (b"data: [",), (b'"n":"',)) is None
    assert head_template(b'data: {"n":1}', (b"data: {",), (b'"n":"',)) is None
    assert head_template(b'data: {"n":"1', (b"data: {",), (b'"n":"',)) is None


def test_what_stands_before_the_padding_counts():
    reader = openai_chat.Reader()
    reader.feed(chat({"content": "a"}, obfuscation="abc") + b"\n\n")
    reader.feed(chat({"content": "a"}, obfuscation="abc", finish="ab") + b"\n\n")  # "ab" is as long as null
    assert reader.answer.finish_reason == "ab"


def test_what_adds_up_is_no_template():
    texts = {1: "a", 2: ""}
    states = [chat({"content": texts[n]}, usage={"prompt_tokens": 1, "completion_tokens": n}) for n in (1, 2, 1)]
    reader = openai_chat.Reader()
    reader.feed(b"".join(event + b"\n\n" for event in states))
    assert reader.answer.usage.output_tokens == 1
    calls = [chat({"tool_calls": [{"function": {"name": "f", "arguments": str(n)}}]}) for n in range(3)]
    reader.feed(b"".join(event + b"\n\n" for event in calls))  # whole calls, as Mistral sends them
    assert reader.answer.tools == ["f", "f", "f"]
    reader = openai_completions.Reader()
    for n in (1, 2, 1):
        reader.feed(b'data: {"choices":[{"text":"%s"}],"usage":{"total_tokens":%d}}\n\n' % (texts[n].encode(), n))
    assert reader.answer.usage.input_tokens == 1


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


def test_kinds_are_ordered():
    assert IGNORED < OTHER < CONTENT < PLAIN
