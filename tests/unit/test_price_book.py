"""What is learnt of genai-prices bills every call exactly as genai-prices itself does."""

import warnings
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal

import genai_prices
import pytest
from genai_prices import data_snapshot, types
from hypothesis import given, settings
from hypothesis import strategies as st

from tellmeter.prices import PriceBook
from tellmeter.rates import settled
from tellmeter.usage import Usage

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC).timestamp()
CONTEXTS = {"batch": {"processing": "batch"}, "fast": {"service_tier": "fast", "speed": "fast"}}
PROVIDERS = {provider.id: provider for provider in data_snapshot.get_snapshot().providers}


def by_genai_prices(provider, model, usage, at, service_tier=None):
    """genai-prices' own total in US dollars; None where it does not know the model."""
    tokens = {
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cache_read_tokens": usage.cached_tokens,
        "cache_write_tokens": usage.cache_write_tokens,
        "cache_write_1h_tokens": usage.cache_write_1h_tokens,
        "output_reasoning_tokens": usage.reasoning_tokens,
        "input_audio_tokens": usage.input_audio_tokens,
        "cache_audio_read_tokens": usage.cached_audio_tokens,
        "output_audio_tokens": usage.output_audio_tokens,
    }
    context = CONTEXTS.get(service_tier) or ({"service_tier": service_tier} if service_tier else None)
    try:
        found = genai_prices.calc_price(
            genai_prices.Usage(**tokens),
            model,
            provider_id=provider,
            genai_request_timestamp=datetime.fromtimestamp(at, UTC),
            price_context=context,
        )
    except LookupError:
        return None
    return float(found.total_price)


def name_of(provider, model):
    """A name that means this model: 85 of them are not found by their own id."""
    texts, rest = [model.id], [model.match]
    while rest:
        clause = rest.pop(0)
        rest += getattr(clause, "or_", None) or getattr(clause, "and_", None) or []
        texts += [text for text in vars(clause).values() if isinstance(text, str)]
    return next((text for text in texts if provider.find_model(text) is model), None)


NAMES = {one.id: [name for model in one.models if (name := name_of(one, model))] for one in PROVIDERS.values()}


def bills_tokens(provider, model, at, service_tier):
    """Whether any count of tokens changes genai-prices' total."""
    much = Usage(
        input_tokens=10**6,
        output_tokens=10**6,
        cached_tokens=2000,
        cache_write_tokens=2000,
        input_audio_tokens=2000,
        cached_audio_tokens=500,
        output_audio_tokens=2000,
        reasoning_tokens=2000,
    )
    return by_genai_prices(provider, model, much, at, service_tier) != 0


@st.composite
def usages(draw):
    """Counts that fit into each other, around the thresholds of context-length tiers too."""
    up_to = lambda most: draw(st.one_of(st.just(0), st.integers(0, most)))  # noqa: E731 - a draw, eight times
    thresholds = [start + step for start in (0, 32_000, 128_000, 200_000, 256_000, 272_000) for step in (0, 1)]
    total = draw(st.one_of(st.sampled_from(thresholds), st.integers(0, 3_000_000), st.integers(0, 2**62)))
    output = up_to(1_000_000)
    cached = up_to(total)
    written = up_to(total - cached)
    both = up_to(cached)
    reasoning = up_to(output)
    return Usage(
        input_tokens=total,
        output_tokens=output,
        cached_tokens=cached,
        cache_write_tokens=written,
        cache_write_1h_tokens=up_to(written),
        reasoning_tokens=reasoning,
        input_audio_tokens=both + up_to(total - cached - written),
        cached_audio_tokens=both,
        output_audio_tokens=up_to(output - reasoning),
    )


MOMENTS = st.integers(
    int(datetime(2023, 1, 1, tzinfo=UTC).timestamp()), int(datetime(2028, 1, 1, tzinfo=UTC).timestamp())
)
TIERS = st.sampled_from([None, None, "default", "standard", "flex", "priority", "fast", "batch", "on_demand"])


