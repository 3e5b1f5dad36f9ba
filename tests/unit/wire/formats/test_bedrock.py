"""What both formats of Bedrock do: requests, paths, errors, headers, and the counts of tokens."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tellmeter.usage import Usage
from tellmeter.wire.answer import Answer
from tellmeter.wire.formats import bedrock, bedrock_converse, bedrock_invoke
from tests.support.event_stream import encode, event, exception

FORMATS = (bedrock_converse, bedrock_invoke)
both = pytest.mark.parametrize("module", FORMATS)


@both
def test_requests_say_only_whether_they_ask_for_a_stream(module):
    for body in (b"{}", b'{"messages":[{"role":"user","content":[{"text":"a"}]}]}', b'{"prompt":"a","stream":false}'):
        for form, streams in ((module.FORMAT, False), (module.STREAM, True)):
            asked = form.read_request(body)
            assert (asked.model, asked.stream) == ("", streams)
    for body in (b"", b"[]", b"model=a", b"\x00\x01", b'{"messages"'):
        assert module.FORMAT.read_request(body) is None
        assert module.STREAM.read_request(body) is None


@both
def test_what_is_a_stream(module):
    for form in (module.FORMAT, module.STREAM):
        assert form.stream_types == ("application/vnd.amazon.eventstream",)
        assert form.begins_stream(event("messageStart", {}))
        assert not form.begins_stream(b'{"output":{}}')


@both
@pytest.mark.parametrize(
    ("path", "model"),
    [
        ("/model/amazon.nova-lite-v1%3A0/converse", "amazon.nova-lite-v1:0"),
        ("/model/us.anthropic.claude-sonnet-4-5-20250929-v1:0/invoke", "us.anthropic.claude-sonnet-4-5-20250929-v1:0"),
        ("/proxy/model/m/converse-stream?a=b/c", "m"),
        ("/model/m/invoke/", "m"),
        (
            "/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A1%3Aapplication-inference-profile%2Fabc/converse",
            "arn:aws:bedrock:us-east-1:1:application-inference-profile/abc",
        ),
        (  # as httpx gives paths: decoded
            "/model/arn:aws:bedrock:us-east-1:1:application-inference-profile/abc/invoke-with-response-stream",
            "arn:aws:bedrock:us-east-1:1:application-inference-profile/abc",
        ),
        ("/model//converse", None),
        ("/model/converse", None),
        ("/chain/invoke", None),
        ("", None),
    ],
)
def test_the_model_in_the_path(module, path, model):
    assert module.FORMAT.read_path(path) == module.STREAM.read_path(path) == model


ERRORS = [
    ({"message": "secret"}, None, None),
    ({"__type": "ThrottlingException", "message": "secret"}, "ThrottlingException", None),
    ({"__type": "com.amazon.coral.service#AccessDeniedException", "Message": "secret"}, "AccessDeniedException", None),
    ({"message": "secret", "originalStatusCode": 529, "originalMessage": "secret"}, None, "529"),
    ({"error": {"type": "overloaded_error", "message": "secret"}}, "overloaded_error", None),  # a proxy's
    ("secret", None, None),
    (["secret"], None, None),
]


@both
@pytest.mark.parametrize(("body", "kind", "code"), ERRORS)
def test_errors(module, body, kind, code):
    found = module.FORMAT.read_answer(json.dumps(body).encode(), 400)
    assert (found.failed, found.error_type, found.error_code) == (True, kind, code)
    assert "secret" not in repr(found)


@both
def test_errors_that_are_no_json(module):
    for body in (b"<html>", b"", b"\xff"):
        assert module.FORMAT.read_answer(body, 503) == Answer(failed=True)


@both
def test_exceptions_inside_a_stream(module):
    for name in ("throttlingException", "internalServerException", "modelTimeoutException"):
        reader = module.STREAM.new_reader()
        reader.feed(exception(name, {"message": "secret"}))
        assert (reader.answer.failed, reader.answer.error_type, reader.answer.error_code) == (True, name, None)
        assert (reader.events, reader.content_events, reader.done) == (1, 0, False)
    reader = module.STREAM.new_reader()
    reader.feed(exception("modelStreamErrorException", {"originalStatusCode": 429, "originalMessage": "secret"}))
    assert (reader.answer.error_type, reader.answer.error_code) == ("modelStreamErrorException", "429")
    assert "secret" not in repr(reader.answer)


@both
def test_errors_inside_a_stream_without_a_body_or_a_name(module):
    reader = module.STREAM.new_reader()
    reader.feed(encode({":message-type": "error", ":error-code": "InternalError", ":error-message": "secret text"}))
    assert (reader.answer.failed, reader.answer.error_type) == (True, "InternalError")
    reader = module.STREAM.new_reader()
    reader.feed(encode({":message-type": "exception", ":exception-type": "a secret sentence"}, b"no json"))
    assert (reader.answer.failed, reader.answer.error_type) == (True, None)


@both
def test_a_stream_that_was_read_at_once(module):
    body = exception("throttlingException", {"message": "secret"})
    for form in (module.FORMAT, module.STREAM):
        assert form.read_answer(body, 200).error_type == "throttlingException"


HEADERS = {
    "x-amzn-bedrock-input-token-count": "10",
    "x-amzn-bedrock-output-token-count": "5",
    "x-amzn-bedrock-cache-read-input-token-count": "100",
    "x-amzn-bedrock-cache-write-input-token-count": "20",
}
BIG = {"x-amzn-bedrock-output-token-count": "9" * 5000}
STATED = Usage(input_tokens=130, output_tokens=5, cached_tokens=100, cache_write_tokens=20)


def with_headers(answer, headers):
    bedrock.read_headers(answer, lambda name: headers.get(name, ""))
    return answer


def test_headers_state_tokens_where_the_answer_does_not():
    assert with_headers(Answer(), HEADERS).usage == STATED
    assert with_headers(Answer(), {"x-amzn-bedrock-input-token-count": "7"}).usage == Usage(input_tokens=7)
    for headers in ({}, {"x-amzn-bedrock-input-token-count": "many"}, {"x-amzn-bedrock-input-token-count": "-1"}, BIG):
        assert with_headers(Answer(), headers).usage is None


def test_what_the_answer_states_itself_stays():
    own = Usage(input_tokens=3, output_tokens=4, reasoning_tokens=1)
    assert with_headers(Answer(usage=own), HEADERS).usage == Usage(input_tokens=3, output_tokens=4, reasoning_tokens=1)
    half = with_headers(Answer(usage=Usage(input_tokens=30)), HEADERS).usage
    assert half == Usage(input_tokens=30, output_tokens=5)
    other_half = with_headers(Answer(usage=Usage(output_tokens=9)), HEADERS).usage
    assert other_half == Usage(input_tokens=130, output_tokens=9, cached_tokens=100, cache_write_tokens=20)


def test_headers_name_the_tier():
    headers = {"x-amzn-bedrock-service-tier": "flex"}
    assert with_headers(Answer(), headers).service_tier == "flex"
    assert with_headers(Answer(service_tier="priority"), headers).service_tier == "priority"
    assert with_headers(Answer(), {}).service_tier is None


def test_headers_name_the_error():
    name = "ValidationException:http://internal.amazon.com/coral/com.amazon.bedrock/"
    assert with_headers(Answer(failed=True), {"x-amzn-errortype": name}).error_type == "ValidationException"
    answer = with_headers(Answer(failed=True, error_type="overloaded_error"), {"x-amzn-errortype": name})
    assert answer.error_type == "overloaded_error"
    assert not with_headers(Answer(), {}).failed


TOKENS = st.one_of(st.none(), st.integers(0, 10**9))


@given(TOKENS, TOKENS, TOKENS, TOKENS)
def test_every_part_is_inside_its_whole(given_, made, read, written):
    usage = bedrock.usage_of(
        bedrock.TokenUsage(
            input_tokens=given_, output_tokens=made, cache_read_input_tokens=read, cache_write_input_tokens=written
        )
    )
    if given_ is None and made is None:
        assert usage is None
    else:
        assert usage.input_tokens == (given_ or 0) + usage.cached_tokens + usage.cache_write_tokens
        assert (usage.output_tokens, usage.cached_tokens) == (made or 0, read or 0)
    assert bedrock.usage_of(None) is None
