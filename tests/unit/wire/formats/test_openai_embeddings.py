import json

import pytest

from tellmeter.wire.formats.openai_embeddings import FORMAT, Reader


def test_requests():
    assert FORMAT.read_request(b'{"model":"text-embedding-3-small","input":"a"}').model == "text-embedding-3-small"
    assert FORMAT.read_request(b'{"model":"m","input":[[1,2]],"stream":true}').stream is False
    for body in (b'{"model":"m","prompt":"a"}', b'{"input":"a"}', b"", b"[]"):  # the first one is Ollama's own
        assert FORMAT.read_request(body) is None


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [({"prompt_tokens": 8, "total_tokens": 8}, 8), ({"total_tokens": 12}, 12), ({"prompt_tokens": 3}, 3)],
)
def test_tokens_are_input(usage, tokens):
    body = {"object": "list", "data": [{"embedding": [0.1] * 100}], "model": "m", "id": "e", "usage": usage}
    found = FORMAT.read_answer(json.dumps(body).encode(), 200)
    assert (found.response_model, found.response_id) == ("m", "e")
    assert (found.usage.input_tokens, found.usage.output_tokens) == (tokens, 0)


def test_errors():
    found = FORMAT.read_answer(b'{"detail":"Model nonexistent is not supported."}', 400)
    assert (found.failed, found.error_type, found.usage) == (True, None, None)
    assert FORMAT.read_answer(b'{"error":{"type":"x"}}', 200).error_type == "x"


def test_a_stream_is_read_for_its_usage():
    reader = Reader()
    reader.feed(b'data: {"model":"m","usage":{"total_tokens":3}}\n\ndata: x\n\ndata: {')
    reader.finish()
    assert (reader.events, reader.content_events, reader.answer.usage.input_tokens) == (2, 0, 3)
