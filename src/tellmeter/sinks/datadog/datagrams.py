"""What an Agent's DogStatsD is sent: lines of its protocol v1.1, packed into datagrams."""

from __future__ import annotations

from collections.abc import Iterable

from ...records import AgentMetrics
from .labels import Labels, Tags
from .payloads import samples
from .schema import added_up

UDP_BYTES = 1432
"""What fits an Ethernet frame; 8192 over Unix sockets: https://docs.datadoghq.com/extend/dogstatsd/high_throughput/"""
UDS_BYTES = 8192


def datagrams(batch: Iterable[AgentMetrics], labels: Labels, name: str, most: int) -> list[bytes]:
    """A batch as datagrams of at most `most` bytes; a line that is longer by itself has one of its own.

    Sums are one line for each set of tags, `name:3|c|#tags`; values that are measured share lines, `name:1.5:2|d|#tags`
    (an Agent from 7.25 on reads them). Lines have no client time (`|T`, v1.3): an Agent does not add such counts up.
    """
    packed: list[bytes] = []
    size = most
    for line in _lines(list(batch), labels, name, most):
        if size + 1 + len(line) <= most:
            packed[-1] += b"\n" + line
            size += 1 + len(line)
        else:
            packed.append(line)
            size = len(line)
    return packed


def _lines(batch: list[AgentMetrics], labels: Labels, name: str, most: int) -> Iterable[bytes]:
    for (metric, tags), value in added_up(batch, labels).items():
        yield b"%s:%s%s" % ((name + metric.name).encode(), _number(value), _end("c", tags))
    for one in samples(batch, labels, 0.0, measures_only=True):
        head, end = (name + one.metric.name).encode(), _end("d", one.tags)
        line = head
        for value in one.values:
            text = b":" + _number(value)
            if line != head and len(line) + len(text) + len(end) > most:
                yield line + end
                line = head
            line += text
        yield line + end


def _end(kind: str, tags: Tags) -> bytes:
    # Tags are clean: they hold none of the characters that mean something here (| # , and line breaks).
    return f"|{kind}|#{','.join(tags)}".encode()


def _number(value: float) -> bytes:
    return repr(value).encode()
