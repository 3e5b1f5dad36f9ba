"""Recorded exchanges: read, cut into events, and found again."""

import base64

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tellmeter.errors import ConfigError
from tellmeter.simulator.exchanges import Exchange, RecordedExchanges, load_exchanges, plain_path

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
paths = st.sampled_from(["/v1/chat/completions", "/v1/messages", "/model/a%3A0/invoke?x=1"])
recordings = st.lists(
    st.builds(lambda path, asked: (path, asked), paths, st.dictionaries(st.text(max_size=3), json_values, max_size=3)),
    min_size=1,
    max_size=8,
).map(lambda rows: [Exchange(id=str(n), path=path, request_json=asked) for n, (path, asked) in enumerate(rows)])


@given(recordings)
def test_every_recording_is_found_by_its_id_and_by_its_request(exchanges):
    recorded = RecordedExchanges(exchanges)
    for exchange in exchanges:
        assert recorded.by_id(exchange.id) is exchange
        body = msgspec.json.encode(exchange.request_json)
        found = recorded.find(exchange.path, body)
        assert msgspec.json.encode(found.request_json, order="sorted") == msgspec.json.encode(
            exchange.request_json, order="sorted"
        )
        assert found.path == exchange.path


@given(recordings)
def test_the_same_request_gets_its_recordings_in_turns(exchanges):
    recorded = RecordedExchanges(exchanges)
    first = exchanges[0]
    key = msgspec.json.encode(first.request_json, order="sorted")
    same = [
        exchange.id
        for exchange in exchanges
        if exchange.path == first.path and msgspec.json.encode(exchange.request_json, order="sorted") == key
    ]
    got = [recorded.find(first.path, key).id for _ in range(2 * len(same))]
    assert got == same * 2


@given(recordings, st.binary(max_size=20))
def test_an_unknown_request_gets_those_of_its_path_in_order(exchanges, body):
    recorded = RecordedExchanges(exchanges)
    mine = [exchange.id for exchange in exchanges if exchange.path == exchanges[0].path]
    unknown = b"not json " + body
    assert [recorded.find(exchanges[0].path, unknown).id for _ in mine] == mine


def test_a_request_is_compared_by_value_and_its_path_without_query():
    recorded = RecordedExchanges(
        [
            Exchange(id="a", path="/v1/x?api-version=1", request_json={"a": 1, "b": [1, 2]}),
            Exchange(id="b", path="/v1/x", request_json={"a": 2}),
        ]
    )
    assert recorded.find("/v1/x", b'{ "b": [1,2], "a": 1 }').id == "a"
    assert recorded.find("/v1/x?z=1", b'{"a": 2}').id == "b"
    assert recorded.find("/nowhere", b"{}") is None
    assert recorded.by_id("z") is None
    assert len(recorded) == 2
    assert [exchange.id for exchange in recorded] == ["a", "b"]
    assert plain_path("/model/a%3A0/converse?q") == "/model/a:0/converse"


@given(
    st.lists(st.sampled_from([b"data: x\n\n", b": note\n", b"\r\n\r\n", b"\n", b"tail", b"\xc3\xa9"]), max_size=12),
    st.sampled_from(["text/event-stream", "application/x-ndjson", "application/vnd.amazon.eventstream", ""]),
)
def test_events_join_to_the_body(parts, kind):
    body = b"".join(parts)
    exchange = Exchange(
        id="x",
        is_stream=True,
        body_base64=True,
        response_body=base64.b64encode(body).decode(),
        response_headers={"Content-Type": kind},
    )
    assert b"".join(event.data for event in exchange.events()) == body == exchange.body


def test_streams_are_cut_where_their_format_says():
    def cut(kind, body, **more):
        exchange = Exchange(id="x", response_headers={"content-type": kind}, response_body=body, **more)
        return [event.data for event in exchange.events()]

    assert cut("text/event-stream", "data: 1\n\ndata: 2\n\nrest", is_stream=True) == [
        b"data: 1\n\n",
        b"data: 2\n\n",
        b"rest",
    ]
    assert cut("application/x-ndjson", "{}\n{}\n", is_stream=True) == [b"{}\n", b"{}\n"]
    assert cut("application/json", "{}\n{}\n") == [b"{}\n{}\n"]
    frames = [(16 + n).to_bytes(4, "big") + bytes(12 + n) for n in (0, 5)]
    body = base64.b64encode(b"".join(frames)).decode()
    assert cut("application/vnd.amazon.eventstream", body, is_stream=True, body_base64=True) == frames


def test_headers_of_one_connection_are_not_replayed():
    exchange = Exchange(id="x", response_headers={"X-Request-ID": "1", "Content-Length": "7", "connection": "close"})
    assert exchange.headers == [(b"x-request-id", b"1")]


def test_files_and_folders_are_read_and_anything_else_is_named(tmp_path):
    (tmp_path / "b.jsonl").write_text('{"id": "2", "extra": 1}\n\n{"id": "3"}\n')
    (tmp_path / "a.jsonl").write_text('{"id": "1", "request_json": null}\n')
    assert [exchange.id for exchange in load_exchanges(tmp_path)] == ["1", "2", "3"]
    assert [exchange.id for exchange in load_exchanges(tmp_path / "b.jsonl")] == ["2", "3"]
    assert len(RecordedExchanges(str(tmp_path))) == 3
    with pytest.raises(ConfigError, match="no recorded exchanges"):
        load_exchanges(tmp_path / "none")
    (tmp_path / "c.jsonl").write_text('{"id": 1}\n')
    with pytest.raises(ConfigError, match=r"c\.jsonl"):
        load_exchanges(tmp_path)
