import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tellmeter import counts
from tellmeter.wire.answer import Answer
from tellmeter.wire.formats.bodies import (
    MAX_NAMES,
    Body,
    add_tool,
    error_names,
    fail,
    filled,
    lenient,
    present,
    read_whole,
)
from tellmeter.wire.sse import OTHER, SseReader


class Inner(msgspec.Struct):
    number: int | None = None
    word: str | None = None


class Outer(msgspec.Struct):
    name: str | None = None
    inner: Inner | None = None
    items: list[Inner] | None = None
    cost: float | Inner | None = None
    raw: msgspec.Raw = msgspec.Raw()


bodies = Body(Outer, "test_bodies")


def unreadable():
    return counts.snapshot().get("unreadable_body", {}).get("test_bodies", 0)


def test_a_body_of_the_right_types():
    found = bodies.read(b'{"name":"a","inner":{"number":1},"items":[{"word":"b"}],"cost":0.5,"other":[{}],"raw":[1]}')
    assert found.name == "a"
    assert (found.inner.number, found.items[0].word, found.cost, bytes(found.raw)) == (1, "b", 0.5, b"[1]")


@pytest.mark.parametrize(
    ("body", "number", "word"),
    [
        ({"inner": {"number": "12", "word": "b"}}, 12, "b"),
        ({"inner": {"number": 12.0, "word": "b"}}, 12, "b"),
        ({"inner": {"number": 12.5, "word": "b"}}, None, "b"),
        ({"inner": {"number": [1], "word": "b"}}, None, "b"),
        ({"inner": {"number": True, "word": "b"}}, None, "b"),
        ({"inner": {"number": 1, "word": 7}}, 1, None),
        ({"inner": {"number": 1, "word": {"a": 1}}, "name": 5}, 1, None),
        ({"inner": {"number": None}, "items": "none"}, None, None),
    ],
)
def test_a_wrong_type_costs_its_own_field_alone(body, number, word):
    before = unreadable()
    found = bodies.read(json.dumps(body).encode())
    assert (found.inner.number, found.inner.word) == (number, word)
    assert unreadable() == before


def test_wrong_items_and_alternatives():
    found = bodies.read(b'{"name":1,"items":[{"number":1},5,null,{"number":"x"}],"cost":{"number":"3"},"raw":{"a":1}}')
    assert found.name is None
    assert [item.number for item in found.items] == [1, None]
    assert found.cost.number == 3
    assert bytes(found.raw) == b'{"a":1}'
    assert lenient({"inner": [1], "cost": []}, Outer) == Outer()


@pytest.mark.parametrize("body", [b"<html>", b"{", b"[1]", b'"text"', b"null", b'{"name":1', b"[" * 5000, b"\xff\xfe"])
def test_what_is_no_object_is_counted(body):
    before = unreadable()
    assert bodies.read(body) is None
    assert unreadable() == before + 1
    assert bodies.read(body, quiet=True) is None
    assert unreadable() == before + 1


def test_an_empty_body_is_no_mistake():
    before = unreadable()
    assert bodies.read(b"") is None
    assert unreadable() == before


def json_values():
    leaves = (
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(max_size=5)
    )
    return st.recursive(leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner))


@given(st.dictionaries(st.sampled_from(["name", "inner", "items", "cost", "raw"]), json_values()))
def test_any_object_is_read(body):
    assert isinstance(bodies.read(json.dumps(body).encode()), Outer)


@given(st.binary(max_size=40))
def test_any_bytes_are_survived(body):
    assert bodies.read(body) is None or isinstance(bodies.read(body), Outer)


@pytest.mark.parametrize(
    ("value", "is_present", "is_filled"),
    [
        (b"", False, False),
        (b"null", False, False),
        (b'""', True, False),
        (b"[]", True, False),
        (b"{}", True, False),
        (b'"ab"', True, True),
        (b'"a"', True, True),
        (b"true", True, True),
    ],
)
def test_values_that_are_there(value, is_present, is_filled):
    assert present(msgspec.Raw(value)) is is_present
    assert filled(msgspec.Raw(value)) is is_filled


@pytest.mark.parametrize(
    ("body", "names"),
    [
        (
            {"error": {"type": "invalid_request_error", "code": "model_not_found"}},
            ("invalid_request_error", "model_not_found"),
        ),
        ({"type": "error", "error": {"type": "not_found_error", "message": "m"}}, ("not_found_error", None)),
        ([{"error": {"code": 404, "status": "NOT_FOUND"}}], ("NOT_FOUND", "404")),
        ({"detail": "Invalid API Key"}, (None, None)),
        ({"detail": [{"type": "missing"}]}, (None, None)),
        ({"code": "invalid-argument", "error": "Incorrect API key provided."}, (None, "invalid-argument")),
        ({"code": "1500", "type": "invalid_request_error", "message": "m"}, ("invalid_request_error", "1500")),
        ({"error": "model not found"}, (None, None)),
        ({"error": "text", "error_type": "validation"}, ("validation", None)),
        ({"type": "error", "code": "rate_limit_exceeded", "message": "m"}, (None, "rate_limit_exceeded")),
        ({"error": {"type": "x", "details": {"error_code": "ramp_limit_exceeded"}}}, ("x", "ramp_limit_exceeded")),
        ({"error": {"code": None, "type": ["a"]}}, (None, None)),
        ({"error": {"code": "You exceeded your quota", "type": "x" * 65}}, (None, None)),
        ({"error": {"code": True, "type": ""}}, (None, None)),
        ({"error": None}, (None, None)),
        ([], (None, None)),
        ([1], (None, None)),
        ("text", (None, None)),
        (None, (None, None)),
    ],
)
def test_shapes_of_errors(body, names):
    assert error_names(body) == names


def test_a_later_error_keeps_what_it_does_not_say():
    answer = Answer()
    fail(answer, {"error": {"type": "insufficient_quota", "code": "insufficient_quota"}})
    fail(answer, {"error": {"code": "other"}})
    assert (answer.failed, answer.error_type, answer.error_code) == (True, "insufficient_quota", "other")


def test_names_are_bounded():
    answer = Answer()
    assert not add_tool(answer, None)
    assert not add_tool(answer, "")
    for number in range(MAX_NAMES + 10):
        add_tool(answer, f"f{number}")
    assert len(answer.tools) == MAX_NAMES
    assert Answer().tools == []


class Reader(SseReader):
    format_name = "test_bodies"

    def read(self, name, data, whole):
        self.answer.finish_reason = "streamed"
        return OTHER


def whole(body, status=200):
    return read_whole(body, status, lambda data: Answer(finish_reason="read"), Reader)


@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf", b"\n\n", b": comment\n\n", b"event: x\n", b"id: 1\n"])
def test_a_stream_that_was_read_at_once(start):
    assert whole(start + b"data: {}\n\n").finish_reason == "streamed"


def test_a_whole_body():
    assert whole(b'{"a":1}').finish_reason == "read"
    assert not whole(b"{}").failed


@pytest.mark.parametrize(
    "body", [b"", b"<html>Bad gateway</html>", b'{"error":{"type":"server_error"}}', b"data: {}\n\n"]
)
def test_a_status_of_400_and_more_is_an_error(body):
    answer = whole(body, 502)
    assert answer.failed
    assert answer.error_type == ("server_error" if b"server" in body else None)
