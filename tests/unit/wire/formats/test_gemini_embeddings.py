import json

import pytest

from tellmeter import counts
from tellmeter.usage import Usage
from tellmeter.wire.formats.gemini_embeddings import FORMAT, Reader


def answer(body, status=200):
    return FORMAT.read_answer(json.dumps(body).encode(), status)


@pytest.mark.parametrize(
    "body",
    [
        {"content": {"parts": [{"text": "a"}]}},
        {"model": "models/m", "content": {"parts": []}},
        {"requests": [{"model": "models/m", "content": {}}]},
        {"instances": [{"content": "a"}]},
    ],
)
def test_requests_leave_the_model_to_the_path(body):
    asked = FORMAT.read_request(json.dumps(body).encode())
    assert (asked.model, asked.stream) == ("", False)
    assert FORMAT.read_path("/v1beta/models/gemini-embedding-001:embedContent") == "gemini-embedding-001"


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"contents":[]}', b'{"content":null}', b"no JSON"])
def test_bodies_of_other_formats(body):
    assert FORMAT.read_request(body) is None


def test_older_models_state_no_usage():
    assert answer({"embedding": {"values": [0.1]}}).usage is None
    assert answer({"embeddings": [{"values": [0.1]}, {"values": [0.2]}]}).usage is None
    assert answer({"embedding": {}, "usageMetadata": {}}).usage is None


def test_stated_usage():
    stated = {"promptTokenCount": 11, "totalTokenCount": 11}
    assert answer({"embedding": {"values": []}, "usageMetadata": stated}).usage == Usage(input_tokens=11)


def test_predictions_state_their_tokens_one_by_one():
    def vector(tokens):
        return {"embeddings": {"values": [0.1], "statistics": {"token_count": tokens, "truncated": False}}}

    body = {"predictions": [vector(4), vector(5.0), {}, {"embeddings": {"values": []}}, "odd"]}
    assert answer(body).usage == Usage(input_tokens=9)
    assert answer({"predictions": [{"textEmbedding": [0.1]}]}).usage is None
    assert answer({"predictions": [vector(0)]}).usage == Usage()


def test_errors():
    found = answer({"error": {"code": 404, "message": "secret", "status": "NOT_FOUND"}}, 404)
    assert (found.failed, found.error_type, found.error_code, found.usage) == (True, "NOT_FOUND", "404", None)
    assert answer({"error": {"status": "INTERNAL"}}).failed


def test_a_stream_is_read_all_the_same():
    reader = Reader()
    reader.feed(b'data: {"usageMetadata":{"promptTokenCount":3}}\n\ndata: no JSON\n\ndata: {"usa')
    reader.finish()
    assert (reader.events, reader.content_events, reader.answer.usage) == (2, 0, Usage(input_tokens=3))


def test_what_is_no_json_is_counted():
    before = counts.total("unreadable_body")
    assert FORMAT.read_answer(b"<html>", 200).usage is None
    assert counts.total("unreadable_body") == before + 1
