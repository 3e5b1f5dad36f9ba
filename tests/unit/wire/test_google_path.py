import pytest

from tellmeter.wire.google_path import read_path

VERTEX = "/v1beta1/projects/my-project/locations/us-central1"


@pytest.mark.parametrize(
    ("path", "model"),
    [
        ("/v1beta/models/gemini-2.0-flash:generateContent", "gemini-2.0-flash"),
        ("/v1beta/models/gemini-2.0-flash:streamGenerateContent?alt=sse", "gemini-2.0-flash"),
        ("/v1beta/models/gemini-2.0-flash:countTokens/", "gemini-2.0-flash"),
        ("/proxy/models/v1/models/gemma-3-27b-it:generateContent", "gemma-3-27b-it"),
        ("models/gemini-embedding-001:embedContent", "gemini-embedding-001"),
        (f"{VERTEX}/publishers/google/models/gemini-2.5-pro:generateContent", "gemini-2.5-pro"),
        (f"{VERTEX}/publishers/google/models/textembedding-gecko%40003:predict", "textembedding-gecko@003"),
        (f"{VERTEX}/endpoints/4567:generateContent", "endpoints/4567"),
        ("/v1beta/tunedModels/my-model-x1:generateContent", "tunedModels/my-model-x1"),
        ("/v1beta/models/gemini-2.0-flash", None),
        ("/v1beta/models/:generateContent", None),
        ("/v1internal:generateContent", None),
        ("/v1beta/cachedContents/a:generateContent", None),
        ("", None),
    ],
)
def test_the_model_of_a_path(path, model):
    assert read_path(path) == model
