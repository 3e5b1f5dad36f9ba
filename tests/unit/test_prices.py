"""PriceBook: which source of prices wins, what it does with odd input, and what it keeps."""

import math
import subprocess
import sys
import threading
import time
import warnings
from datetime import datetime
from decimal import Decimal

import genai_prices
import pytest
from genai_prices import data_snapshot, types

from tellmeter import counts, price_book
from tellmeter.prices import PriceBook
from tellmeter.usage import Usage

AT = 1_790_000_000.0  # 2026-09-21
VERSION = f"genai-prices {genai_prices.__version__}"
THOUSAND = Usage(input_tokens=1000, output_tokens=1000)


@pytest.fixture
def snapshot():
    """Put a price table of one's own in force, as the application's UpdatePrices would."""
    yield data_snapshot.set_custom_snapshot
    data_snapshot.set_custom_snapshot(None)


def table(prices, *, timestamp=datetime(2026, 11, 20, 12, 0), model="gpt-x"):  # noqa: DTZ001 - as genai-prices stamps it
    """A snapshot with one model of OpenAI."""
    info = types.ModelInfo(id=model, match=types.ClauseEquals(equals=model), prices=prices)
    provider = types.Provider(id="openai", name="OpenAI", api_pattern="", models=[info])
    return data_snapshot.DataSnapshot([provider], from_auto_update=True, timestamp=timestamp)


def added(name, act):
    """What `act` added to the counts of `name`."""
    before = counts.snapshot().get(name, {})
    act()
    after = counts.snapshot().get(name, {})
    return {key: after[key] - before.get(key, 0) for key in after if after[key] != before.get(key, 0)}


def test_a_known_model_is_priced_with_the_version_of_the_data():
    usage = Usage(input_tokens=1000, output_tokens=50, cached_tokens=200)
    # 800 x 2.50 + 200 x 1.25 + 50 x 10.00 dollars per million
    assert PriceBook().cost("openai", "gpt-4o", "gpt-4o-2024-08-06", usage, at=AT) == (0.00275, VERSION)


def test_embeddings_have_only_input():
    usage = Usage(input_tokens=1_000_000)
    assert PriceBook().cost("openai", "text-embedding-3-small", None, usage, at=AT)[0] == 0.02


def test_reasoning_is_billed_once_as_output():
    usage = Usage(output_tokens=1_000_000, reasoning_tokens=900_000)
    assert PriceBook().cost("openai", "gpt-5", None, usage, at=AT)[0] == 10.0


def test_no_tokens_cost_nothing_where_the_model_has_a_price_and_are_unknown_elsewhere():
    book = PriceBook()
    assert book.cost("openai", "gpt-4o", None, Usage(), at=AT) == (0.0, VERSION)
    assert book.cost("openai", "no-such-model", None, Usage(), at=AT) == (None, None)


def test_what_genai_prices_lists_as_free_is_zero():
    assert PriceBook().cost("gcp.gemini", "gemma-4-31b-it", None, THOUSAND, at=AT) == (0.0, VERSION)


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("openai", "no-such-model"),
        ("ollama", "llama3.1"),
        ("vllm", "gpt-4o"),
        ("no-such-provider", "gpt-4o"),
        ("openai", ""),
        ("groq", "whisper-large-v3"),  # by the hour: its tokens say nothing of its price
    ],
)
def test_an_unknown_price_is_none_and_counted(provider, model):
    book = PriceBook()
    counted = added("price_unknown", lambda: book.cost(provider, model, None, THOUSAND, at=AT))
    assert book.cost(provider, model, None, THOUSAND, at=AT) == (None, None)
    assert counted == {provider: 1}


def test_the_cost_that_the_provider_states_wins_over_everything():
    book = PriceBook({"gpt-4o": {"input": 1}}, {"openai": 0.5})
    stated = Usage(input_tokens=1000, cost_usd=0.125)
    assert book.cost("openai", "gpt-4o", None, stated, at=AT) == (0.125, "provider")
    assert book.cost("openrouter", "no/such-model", None, stated, at=AT) == (0.125, "provider")
    assert PriceBook().cost("openrouter", "x", None, Usage(cost_usd=0), at=AT) == (0.0, "provider")


