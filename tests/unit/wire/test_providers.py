import pytest

from tellmeter.wire.providers import provider_of


def of(host="proxy.internal", port=443, headers=None, model="", path="/v1/chat/completions", overrides=None):
    return provider_of(host, port, headers or {}, model, path, overrides)


@pytest.mark.parametrize(
    ("host", "provider"),
    [
        ("api.openai.com", "openai"),
        ("eu.api.openai.com", "openai"),
        ("API.OpenAI.com.", "openai"),
        ("api.anthropic.com", "anthropic"),
        ("resource.openai.azure.com", "azure.ai.openai"),
        ("resource.services.ai.azure.com", "azure.ai.inference"),
        ("mistral-large.eastus2.models.ai.azure.com", "azure.ai.inference"),
        ("bedrock-runtime.us-east-1.amazonaws.com", "aws.bedrock"),
        ("bedrock-runtime-fips.us-gov-west-1.amazonaws.com", "aws.bedrock"),
        ("vpce-1.bedrock-runtime.us-east-1.vpce.amazonaws.com", "aws.bedrock"),
        ("bedrock-mantle.us-east-1.api.aws", "aws.bedrock"),
        ("generativelanguage.googleapis.com", "gcp.gemini"),
        ("aiplatform.googleapis.com", "gcp.vertex_ai"),
        ("us-central1-aiplatform.googleapis.com", "gcp.vertex_ai"),
        ("aiplatform.eu.rep.googleapis.com", "gcp.vertex_ai"),
        ("api.x.ai", "x_ai"),
        ("us-east-1.api.x.ai", "x_ai"),
        ("api.groq.com", "groq"),
        ("api.mistral.ai", "mistral_ai"),
        ("api.deepseek.com", "deepseek"),
        ("api.perplexity.ai", "perplexity"),
        ("api.cohere.com", "cohere"),
        ("us-south.ml.cloud.ibm.com", "ibm.watsonx.ai"),
        ("api.moonshot.cn", "moonshot_ai"),
        ("openrouter.ai", "openrouter"),
        ("api.together.xyz", "together_ai"),
        ("api.together.ai", "together_ai"),
        ("api.fireworks.ai", "fireworks_ai"),
        ("api.cerebras.ai", "cerebras"),
        ("router.huggingface.co", "hugging_face"),
        ("abc.us-east-1.aws.endpoints.huggingface.cloud", "hugging_face"),
        ("ollama.com", "ollama"),
        ("api.voyageai.com", "voyage_ai"),
        ("api.z.ai", "z_ai"),
        ("open.bigmodel.cn", "z_ai"),
        ("api.writer.com", "writer"),
        ("integrate.api.nvidia.com", "nvidia"),
        ("notopenai.com", "unknown"),
        ("x.ai.example.com", "unknown"),
        ("s3.us-east-1.amazonaws.com", "unknown"),
        ("localhost", "unknown"),
        ("", "unknown"),
        (None, "unknown"),
    ],
)
def test_hosts(host, provider):
    assert of(host) == provider


def test_hosts_come_before_headers_and_models():
    assert of("api.groq.com", headers={"user-agent": "OpenAI/Python 3.0.0"}, model="gpt-oss-120b") == "groq"


def test_azure_serves_openai_under_a_path():
    assert of("r.services.ai.azure.com", path="/openai/v1/responses") == "azure.ai.openai"
    assert of("r.services.ai.azure.com", path="/models/chat/completions") == "azure.ai.inference"
    assert of("r.cognitiveservices.azure.com", path="/openai/deployments/d/chat/completions") == "azure.ai.openai"


def test_the_port_of_ollama():
    assert of("127.0.0.1", 11434, {"user-agent": "OpenAI/Python 3.0.0"}, "gpt-oss:20b") == "ollama"
    assert of("gpu-box", 11434) == "ollama"
    assert of("localhost", None) == "unknown"