@pytest.mark.parametrize("provider", sorted(PROVIDERS))
def test_every_providers_models_cost_what_genai_prices_says(provider):
    book = PriceBook()

    @settings(max_examples=50, deadline=None, derandomize=True, database=None)
    @given(st.sampled_from(NAMES[provider]), usages(), MOMENTS, TIERS)
    def check(model, usage, at, tier):
        expected = by_genai_prices(provider, model, usage, at, tier)
        cost, version = book.cost(provider, model, None, usage, at=at, service_tier=tier)
        if cost is None:
            assert expected == 0
            assert not bills_tokens(provider, model, at, tier)
        elif not usage.input_tokens and not usage.output_tokens:
            assert cost == 0  # genai-prices adds Perplexity's fee for the request
        else:
            assert cost == expected if usage.input_tokens < 2**53 else cost == pytest.approx(expected, rel=1e-12)
            assert version == f"genai-prices {genai_prices.__version__}"

    check()


def test_nearly_every_model_has_a_name():
    assert sum(map(len, NAMES.values())) >= 0.99 * sum(len(one.models) for one in PROVIDERS.values())


def test_every_model_of_the_data():
    book = PriceBook()
    usage = Usage(
        input_tokens=123_457,
        output_tokens=6_789,
        cached_tokens=23_456,
        cache_write_tokens=3_457,
        cache_write_1h_tokens=457,
        reasoning_tokens=789,
        input_audio_tokens=9_876,
        cached_audio_tokens=876,
        output_audio_tokens=987,
    )
    for provider, names in NAMES.items():
        for name in names:
            cost = book.cost(provider, name, None, usage, at=NOON)[0]
            assert (cost or 0.0) == by_genai_prices(provider, name, usage, NOON), (provider, name)


def test_almost_every_model_is_priced_without_asking_again(monkeypatch):
    book = PriceBook()
    known = [(provider, name) for provider, names in NAMES.items() for name in names][::3]  # as many as it keeps
    usage = Usage(input_tokens=1000, output_tokens=10)
    costs = [book.cost(*call, None, usage, at=NOON)[0] for call in known]
    monkeypatch.setattr(types.ModelInfo, "calc_price", None)
    assert [book.cost(*call, None, usage, at=NOON)[0] for call in known] == costs
    assert sum(cost is not None for cost in costs) > 0.95 * len(costs)


# --- which model