def test_the_zero_of_xai_that_azure_passes_on_is_no_cost():
    usage = Usage(input_tokens=1000, cost_usd=0.0)
    assert PriceBook().cost("azure.ai.inference", "grok-4-1-fast-non-reasoning", None, usage, at=AT) == (
        0.0002,
        VERSION,
    )


@pytest.mark.parametrize("stated", [math.nan, math.inf, -1.0])
def test_a_stated_cost_that_is_none_falls_to_the_book(stated):
    usage = Usage(input_tokens=1000, cost_usd=stated)
    assert PriceBook().cost("openai", "gpt-4o", None, usage, at=AT) == (0.0025, VERSION)


# --- the user's prices


OWN = {"input": 2.5, "output": 10, "cache_read": 1.25, "cache_write": 3.125}
CACHED = Usage(input_tokens=1000, output_tokens=100, cached_tokens=400, cache_write_tokens=200)


def test_own_prices_are_dollars_per_million_tokens_of_each_kind():
    book = PriceBook({"mine": OWN})
    expected = (400 * 2.5 + 400 * 1.25 + 200 * 3.125 + 100 * 10) / 1e6
    assert book.cost("openai", "mine", None, CACHED, at=AT) == (pytest.approx(expected, rel=1e-15), "override")


def test_own_prices_without_cache_rates_bill_caches_as_input():
    book = PriceBook({"mine": {"input": 2.0, "output": 4.0}})
    assert book.cost("openai", "mine", None, CACHED, at=AT)[0] == (1000 * 2.0 + 100 * 4.0) / 1e6
    assert PriceBook({"mine": {"input": 2}}).cost("x", "mine", None, CACHED, at=AT)[0] == 0.002


@pytest.mark.parametrize(
    ("name", "cost"),
    [
        ("azure.ai.openai/gpt-4o-2024-08-06", 0.001),
        ("azure.ai.openai/deployment", 0.001),
        ("gpt-4o-2024-08-06", 0.001),
        ("deployment", 0.001),
        ("azure.ai.openai/*", 0.001),
        ("openai/deployment", 0.0025),
        ("openai/*", 0.0025),
    ],
)
def test_own_prices_are_found_by_either_name_with_or_without_the_provider(name, cost):
    book = PriceBook({name: {"input": 1}})
    usage = Usage(input_tokens=1000)
    assert book.cost("azure.ai.openai", "deployment", "gpt-4o-2024-08-06", usage, at=AT)[0] == cost


def test_the_more_exact_own_price_wins():
    rates = {"openai/exact": {"input": 1}, "exact": {"input": 2}, "alias": {"input": 3}, "openai/*": {"input": 4}}
    book = PriceBook(rates)
    million = Usage(input_tokens=1_000_000)
    assert book.cost("openai", "alias", "exact", million, at=AT)[0] == 1
    assert book.cost("groq", "alias", "exact", million, at=AT)[0] == 2
    assert book.cost("openai", "alias", None, million, at=AT)[0] == 3
    assert book.cost("openai", "gpt-4o", None, million, at=AT)[0] == 4


def test_a_whole_provider_can_be_declared_free():
    assert PriceBook({"ollama/*": {"input": 0}}).cost("ollama", "qwen3:8b", None, THOUSAND, at=AT) == (0.0, "override")


@pytest.mark.parametrize("book", [PriceBook(), PriceBook({"gpt-4o": {"input": 2.5, "cache_read": 1.25}})])
def test_subsets_larger_than_their_parent_are_cut_as_the_record_cuts_them(book):
    too_many = Usage(
        input_tokens=1000, cached_tokens=5000, cache_write_tokens=200, output_tokens=9, reasoning_tokens=10
    )
    fitting = Usage(input_tokens=1000, cached_tokens=800, cache_write_tokens=200, output_tokens=9, reasoning_tokens=9)
    cost = book.cost("openai", "gpt-4o", None, too_many, at=AT)[0]
    assert cost == book.cost("openai", "gpt-4o", None, fitting, at=AT)[0] > 0.001


