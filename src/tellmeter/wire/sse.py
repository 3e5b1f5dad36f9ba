"""Server-sent events, read in constant memory and mostly without parsing them.

Nearly all events of a stream differ from the one before in a single string, the piece of text they carry. `Template`
keeps what stays the same, and an event that equals it byte for byte but for that string is counted by comparing memory.
Only the others are parsed. What an event means never depends on how the bytes were cut, nor on which way it went.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, NamedTuple

from ..counts import count
from .answer import Answer

MAX_EVENT = 1 << 20
"""Bytes of one event that are kept; generated images come as larger ones, and say nothing that is measured."""
MAX_FINAL_EVENT = 16 << 20
"""The same for an event that states the usage, because it repeats the whole answer."""

_MAX_TEMPLATE = 2048  # of the 4 KiB that a running stream may keep
_HEAD = 256  # bytes from which a final event is recognised
_LUCK = 16  # templates tried in vain before a stream is parsed event by event

# What a format's `read` says of an event.
IGNORED = 0  # no event of the answer: a ping
OTHER = 1
CONTENT = 2  # a piece of the answer, of its reasoning or of a tool call
PLAIN = 3  # content, and nothing else that is kept: reading another one like it changes the counts only

_PINGS = frozenset({b"ping", b"keepalive", b"heartbeat"})
_BOM = b"\xef\xbb\xbf"
_SLACK = len(_BOM) + 2  # around an event: a byte order mark and line feeds
# Random padding against guessing from the length of encrypted text: differs in every event, and means nothing.
_PADDING = (b'"obfuscation":"', b'"p":"', b'"obfuscation": "', b'"p": "')


class TextTemplate(NamedTuple):
    """The bytes that plain events share: `head`, the text up to its quote, perhaps `middle` and padding, then `tail`.

    The text ends at the first quote that no backslash escapes, so the event's JSON is that of the one the template was
    made from, but for one string (and the padding). `size` is that of its text.
    """

    size: int
    head: bytes
    middle: bytes
    tail: bytes
    joint: bytes  # tail + head: from one event into the next
    head_size: int
    middle_size: int
    joint_size: int

    def run(self, data: bytes, position: int) -> tuple[int, int, int]:
        """The number of plain events at `position`, the bytes of their texts, and the position after them."""
        _, head, middle, tail, joint, head_size, middle_size, joint_size = self
        if not data.startswith(head, position):
            return 0, 0, position
        seen = padding = 0
        at = look = start = position + head_size
        while (end := data.find(b'"', look)) > at:
            close = end
            if middle:
                after = end + middle_size
                close = data.find(b'"', after) if data.startswith(middle, end) else -1
                padding += close - end
            if close >= 0:
                if data[close : close + joint_size] == joint:
                    seen += 1
                    at = look = close + joint_size
                    continue
                if data.startswith(tail, close):
                    seen += 1
                    at = close + joint_size  # as if another event followed
                    break
            padding -= close - end  # it was none
            if not _escaped(data, at, end):
                break
            look = end + 1
        # What lies between is joints, padding and texts: no text is measured by itself.
        return seen, at - start - seen * joint_size - padding, at - head_size


class LineTemplate(NamedTuple):
    """The bytes that plain events share: `head`, and `tail` after its line; the rest of the line is free.

    The text follows `mark` and ends at `end`; without an end it follows the head and ends at the line's last quote.
    `gap` is where it began after the head, `size` its bytes in the event that the template was made from.
    """

    size: int
    head: bytes
    mark: bytes
    end: bytes
    tail: bytes
    joint: bytes
    gap: int
    head_size: int
    mark_size: int
    joint_size: int

    def run(self, data: bytes, position: int) -> tuple[int, int, int]:
        """As `TextTemplate.run`."""
        _, head, mark, end, tail, joint, gap, head_size, mark_size, joint_size = self
        if not data.startswith(head, position):
            return 0, 0, position
        seen = size = 0
        more = True
        at = position + head_size
        while more and (close := data.find(b"\n", at)) > at:
            if data[close : close + joint_size] != joint:
                if not data.startswith(tail, close):
                    break
                more = False
            if end:
                start = at + gap
                if data[start - mark_size : start] != mark:
                    start = data.find(mark, at, close) + mark_size
                    if start < mark_size:
                        break
                    gap = start - at  # a number before it got another digit
                text = data.find(end, start, close + 1) - start
            else:
                text = data.rfind(b'"', at, close) - at
            if text < 0:
                break
            seen += 1
            size += text
            at = close + joint_size
        return seen, size, at - head_size


Template = TextTemplate | LineTemplate


def _text_at(event: bytes, mark: bytes, begin: int = 0) -> tuple[int, int]:
    """Where the JSON string after `mark` begins and ends; the end is -1 where there is none."""
    at = event.find(mark, begin)
    if at < 0:
        return 0, -1
    start = at + len(mark)
    end = event.find(b'"', start)
    while end > start and _escaped(event, start, end):
        end = event.find(b'"', end + 1)
    return start, end


def text_template(event: bytes, marks: Iterable[bytes]) -> TextTemplate | None:
    """A template around the first filled JSON string after one of `marks`, which are keys and an opening quote."""
    for mark in marks:
        start, end = _text_at(event, mark)
        if end <= start or len(event) - (end - start) > _MAX_TEMPLATE:
            continue
        head, middle, tail = event[:start], b"", event[end:] + b"\n\n"
        for padding in _PADDING:
            at = tail.find(padding)
            if at >= 0:
                at += len(padding)
                middle, tail = tail[:at], tail[tail.index(b'"', at) :]
                break
        joint = tail + head
        return TextTemplate(end - start, head, middle, tail, joint, len(head), len(middle), len(joint))
    return None


def head_template(
    event: bytes, heads: Iterable[bytes], marks: Iterable[bytes] = (b"",), tail: bytes = b""
) -> LineTemplate | None:
    """A template of one of `heads` that `event` begins with, for events that say at once what they are.

    The text is the JSON string after one of `marks`, or right after the head. The rest of the line is free but for its
    order of keys. `tail` is what follows that line, for servers that put the event's name last.
    """
    head = next(filter(event.startswith, heads), None)
    if head is None:
        return None
    for mark in marks:
        start, close = _text_at(event, mark, max(0, len(head) - len(mark)))  # it may begin in the head
        if close < start:
            continue
        line = event[close:].partition(b"\n")[0] + b"\n"
        # In a text a backslash would stand before the second quote, and there is no line feed.
        end = line[: line.find(b'"', 1) + 1] or (line if mark else b"")
        tail += b"\n\n"
        joint = tail + head
        gap = start - len(head)
        return LineTemplate(close - start, head, mark, end, tail, joint, gap, len(head), len(mark), len(joint))
    return None


def _escaped(data: bytes, start: int, end: int) -> bool:
    """Whether the quote at `end` belongs to the string that begins at `start`."""
    at = end
    while at > start and data[at - 1] == 0x5C:
        at -= 1
    return (end - at) % 2 == 1


class SseReader:
    """Reads one stream; a format derives from it and gives `read` and `template`. `StreamReader` says what it tells."""

    __slots__ = (
        "_begun",
        "_beside",
        "_held",
        "_limit",
        "_luck",
        "_rest",
        "_skipping",
        "_template",
        "answer",
        "content_events",
        "done",
        "events",
        "text_size",
    )

    format_name: ClassVar[str] = ""
    final_events: ClassVar[tuple[bytes, ...]] = ()
    """What the first bytes of an event contain whose size may reach MAX_FINAL_EVENT."""

    def __init__(self) -> None:
        self.events = 0
        self.content_events = 0
        self.text_size = 0
        self.done = False
        self.answer = Answer()
        self._template: Template | None = None
        self._beside = 0  # bytes of text that its events have beside the one string that changes
        self._luck = _LUCK
        self._begun = False
        self._held = False  # the last byte was a carriage return: a line feed that follows belongs to it
        self._rest = bytearray()  # of an event whose end has not come yet
        self._limit = MAX_EVENT
        self._skipping = False  # inside an event that is too large

    # ------------------------------------------------------------------ what a format gives

    def read(self, name: bytes, data: bytes, whole: bool) -> int:
        """Take what an event says into `answer`, and the size of its text into `text_size`.

        Given are its name and its data; says IGNORED, OTHER, CONTENT or PLAIN.

        `whole` is False for what is left at the end of a stream: JSON that breaks off there is no event (IGNORED).
        """
        raise NotImplementedError

    def template(self, event: bytes) -> Template | None:
        """The template of a plain event."""
        return None

    # ------------------------------------------------------------------ bytes

    def feed(self, data: bytes) -> None:
        """Read the next bytes."""
        try:
            if self._rest or self._held or b"\r" in data:
                data = self._join(data)
            position = 0
            size = len(data)
            while position < size:
                if self._template is not None and size <= MAX_EVENT:
                    position = self._run(data, position, self._template)
                    if position == size:
                        return
                end = data.find(b"\n\n", position)
                if end < 0:
                    self._keep(data[position:])
                    return
                self._event(data[position:end])
                position = end + 2
        except Exception:
            count("unreadable_stream", self.format_name)

    def _run(self, data: bytes, position: int, template: Template) -> int:
        """Count the plain events at `position`, and give the position after them."""
        seen, size, position = template.run(data, position)
        if seen:
            self.events += seen
            self.content_events += seen
            self.text_size += size + seen * self._beside
            self._luck = _LUCK
        return position

    def finish(self) -> None:
        """Read what is left: the stream is over, with or without the blank line after its last event."""
        try:
            rest = bytes(self._rest)
            skipping = self._skipping
            self._rest.clear()
            self._skipping = False
            if rest and not skipping:
                self._event(rest, whole=False)
        except Exception:
            count("unreadable_stream", self.format_name)

    def _join(self, data: bytes) -> bytes:
        """Line ends made equal and what was left before put in front; empty while the event has no end."""
        if self._held and data:
            self._held = False
            if data.startswith(b"\n"):
                data = data[1:]
        if b"\r" in data:
            self._held = data.endswith(b"\r")
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        rest = self._rest
        if not rest or not data:
            return data
        # Only the new bytes are searched, so that a large event in small pieces costs its size once.
        end = (rest[-1:] + data).find(b"\n\n")
        if end < 0:
            self._keep(data)
            return b""
        # Of an event that is too large only its last byte is left, and its end is dropped with it.
        data = data[end + 1 :] if self._skipping else bytes(rest + data)
        rest.clear()
        self._skipping = False
        self._limit = MAX_EVENT
        return data

    def _keep(self, data: bytes) -> None:
        """Keep the beginning of an event, or no more than its last byte once it is too large."""
        rest = self._rest
        rest += data
        # `_event` judges what is whole; here only what is too large however it ends.
        if len(rest) > self._limit + _SLACK and self._limit == MAX_EVENT:
            self._limit = self._limit_of(rest)
        if len(rest) > self._limit + _SLACK and not self._skipping:
            self._oversize()
            self._skipping = True
        if self._skipping:
            del rest[:-1]

    def _limit_of(self, event: bytes | bytearray) -> int:
        head = event[:_HEAD]
        return MAX_FINAL_EVENT if any(name in head for name in self.final_events) else MAX_EVENT

    def _oversize(self) -> None:
        self.events += 1
        count("oversize_event", self.format_name)

    # ------------------------------------------------------------------ events

    def _event(self, event: bytes, whole: bool = True) -> None:
        """One event, without the blank line that ends it."""
        if not self._begun:
            self._begun = True
            event = event.removeprefix(_BOM)
        event = event.strip(b"\n")
        if len(event) > MAX_EVENT and len(event) > self._limit_of(event):
            self._oversize()
            return
        name, data = split_event(event)
        if not data or name in _PINGS:
            return
        if data.startswith(b"[DONE]"):
            self.done = True
            return
        before = self.text_size
        try:
            kind = self.read(name, data, whole)
        except Exception:
            count("unreadable_event", self.format_name)
            kind = OTHER
        if kind == IGNORED:
            return
        self.events += 1
        if kind >= CONTENT:
            self.content_events += 1
        if kind == PLAIN and self._luck:
            self._luck -= 1
            # Without luck left, comparing costs more than it gives.
            template = self._template = self.template(event) if self._luck else None
            if template is not None:
                self._beside = self.text_size - before - template.size
                if self._beside < 0:  # the string that changes is no text
                    self._template = None


def split_event(event: bytes) -> tuple[bytes, bytes]:
    r"""The name and the data of one event, whose lines end in `\n`, as the HTML standard has them."""
    if event.startswith(b"data: ") and b"\n" not in event:
        return b"", event[6:]
    name = b""
    data: list[bytes] = []
    for line in event.split(b"\n"):
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            data.append(value)
        elif field == b"event":
            name = value
    return name, b"\n".join(data)