@pytest.mark.parametrize(
    ("provider", "asked", "answered", "source", "billed"),
    [
        ("openai", "gpt-4o", "gpt-4o-2024-05-13", "openai", "gpt-4o-2024-05-13"),
        ("openai", "davinci-002", "davinci:2023-07-21-v2", "openai", "davinci-002"),
        ("openai", "ft:gpt-4o-mini-2024-07-18:org::abc", None, "openai", "ft:gpt-4o-mini-2024-07-18:org::abc"),
        ("deepseek", "deepseek-reasoner", "deepseek-v4-flash", "deepseek", "deepseek-v4-flash"),
        ("anthropic", "claude-sonnet-4-5", "claude-sonnet-4-5-20250929", "anthropic", "claude-sonnet-4-5-20250929"),
        ("azure.ai.openai", "gpt-3.5-turbo", "gpt-4.1-mini-2025-04-14", "azure", "gpt-4.1-mini"),
        ("azure.ai.openai", "gpt-4o", None, "azure", "gpt-4o"),
        ("azure.ai.openai", "gpt-4o", "no-such-model", None, None),
        ("azure.ai.inference", "grok-4-1-fast-non-reasoning", None, "azure", "grok-4-1-fast-non-reasoning"),
        (
            "aws.bedrock",
            "global.anthropic.claude-sonnet-4-5-20250929-v1:0",
            "claude-sonnet-4-5-20250929",
            "aws",
            "global.anthropic.claude-sonnet-4-5-20250929-v1:0",
        ),
        (
            "aws.bedrock",
            "arn:aws:bedrock:us-east-1:000000000000:application-inference-profile/1arbu5hu2sjr",
            "claude-sonnet-4-5-20250929",
            "aws",
            "claude-sonnet-4-5-20250929",
        ),
        ("gcp.gemini", "models/gemini-2.5-flash", "gemini-2.5-flash", "google", "gemini-2.5-flash"),
        ("gcp.gemini", "models/gemini-2.5-flash", None, "google", "gemini-2.5-flash"),
        ("gcp.vertex_ai", "publishers/google/models/gemini-2.5-pro", None, "google", "gemini-2.5-pro"),
        ("gcp.vertex_ai", "claude-sonnet-4@20250514", None, "google", "claude-sonnet-4@20250514"),
        ("x_ai", "grok-4.3", None, "x-ai", "grok-4.3"),
        ("groq", "openai/gpt-oss-120b", None, "groq", "openai/gpt-oss-120b"),
        ("mistral_ai", "mistral-large-latest", None, "mistral", "mistral-large-latest"),
        ("perplexity", "sonar", None, "perplexity", "sonar"),
        ("cohere", "command-r-08-2024", None, "cohere", "command-r-08-2024"),
        ("moonshot_ai", "kimi-k2.6", None, "moonshotai", "kimi-k2.6"),
        ("openrouter", "openrouter/auto", "openai/gpt-4o", "openrouter", "openai/gpt-4o"),
        ("openrouter", "openai/gpt-4o-mini", "no/such-model", None, None),
        ("openrouter", "x-ai/grok-4.1-fast:free", "x-ai/grok-4.1-fast", "openrouter", "x-ai/grok-4.1-fast:free"),
        ("openrouter", "openai/deepseek-chat:free", None, None, None),
        ("together_ai", "MiniMaxAI/MiniMax-M3", None, "together", "MiniMaxAI/MiniMax-M3"),
        (
            "fireworks_ai",
            "accounts/fireworks/models/qwen3p7-plus",
            None,
            "fireworks",
            "accounts/fireworks/models/qwen3p7-plus",
        ),
        ("cerebras", "gpt-oss-120b", None, "cerebras", "gpt-oss-120b"),
        ("hugging_face", "openai/gpt-oss-120b:groq", "openai/gpt-oss-120b", "huggingface_groq", "openai/gpt-oss-120b"),
        ("hugging_face", "openai/gpt-oss-120b", None, None, None),
        ("hugging_face", "openai/gpt-oss-120b:fastest", None, None, None),
        ("voyage_ai", "voyage-3.5", None, "voyageai", "voyage-3.5"),
        ("z_ai", "glm-4.7", None, "zai", "glm-4.7"),
        ("unknown", "my-alias", "gpt-4o", "openai", "gpt-4o"),
        ("unknown", "anthropic/claude-sonnet-4-5", None, "anthropic", "claude-sonnet-4-5"),
        ("unknown", "llama3.1", None, None, None),
        ("writer", "palmyra-x4", None, None, None),
        ("nvidia", "meta/llama-3.1-70b-instruct", None, None, None),
    ],
)
def test_the_billed_model(provider, asked, answered, source, billed):
    usage = Usage(input_tokens=1234, output_tokens=567, cached_tokens=89)
    expected = None if source is None else by_genai_prices(source, billed, usage, NOON)
    assert (expected is None) == (source is None)
    assert PriceBook().cost(provider, asked, answered, usage, at=NOON)[0] == expected


# --- shapes of prices


def priced(prices, usage, *, at=NOON, service_tier=None, variants=None):
    """Our cost, and genai-prices' own, by a price table of one's own."""
    model = types.ModelInfo(id="m", match=types.ClauseEquals(equals="m"), prices=prices, price_variants=variants)
    provider = types.Provider(id="openai", name="OpenAI", api_pattern="", models=[model])
    data_snapshot.set_custom_snapshot(data_snapshot.DataSnapshot([provider], from_auto_update=True))
    try:
        ours = PriceBook().cost("openai", "m", None, usage, at=at, service_tier=service_tier)[0]
        return ours, by_genai_prices("openai", "m", usage, at, service_tier)
    finally:
        data_snapshot.set_custom_snapshot(None)


def price(**rates):
    return types.ModelPrice(**{f"{name}_mtok": Decimal(str(rate)) for name, rate in rates.items()})


def test_cache_writes_for_five_minutes_and_an_hour():
    usage = Usage(input_tokens=1000, cached_tokens=100, cache_write_tokens=600, cache_write_1h_tokens=200)
    rates = price(input=3, cache_read=0.3, cache_write=3.75, cache_write_5m=4, cache_write_1h=6, output=15)
    expected = (300 * 3 + 100 * 0.3 + 400 * 4 + 200 * 6) / 1e6
    assert priced(rates, usage)[0] == pytest.approx(expected, rel=1e-15)


