import json

from hypothesis import given
from hypothesis import strategies as st

from tellmeter.usage import Usage
from tellmeter.wire.formats.rerank import FORMAT

REQUEST = {"model": "rerank-v3.5", "query": "a", "documents": ["b", "c"]}


def test_requests():
    assert FORMAT.read_request(json.dumps(REQUEST).encode()).model == "rerank-v3.5"
    for missing in REQUEST:
        body = {key: value for key, value in REQUEST.items() if key != missing}
        assert FORMAT.read_request(json.dumps(body).encode()) is None
    assert FORMAT.read_request(b"") is FORMAT.read_request(b"[]") is None


def test_searches_are_no_tokens():
    found = FORMAT.read_answer(b'{"id":"r","results":[],"meta":{"billed_units":{"search_units":1}}}', 200)
    assert (found.response_id, found.usage, found.failed) == ("r", None, False)


def test_tokens_are_input():
    found = FORMAT.read_answer(b'{"object":"list","data":[],"model":"rerank-2.5","usage":{"total_tokens":26}}', 200)
    assert (found.response_model, found.usage) == ("rerank-2.5", Usage(input_tokens=26))


def test_errors():
    assert FORMAT.read_answer(b'{"message":"no"}', 429).failed


@given(st.binary(max_size=40) | st.sampled_from([b'{"usage":1}', b"data: {}\n\n", b"data: {"]), st.integers(100, 599))
def test_nothing_raises(body, status):
    FORMAT.read_request(body)
    FORMAT.read_answer(body, status)
