"""The events of recorded streams as items: they state what the wire's own readers find in the same bytes."""

import json

import pytest

from tellmeter.instruments.items import ItemMeter
from tellmeter.wire.formats import by_path
from tests.support.exchanges import EXCHANGES, load, need_exchanges

AT_LEAST = 300  # streams


def events_of(body):
    """The JSON of server-sent events or of lines; None where it is neither."""
    lines = [line.removeprefix("data:").strip() for line in body.decode().splitlines()]
    try:
        return [json.loads(line) for line in lines if line.startswith("{")]
    except ValueError:
        return None


def streams():
    for file in sorted(EXCHANGES.glob("*stream*.jsonl")):
        name = file.name.removesuffix(".jsonl").removesuffix(".stream")
        for exchange in load(*name.split(".", 1)):
            found = by_path(exchange.path)
            if found is None or exchange.status != 200 or exchange.body[:1] == b"\0":
                continue
            reader = found.new_reader()
            reader.feed(exchange.body)
            reader.finish()
            items = events_of(exchange.body)
            if items and reader.events > 1 and reader.answer.usage is not None:
                yield exchange, items, reader


@pytest.fixture(scope="module")
def read():
    need_exchanges()
    found = []
    for exchange, items, reader in streams():
        meter = ItemMeter(0, 0.0)
        for item in items:
            meter.take(meter.look_at(item), 0, 1)
        meter.finish(1)
        found.append((exchange, meter.items, reader))
    assert len(found) >= AT_LEAST
    return found


def test_usage_finish_reason_and_tools(read):
    for exchange, items, reader in read:
        stated, expected = items.answer, reader.answer
        told = (stated.usage.input_tokens, stated.usage.output_tokens, stated.finish_reason, stated.tools)
        tools = list(dict.fromkeys(expected.tools))
        assert told == (
            expected.usage.input_tokens,
            expected.usage.output_tokens,
            expected.finish_reason,
            tools,
        ), exchange.id


def test_content_events(read):
    for exchange, items, reader in read:  # an end or a signature may count as one
        expected = reader.content_events
        assert expected <= items.content_events <= 2 + 1.2 * expected, exchange.id