@pytest.mark.parametrize(
    ("agent", "provider"),
    [
        ("OpenAI/Python 3.54.0", "openai"),
        ("AsyncOpenAI/Python 3.54.0", "openai"),
        ("AzureOpenAI/Python 3.54.0", "azure.ai.openai"),
        ("AsyncAzureOpenAI/Python 3.54.0", "azure.ai.openai"),
        ("Anthropic/Python 2.12.0", "anthropic"),
        ("AsyncAnthropic/Python 2.12.0", "anthropic"),
        ("AnthropicVertex/Python 2.12.0", "gcp.vertex_ai"),
        ("AsyncAnthropicBedrock/Python 2.12.0", "aws.bedrock"),
        ("Groq/Python 1.0.0", "groq"),
        ("mistral-client-python/1.9.0", "mistral_ai"),
        ("google-genai-sdk/1.0 gl-python/3.11", "gcp.gemini"),
        ("python-httpx/0.28.1", "unknown"),
        ("", "unknown"),
    ],
)
def test_user_agents(agent, provider):
    assert of(headers={"user-agent": agent}) == provider


def test_the_agents_of_the_sdks_that_are_installed():
    anthropic = pytest.importorskip("anthropic")
    openai = pytest.importorskip("openai")
    for client in (openai.OpenAI(api_key="x"), openai.AsyncOpenAI(api_key="x")):
        assert of(headers={"user-agent": client.user_agent}) == "openai"
    for client in (anthropic.Anthropic(api_key="x"), anthropic.AsyncAnthropic(api_key="x")):
        assert of(headers={"user-agent": client.user_agent}) == "anthropic"


def test_other_headers():
    assert of(headers={"anthropic-version": "2023-06-01"}, model="gpt-4o") == "anthropic"
    assert of(headers={"x-goog-api-key": "k"}) == "gcp.gemini"


def test_headers_come_before_the_model():
    assert of(headers={"user-agent": "OpenAI/Python 3.0.0"}, model="claude-sonnet-4-5") == "openai"


@pytest.mark.parametrize(
    ("model", "provider"),
    [
        ("gpt-4o-mini", "openai"),
        ("o1", "openai"),
        ("o3-mini", "openai"),
        ("o4-mini-deep-research", "openai"),
        ("ft:gpt-4o:org::1", "openai"),
        ("text-embedding-3-small", "openai"),
        ("Claude-Sonnet-4-5", "anthropic"),
        ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", "aws.bedrock"),
        ("amazon.nova-lite-v1:0", "aws.bedrock"),
        ("arn:aws:bedrock:us-east-1:1:application-inference-profile/x", "aws.bedrock"),
        ("gemini-2.5-flash", "gcp.gemini"),
        ("models/gemini-2.5-flash", "gcp.gemini"),
        ("grok-4", "x_ai"),
        ("mistral-large-latest", "mistral_ai"),
        ("open-mixtral-8x22b", "mistral_ai"),
        ("codestral-2501", "mistral_ai"),
        ("deepseek-chat", "deepseek"),
        ("command-r-plus", "cohere"),
        ("sonar-pro", "perplexity"),
        ("kimi-k2", "moonshot_ai"),
        ("glm-4.7", "z_ai"),
        ("palmyra-x4", "writer"),
        ("voyage-3", "voyage_ai"),
        ("accounts/fireworks/models/llama-v3", "fireworks_ai"),
        ("anthropic/claude-3.5-sonnet", "anthropic"),
        ("openai/gpt-oss-120b", "openai"),
        ("x-ai/grok-4", "x_ai"),
        ("google/gemini-2.5-flash", "gcp.gemini"),
        ("hosted_vllm/llama", "vllm"),
        ("gpt-oss-120b", "unknown"),
        ("llama-3.1-8b-instruct", "unknown"),
        ("meta-llama/llama-3.1-8b", "unknown"),
        ("ollie", "unknown"),
        ("", "unknown"),
        (None, "unknown"),
    ],
)
def test_models(model, provider):
    assert of(model=model) == provider


def test_overrides_come_first():
    overrides = {"api.openai.com": "mine", "localhost:8000": "vllm", "localhost": "ours"}
    assert of("api.openai.com", overrides=overrides) == "mine"
    assert of("LOCALHOST", 8000, overrides=overrides) == "vllm"
    assert of("localhost", 9000, overrides=overrides) == "ours"
    assert of("localhost", 11434, overrides=overrides) == "ours"
    assert of("api.groq.com", overrides=overrides) == "groq"