def test_audio_inside_and_outside_of_the_cache():
    usage = Usage(
        input_tokens=1000,
        output_tokens=500,
        cached_tokens=300,
        input_audio_tokens=400,
        cached_audio_tokens=100,
        output_audio_tokens=200,
    )
    rates = price(input=1, cache_read=0.5, input_audio=10, cache_audio_read=5, output=2, output_audio=20)
    expected = (400 * 1 + 200 * 0.5 + 300 * 10 + 100 * 5 + 300 * 2 + 200 * 20) / 1e6
    assert priced(rates, usage)[0] == pytest.approx(expected, rel=1e-15)


def test_an_overlap_of_cache_and_audio_that_nobody_states_is_the_least_that_is_possible():
    rates = price(input=1, cache_read=0.5, input_audio=10, cache_audio_read=5, output=2)
    stated = Usage(input_tokens=1000, cached_tokens=700, input_audio_tokens=600)
    meant = Usage(input_tokens=1000, cached_tokens=700, input_audio_tokens=600, cached_audio_tokens=300)
    assert settled(stated) == meant
    assert priced(rates, meant)[0] == (100 * 0.5 * 4 + 300 * 10 + 300 * 5) / 1e6


@pytest.mark.parametrize("count", [1, 1000, 1001, 200_000, 200_001, 200_002, 500_000, 500_001, 10**9])
def test_a_context_length_tier_applies_to_all_tokens_of_the_call(count):
    tiers = [types.Tier(500_000, Decimal(9)), types.Tier(200_000, Decimal(3))]
    rates = types.ModelPrice(input_mtok=types.TieredPrices(Decimal(1), tiers), output_mtok=Decimal(2))
    ours, genai = priced(rates, Usage(input_tokens=count, output_tokens=100))
    assert ours == genai
    assert ours == (count * (9 if count > 500_000 else 3 if count > 200_000 else 1) + 200) / 1e6


@pytest.mark.parametrize("count", [1, 9, 10, 11, 40, 41, 5000])
@pytest.mark.parametrize("starts", [(10, 40), (0, 40), (2000, 2010)])
def test_tiers_too_narrow_to_learn_are_asked_for(count, starts):
    tiers = [types.Tier(start, Decimal(number + 2)) for number, start in enumerate(starts)]
    rates = types.ModelPrice(input_mtok=types.TieredPrices(Decimal(1), tiers))
    ours, genai = priced(rates, Usage(input_tokens=count))
    assert ours == genai > 0


def test_a_price_that_is_no_sum_of_rates_is_asked_for_each_time(monkeypatch):
    calc = types.ModelPrice.calc_price

    def dear_in_bulk(self, usage):
        found = calc(self, usage)
        factor = 2 if usage.output_tokens > 500 else 1
        return {name: value * factor for name, value in found.items()}

    monkeypatch.setattr(types.ModelPrice, "calc_price", dear_in_bulk)
    for output in (100, 500, 501, 5000):
        ours, genai = priced(price(input=1, output=2), Usage(input_tokens=10, output_tokens=output))
        assert ours == genai > 0


def test_a_fee_for_the_request_is_added_but_not_where_nothing_was_answered():
    rates = types.ModelPrice(input_mtok=Decimal(1), output_mtok=Decimal(1), requests_kcount=Decimal(5))
    assert priced(rates, Usage(input_tokens=1000))[0] == 0.006
    assert priced(rates, Usage())[0] == 0.0


def test_a_price_by_the_hour_is_no_price_of_tokens_and_an_empty_one_is_free():
    usage = Usage(input_tokens=1000)
    assert priced(types.ModelPrice(audio_hours=Decimal(1)), usage)[0] is None
    assert priced(types.ModelPrice(), usage)[0] == 0.0
    assert priced(price(input=0, output=0), usage)[0] == 0.0


