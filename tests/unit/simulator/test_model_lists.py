"""The lists of models: every provider has one, and what it lists can be priced."""

import msgspec
import pytest

from tellmeter.prices import PriceBook
from tellmeter.simulator.answer import MODELS
from tellmeter.simulator.model_lists import MODEL_LISTS
from tellmeter.usage import Usage


def test_every_provider_lists_its_models():
    assert set(MODEL_LISTS) == set(MODELS)
    for provider, body in MODEL_LISTS.items():
        (listed,) = [value for value in msgspec.json.decode(body).values() if isinstance(value, list) and value]
        assert len(listed) == len(MODELS[provider])
        assert all(name in str(one) for name, one in zip(MODELS[provider], listed, strict=True))


@pytest.mark.parametrize(("listed", "provider"), [("gemini", "gcp.gemini"), ("bedrock", "aws.bedrock")])
def test_what_is_listed_has_a_price(listed, provider):
    book = PriceBook()
    for model in MODELS[listed]:
        cost, _ = book.cost(provider, model, None, Usage(input_tokens=1000), at=1_800_000_000.0)
        assert cost, model
