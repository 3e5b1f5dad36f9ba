import json

from hypothesis import given
from hypothesis import strategies as st

from tellmeter.usage import Usage
from tellmeter.wire.formats.cohere_embeddings import FORMAT

BODY = {"id": "e", "embeddings": {"float": [[0.1]]}, "meta": {"billed_units": {"input_tokens": 7, "image_tokens": 0}}}


def test_requests():
    for given_ in ({"texts": ["a"]}, {"images": ["data:"]}, {"inputs": [{"content": []}]}):
        assert FORMAT.read_request(json.dumps({"model": "embed-v4.0", **given_}).encode()).model == "embed-v4.0"
    for body in (b'{"model":"m"}', b'{"model":"m","texts":[]}', b'{"texts":["a"]}', b'{"model":"m","input":"a"}', b""):
        assert FORMAT.read_request(body) is None


def test_an_answer():
    found = FORMAT.read_answer(json.dumps(BODY).encode(), 200)
    assert (found.response_id, found.usage) == ("e", Usage(input_tokens=7))
    assert FORMAT.read_answer(b'{"id":"e","message":"no"}', 404).failed


def test_a_stream_that_comes_all_the_same():
    body = b"data: " + json.dumps(BODY).encode() + b"\n\n"
    assert FORMAT.read_answer(body, 200).usage == Usage(input_tokens=7)


@given(
    st.binary(max_size=40) | st.sampled_from([b'{"meta":1}', b"data: {}\n\n", b"data: {\n\n"]), st.integers(100, 599)
)
def test_nothing_raises(body, status):
    FORMAT.read_request(body)
    FORMAT.read_answer(body, status)
