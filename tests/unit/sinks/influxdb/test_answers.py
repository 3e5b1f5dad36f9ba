from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tellmeter.sinks.influxdb.answers import Refused, is_missing, refusal
from tellmeter.sinks.sending.answers import HTTPAnswer


def answer(body, status=400):
    text = body if isinstance(body, str) else json.dumps(body)
    return HTTPAnswer(status, {}, text.encode())


def line_error(number, message="invalid column type for column 'v', expected iox::column_type::field::float"):
    return {"original_line": f"m v={number}", "line_number": number, "error_message": message}


# As InfluxDB 1.6 and the documentations of InfluxDB 2 and 3 have them; to five lines.
ANSWERS = [
    # InfluxDB 1
    ({"error": "field type conflict"}, Refused(None, "type_conflict")),
    (
        {"error": 'partial write: field type conflict: input field "v" on measurement "m" is type float dropped=2'},
        Refused(None, "type_conflict"),
    ),
    (
        {"error": "partial write: points beyond retention policy dropped=5"},
        Refused((0, 1, 2, 3, 4), "beyond_retention"),
    ),
    (
        {"error": "partial write: unable to parse 'm v= 2': missing field value dropped=0"},
        Refused(None, "unparseable"),
    ),
    # InfluxDB 2
    (
        {
            "code": "unprocessable entity",
            "message": "failure writing points to database: partial write: field type conflict: dropped=1",
        },
        Refused(None, "type_conflict"),
    ),
    ({"code": "invalid", "message": "unable to parse 'm v= 2': missing field value"}, Refused(None, "unparseable")),
    # InfluxDB 3
    (
        {"error": "partial write of line protocol occurred", "data": [line_error(2), line_error(5)]},
        Refused((1, 4), "type_conflict"),
    ),
    (
        {"error": "partial write of line protocol occurred", "data": [line_error(1, "No fields were provided")]},
        Refused((0,), "http_400"),
    ),
    ({"error": "parsing failed for write_lp endpoint", "data": line_error(2)}, Refused(None, "type_conflict")),
    # what says nothing that can be relied on
    ({"error": "x", "data": [line_error(6)]}, Refused(None, "type_conflict")),
    ({"error": "x", "data": [line_error(0)]}, Refused(None, "type_conflict")),
    ({"error": "x", "data": [line_error(2), line_error(2)]}, Refused(None, "type_conflict")),
    ({"error": "x", "data": [line_error("2")]}, Refused(None, "type_conflict")),
    ({"error": "x", "data": [5]}, Refused(None, "http_400")),
    ({"error": "x", "data": []}, Refused(None, "http_400")),
    ([1], Refused(None, "http_400")),
    ("no JSON", Refused(None, "http_400")),
    ("", Refused(None, "http_400")),
    ("[" * 100_000, Refused(None, "http_400")),
]


@pytest.mark.parametrize(("body", "expected"), ANSWERS, ids=lambda value: str(value)[:60])
def test_what_a_refusal_says(body, expected):
    assert refusal(answer(body), 5) == expected


def test_a_refusal_of_one_line_is_that_of_this_line():
    assert refusal(answer("", 422), 1) == Refused((0,), "http_422")
    assert refusal(answer({"error": "field type conflict"}), 1) == Refused((0,), "type_conflict")


def test_a_list_that_may_go_on_is_not_relied_on():
    told = [line_error(number) for number in range(1, 101)]
    assert refusal(answer({"data": told[:99]}), 500).lines == tuple(range(99))
    assert refusal(answer({"data": told}), 500).lines is None


@given(st.text() | st.binary().map(lambda data: data.decode("latin-1")), st.integers(1, 9))
def test_no_answer_breaks_it(text, count):
    found = refusal(answer(text), count)
    assert found.lines is None or set(found.lines) <= set(range(count))


def test_what_is_not_there():
    assert is_missing(answer('{"error":"database not found: \\"nope\\""}', 404))
    assert is_missing(answer("404 page not found", 404))
    assert is_missing(answer('{"error":"retention policy not found: nope"}', 500))
    assert not is_missing(answer('{"error":"timeout"}', 500))
    assert not is_missing(answer("", 503))