# --- discounts


def test_a_discount_is_taken_off_the_book_and_nothing_else():
    book = PriceBook({"mine": {"input": 1}}, {"openai": 0.25})
    usage = Usage(input_tokens=1000)
    assert book.cost("openai", "gpt-4o", None, usage, at=AT) == (0.0025 * 0.75, VERSION)
    assert book.cost("openai", "mine", None, usage, at=AT)[0] == 0.001
    assert book.cost("openai", "gpt-4o", None, Usage(cost_usd=2.0), at=AT)[0] == 2.0
    assert book.cost("azure.ai.openai", "gpt-4o", None, usage, at=AT)[0] == 0.0025
    assert PriceBook(None, {"openai": 1}).cost("openai", "gpt-4o", None, usage, at=AT)[0] == 0.0


# --- never raises


@pytest.mark.parametrize("at", [math.nan, math.inf, -math.inf, 1e30, -1e30])
def test_an_impossible_time_is_an_unknown_price(at):
    counted = added("price_error", lambda: PriceBook().cost("openai", "gpt-4o", None, THOUSAND, at=at))
    assert sum(counted.values()) == 1


@pytest.mark.parametrize(
    "usage",
    [
        Usage(input_tokens=10, cached_tokens=-20),
        Usage(input_tokens=-5, output_tokens=3),
        Usage(input_tokens=math.nan, output_tokens=3),
        Usage(input_tokens="many", output_tokens=3),
        None,
    ],
)
def test_counts_that_make_no_sense_are_an_unknown_price(usage):
    for book in (PriceBook(), PriceBook({"gpt-4o": {"input": 1}})):
        counted = added("price_error", lambda: book.cost("openai", "gpt-4o", None, usage, at=AT))  # noqa: B023
        assert sum(counted.values()) == 1
        assert book.cost("openai", "gpt-4o", None, usage, at=AT) == (None, None)


def test_names_that_are_no_text_are_an_unknown_price():
    for call in [(None, "gpt-4o", None), ("openai", None, None), ([], {}, 3), ("openai", 7, None)]:
        assert PriceBook().cost(*call, THOUSAND, at=AT) == (None, None)
    assert PriceBook().cost("openai", "gpt-4o", None, THOUSAND, at=AT, service_tier=3) == (None, None)


def test_an_exception_of_genai_prices_is_counted_by_its_class(monkeypatch):
    class Boom(Exception):
        pass

    def calc_price(*args, **kwargs):
        raise Boom

    monkeypatch.setattr(types.ModelInfo, "calc_price", calc_price)
    counted = added("price_error", lambda: PriceBook().cost("openai", "gpt-4o", None, THOUSAND, at=AT))
    assert counted == {"Boom": 1}


def test_without_genai_prices_only_its_prices_are_missing_and_it_is_tried_once(monkeypatch):
    monkeypatch.setitem(sys.modules, "tellmeter.price_book", None)
    book = PriceBook({"mine": {"input": 1}})
    counted = added("price_error", lambda: [book.cost("openai", "gpt-4o", None, THOUSAND, at=AT) for _ in range(3)])
    assert counted == {"ModuleNotFoundError": 1}
    assert book.cost("openai", "gpt-4o", None, Usage(cost_usd=1.0), at=AT) == (1.0, "provider")
    assert book.cost("openai", "mine", None, THOUSAND, at=AT) == (0.001, "override")


# --- what is kept