EAST = timezone(timedelta(hours=5, minutes=30))
DATED = [
    types.ConditionalPrice(prices=price(input=1)),
    types.ConditionalPrice(types.StartDateConstraint(date(2026, 8, 17)), prices=price(input=2)),
    types.ConditionalPrice(types.TimeOfDateConstraint(time(22, 30), time(4)), prices=price(input=4)),
    types.ConditionalPrice(
        types.TimeOfDateConstraint(time(13, tzinfo=EAST), time(14, tzinfo=EAST)), prices=price(input=8)
    ),
]


@pytest.mark.parametrize("day", [date(2026, 8, 15), date(2026, 8, 16), date(2026, 8, 17), date(2026, 12, 31)])
def test_dates_and_hours(day):
    model = types.ModelInfo(id="m", match=types.ClauseEquals(equals="m"), prices=DATED)
    provider = types.Provider(id="openai", name="OpenAI", api_pattern="", models=[model])
    data_snapshot.set_custom_snapshot(data_snapshot.DataSnapshot([provider], from_auto_update=True))
    start = datetime.combine(day, time(), UTC).timestamp()
    usage = Usage(input_tokens=1_000_000)
    try:
        book = PriceBook()
        for minute in range(-90, 26 * 60, 10):
            for second in (-1, 0, 1):
                at = start + minute * 60 + second
                assert book.cost("openai", "m", None, usage, at=at)[0] == by_genai_prices("openai", "m", usage, at)
        spans = book._edition.resolved["openai", "m", None, None]._spans
        assert len(spans) <= 8
    finally:
        data_snapshot.set_custom_snapshot(None)


def test_a_condition_of_a_kind_that_we_do_not_know_is_asked_each_time():
    class OddMinutes(types.TimeOfDateConstraint.__mro__[1]):
        def active(self, request_timestamp):
            return bool(request_timestamp.minute % 2)

    model = types.ModelInfo(
        id="m",
        match=types.ClauseEquals(equals="m"),
        prices=[
            types.ConditionalPrice(prices=price(input=1)),
            types.ConditionalPrice(OddMinutes(), prices=price(input=2)),
        ],
    )
    provider = types.Provider(id="openai", name="OpenAI", api_pattern="", models=[model])
    data_snapshot.set_custom_snapshot(data_snapshot.DataSnapshot([provider], from_auto_update=True))
    try:
        book = PriceBook()
        costs = [
            book.cost("openai", "m", None, Usage(input_tokens=1_000_000), at=NOON + 60 * minute)[0]
            for minute in range(4)
        ]
    finally:
        data_snapshot.set_custom_snapshot(None)
    assert costs == [1, 2, 1, 2]


@pytest.mark.parametrize(
    ("tier", "rate"),
    [(None, 1), ("standard", 1), ("flex", 0.5), ("Priority", 2), ("batch", 0.25), ("fast", 6), ("default", 1)],
)
def test_service_tiers(tier, rate):
    variants = [
        types.PriceVariant({"service_tier": "flex"}, price(input=0.5)),
        types.PriceVariant({"service_tier": "priority"}, price(input=2)),
        types.PriceVariant({"processing": "batch"}, price(input=0.25)),
        types.PriceVariant({"speed": "fast"}, price(input=6)),
    ]
    usage = Usage(input_tokens=1_000_000)
    assert priced(price(input=1), usage, service_tier=tier, variants=variants)[0] == rate


def test_a_service_tier_that_starts_later():
    variants = [
        types.PriceVariant({"service_tier": "flex"}, price(input=0.5), types.StartDateConstraint(date(2027, 1, 1)))
    ]
    usage = Usage(input_tokens=1_000_000)
    new_year = datetime(2027, 1, 1, tzinfo=UTC).timestamp()
    for at, rate in [(new_year - 1, 1), (new_year, 0.5)]:
        assert priced(price(input=1), usage, service_tier="flex", variants=variants, at=at)[0] == rate


def test_the_filter_of_warnings_stays_narrow():
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        before = len(warnings.filters)
        for _ in range(5):
            PriceBook().cost("openai", "gpt-4o", None, Usage(input_tokens=1), at=NOON)
        assert len(warnings.filters) <= before + 1
        warnings.warn("ours", UserWarning, stacklevel=1)
    assert [str(one.message) for one in seen] == ["ours"]
