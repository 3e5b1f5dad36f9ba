"""What a price costs: PriceBook against genai_prices.calc_price as it comes, on the same calls.

python benchmarks/prices.py
"""

import statistics
import subprocess
import sys
import time
from datetime import UTC, datetime

import genai_prices

from tellmeter.prices import PriceBook
from tellmeter.usage import Usage

AT = datetime(2026, 11, 20, 12, tzinfo=UTC)
PLAIN = Usage(input_tokens=1200, output_tokens=300)
CACHED = Usage(input_tokens=12_000, output_tokens=300, cached_tokens=8000, cache_write_tokens=1000, reasoning_tokens=90)
LONG = Usage(input_tokens=400_000, output_tokens=300, cached_tokens=8000)
# what, our provider, genai-prices' id, model asked, model answered, usage
CALLS = [
    ("plain rates", "openai", "openai", "gpt-4o", "gpt-4o-2024-08-06", PLAIN),
    ("caches", "anthropic", "anthropic", "claude-sonnet-4-5", "claude-sonnet-4-5-20250929", CACHED),
    ("context tier", "gcp.gemini", "google", "gemini-2.5-pro", "gemini-2.5-pro", LONG),
    ("hours and dates", "deepseek", "deepseek", "deepseek-chat", "deepseek-v4-flash", CACHED),
    ("OpenRouter", "openrouter", "openrouter", "openai/gpt-4o", "openai/gpt-4o", PLAIN),
    ("unknown model", "openai", "openai", "no-such-model", "no-such-model", PLAIN),
]


def nanoseconds(act, number):
    """Median of 7 rounds, per call."""
    rounds = []
    for _ in range(7):
        start = time.perf_counter_ns()
        for _ in range(number):
            act()
        rounds.append((time.perf_counter_ns() - start) / number)
    return statistics.median(rounds)


def naive(source, answered, usage):
    """A call as genai-prices' documentation shows it."""
    try:
        return genai_prices.calc_price(
            genai_prices.Usage(
                input_tokens=usage.input_tokens,
                output_tokens=usage.output_tokens,
                cache_read_tokens=usage.cached_tokens,
                cache_write_tokens=usage.cache_write_tokens,
            ),
            answered,
            provider_id=source,
            genai_request_timestamp=AT,
        ).total_price
    except LookupError:
        return None


def cold(code, before="pass"):
    """Milliseconds of `code` in a fresh interpreter: the median of 5."""
    timed = f"import time; {before}; start = time.perf_counter(); {code}; print((time.perf_counter() - start) * 1e3)"
    runs = [subprocess.run([sys.executable, "-c", timed], capture_output=True, check=True).stdout for _ in range(5)]
    return statistics.median(map(float, runs))


def main():
    book, at = PriceBook(), AT.timestamp()
    print(f"{'':16} {'first':>9} {'tellmeter':>10} {'genai-prices':>13} {'ratio':>7}")
    book.cost("openai", "gpt-4.1", None, PLAIN, at=at)  # loads the data
    for what, provider, source, asked, answered, usage in CALLS:
        start = time.perf_counter_ns()
        cost, _ = book.cost(provider, asked, answered, usage, at=at)
        first = time.perf_counter_ns() - start
        theirs = naive(source, answered, usage)
        assert cost == (None if theirs is None else float(theirs)), (what, cost, theirs)
        ours = nanoseconds(lambda: book.cost(provider, asked, answered, usage, at=at), 20_000)  # noqa: B023
        peer = nanoseconds(lambda: naive(source, answered, usage), 500)  # noqa: B023
        print(f"{what:16} {first / 1e6:6.2f} ms {ours:7.0f} ns {peer:10.0f} ns {peer / ours:6.0f}x")
    print(f"import genai_prices: {cold('import genai_prices'):.0f} ms")
    first = "PriceBook().cost('openai', 'gpt-4o', None, Usage(input_tokens=1), at=1.79e9)"
    before = "from tellmeter.prices import PriceBook; from tellmeter.usage import Usage"
    print(f"the first price of a process, all of that inside: {cold(first, before):.0f} ms, off the caller's thread")


if __name__ == "__main__":
    main()