def test_look_ups_are_remembered_the_failed_too_and_bounded():
    book = PriceBook()
    kept_by_genai = data_snapshot.get_snapshot()
    before = len(kept_by_genai._lookup_cache), len(kept_by_genai._provider_cache), len(kept_by_genai._provider_misses)
    for number in range(1500):
        book.cost("cohere", f"hostile-{number}", None, THOUSAND, at=AT)
        book.cost("cohere", "command-r-08-2024", f"hostile-{number}", THOUSAND, at=AT)
    assert len(book._edition.resolved) == price_book._MAX_RESOLVED
    assert book._edition.resolved["cohere", "hostile-1499", None, None] is None
    after = len(kept_by_genai._lookup_cache), len(kept_by_genai._provider_cache), len(kept_by_genai._provider_misses)
    assert after == before


def test_a_model_is_looked_up_and_learnt_once(monkeypatch):
    book = PriceBook()
    book.cost("openai", "gpt-4o", None, THOUSAND, at=AT)
    monkeypatch.setattr(types.ModelInfo, "calc_price", None)
    monkeypatch.setattr(types.Provider, "find_model", None)
    assert book.cost("openai", "gpt-4o", None, THOUSAND, at=AT)[0] == 0.0125


def test_newer_prices_of_the_application_are_in_force_from_the_next_call(snapshot):
    book = PriceBook()
    assert book.cost("openai", "gpt-x", None, THOUSAND, at=AT) == (None, None)
    snapshot(table(types.ModelPrice(input_mtok=Decimal(1))))
    cost, version = book.cost("openai", "gpt-x", None, THOUSAND, at=AT)
    stamp = datetime(2026, 11, 20, 12, 0).astimezone().timestamp()
    assert cost == 0.001
    assert version == f"{VERSION} {time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime(stamp))}"
    assert len(version) <= 64
    snapshot(table(types.ModelPrice(input_mtok=Decimal(2))))
    assert book.cost("openai", "gpt-x", None, THOUSAND, at=AT)[0] == 0.002
    snapshot(None)
    assert book.cost("openai", "gpt-4o", None, THOUSAND, at=AT) == (0.0125, VERSION)


def test_warnings_of_genai_prices_do_not_leak(snapshot):
    price = types.ModelPrice(input_mtok=Decimal(1), hologram_mtok=Decimal(9))
    snapshot(table(price))
    for action in ("error", "always"):
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter(action)
            assert PriceBook().cost("openai", "gpt-x", None, THOUSAND, at=AT)[0] == 0.001
        assert seen == []


def test_precision_of_the_applications_decimals_changes_nothing():
    code = """
import decimal
decimal.DefaultContext.prec = 3
decimal.setcontext(decimal.DefaultContext)
from tellmeter.prices import PriceBook
from tellmeter.usage import Usage
print(PriceBook().cost("openai", "gpt-4o", None, Usage(input_tokens=123457, output_tokens=7), at=1.79e9)[0])
"""
    assert float(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout) == 0.3087125


def test_nothing_is_loaded_before_the_first_price_of_the_book():
    code = """
import sys
from tellmeter.prices import PriceBook
from tellmeter.usage import Usage
book = PriceBook({"mine": {"input": 1}}, {"openai": 0.1})
book.cost("openrouter", "x", None, Usage(cost_usd=1.0), at=1.79e9)
book.cost("openai", "mine", None, Usage(input_tokens=9, cached_tokens=10), at=1.79e9)
print("genai_prices" in sys.modules, "pydantic" in sys.modules)
book.cost("openai", "gpt-4o", None, Usage(), at=1.79e9)
print("genai_prices" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False", "True"]


def test_many_threads_get_the_same_prices(snapshot):
    book, wrong = PriceBook(), []
    usage = Usage(input_tokens=1_000_000)

    def ask(seed):
        for number in range(300):
            model = f"hostile-{seed}-{number}" if number % 3 else "command-r-08-2024"
            cost = book.cost("cohere", model, None, usage, at=AT)[0]
            if cost != (None if number % 3 else 0.15):
                wrong.append((model, cost))

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len(book._edition.resolved) <= price_book._MAX_RESOLVED + len(threads)
