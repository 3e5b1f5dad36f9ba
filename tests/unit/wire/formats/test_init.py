import pytest

from tellmeter.wire.formats import (
    anthropic_messages,
    bedrock_converse,
    bedrock_invoke,
    by_body,
    by_path,
    cohere,
    cohere_embeddings,
    cohere_v1,
    gemini,
    gemini_embeddings,
    model_in_path,
    ollama,
    openai_chat,
    openai_completions,
    openai_embeddings,
    openai_responses,
    rerank,
)


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/v1/chat/completions", openai_chat.FORMAT),
        ("/chat/completions", openai_chat.FORMAT),
        ("chat/completions", openai_chat.FORMAT),
        ("/api/paas/v4/chat/completions", openai_chat.FORMAT),
        ("/openai/deployments/gpt-4o/chat/completions", openai_chat.FORMAT),
        ("/openai/deployments/gpt-4o/chat/completions?api-version=2024-02-01", openai_chat.FORMAT),
        ("/proxy/a%2Fb/v1beta/openai/chat/completions/", openai_chat.FORMAT),
        ("/v1/completions", openai_completions.FORMAT),
        ("/completions", openai_completions.FORMAT),
        ("/v1/responses", openai_responses.FORMAT),
        ("/openai/v1/responses", openai_responses.FORMAT),
        ("/v1/embeddings", openai_embeddings.FORMAT),
        ("/v1/messages", anthropic_messages.FORMAT),
        ("/v1/messages?beta=true", anthropic_messages.FORMAT),
        ("/anthropic/v1/messages", anthropic_messages.FORMAT),
        ("/v1/messages/count_tokens", anthropic_messages.COUNT_TOKENS),
        ("/v1/messages/count_tokens?beta=true", anthropic_messages.COUNT_TOKENS),
        ("/v1beta/models/gemini-2.0-flash:generateContent", gemini.FORMAT),
        ("/v1beta/models/gemini-2.0-flash:streamGenerateContent?alt=sse", gemini.STREAM),
        ("/v1/projects/p/locations/l/publishers/google/models/m:countTokens", gemini.COUNT_TOKENS),
        ("/v1beta/models/gemini-embedding-001:batchEmbedContents", gemini_embeddings.FORMAT),
        ("/v1/projects/p/locations/l/publishers/google/models/text-embedding-005:predict", gemini_embeddings.FORMAT),
        ("/model/anthropic.claude-v2/converse", bedrock_converse.FORMAT),
        ("/model/arn:aws:bedrock:us-east-1:1:prompt-router/x/converse-stream", bedrock_converse.STREAM),
        ("/model/amazon.titan-embed-text-v2%3A0/invoke", bedrock_invoke.FORMAT),
        ("/model/m/invoke-with-response-stream", bedrock_invoke.STREAM),
        ("/v1/chat", cohere_v1.FORMAT),
        ("/v2/chat", cohere.FORMAT),
        ("/v2/embed", cohere_embeddings.FORMAT),
        ("/v2/rerank", rerank.FORMAT),
        ("/api/chat", ollama.CHAT),
        ("/ollama/api/generate", ollama.GENERATE),
        ("/api/embed", ollama.EMBED),
        ("/api/embeddings", ollama.EMBEDDINGS),
    ],
)
def test_paths_of_calls(path, found):
    assert by_path(path) is found


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "?",
        "///",
        "/v1/models",
        "/v1/chat/completions/chatcmpl-123",
        "/v1/responses/resp_123",
        "/v1/responses/resp_123/cancel",
        "/v1/responses/resp_123/input_items",
        "/v1/messages/batches",
        "/v1/messages/batches/msgbatch_1/results",
        "/v1/threads/thread_1/messages",
        "/v1/count_tokens",
        "/v1/models/imagen-4:predict",
        "/v1/models/veo:predictLongRunning",
        "/v3/chat",
        "/my-chain/invoke",
        "/converse",
        "/chat",
        "/generate",
        "/v1/Chat/Completions",
        "/search?next=/v1/models/messages?x",
        "/users/17/profile",
    ],
)
def test_paths_of_other_traffic(path):
    assert by_path(path) is None


@pytest.mark.parametrize(
    ("path", "model"),
    [
        ("/openai/deployments/gpt-4o/chat/completions", "gpt-4o"),
        ("//openai/deployments/test%20deployment/embeddings?api-version=1", "test deployment"),
        ("/openai/deployments//embeddings", None),
        ("/v1/chat/completions", None),
        ("", None),
    ],
)
def test_the_deployment_in_the_path(path, model):
    assert model_in_path(path) == model


def test_names_are_told_apart():
    formats = [
        openai_chat.FORMAT,
        openai_completions.FORMAT,
        openai_responses.FORMAT,
        openai_embeddings.FORMAT,
        anthropic_messages.FORMAT,
        anthropic_messages.COUNT_TOKENS,
    ]
    assert len({form.name for form in formats}) == 6
    assert [form.operation for form in formats] == [
        "chat",
        "text_completion",
        "chat",
        "embeddings",
        "chat",
        "count_tokens",
    ]


@pytest.mark.parametrize(
    ("path", "body", "found"),
    [
        ("/v1/chat", b'{"model": "command-r", "message": "hi"}', cohere_v1.FORMAT),
        ("/v1/chat", b'{"model": "palmyra-x5", "messages": [{"role": "user", "content": "hi"}]}', openai_chat.FORMAT),
        ("/api/embeddings", b'{"model": "nomic-embed-text", "prompt": "hi"}', ollama.EMBEDDINGS),
        ("/api/embeddings", b'{"model": "m", "input": "hi"}', openai_embeddings.FORMAT),
    ],
)
def test_formats_that_share_a_path_are_told_apart_by_the_body(path, body, found):
    assert by_body(by_path(path), body) is found
