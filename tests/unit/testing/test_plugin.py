import pytest

from tellmeter import process
from tellmeter.simulator import SimulatorServer, Traffic

pytest.importorskip("openai")

PROGRAM = """
import asyncio, gc
import pytest, tellmeter

HELLO = [{"role": "user", "content": "hello"}]

def call():
    with tellmeter.meter_call(model="gpt-4o-mini", provider="openai") as made:
        made.input_tokens = 1000

def ask(**more):
    import openai
    with openai.OpenAI(api_key="any", max_retries=0) as client:
        return client.chat.completions.create(model="gpt-4o-mini", messages=HELLO, **more)
"""


@pytest.fixture(scope="module")
def server():
    with SimulatorServer(Traffic(seed=1, speed=0)) as running:
        yield running


@pytest.fixture
def suite(pytester, server, monkeypatch):
    """Run tests in a pytest of their own, which finds the plugin by its entry point, as a user's does; `alone`: in a process too."""
    monkeypatch.setenv("OPENAI_BASE_URL", server.openai_url)
    pytester.makeini("[pytest]\naddopts = --strict-markers\nasyncio_default_fixture_loop_scope = function\n")

    monkeypatch.setattr(process, "_process_collector", None)

    def run(text, *, alone=False):
        pytester.makepyfile(PROGRAM + text)
        run_pytest = pytester.runpytest_subprocess if alone else pytester.runpytest_inprocess
        return run_pytest("-p", "no:cacheprovider")

    return run


@pytest.mark.sdk
def test_the_fixture_sees_calls_and_only_in_its_test(suite):
    suite(
        """
def test_calls(llm_calls):
    ask()
    ask(stream=True)
    gc.collect()  # the SDK's stream, which nobody reads, is in a cycle
    assert llm_calls.count(model="gpt-4o-mini") == 2
    assert llm_calls.cost_usd < 0.01
    assert not llm_calls.errors

def test_each_test_has_its_own(llm_calls):
    assert len(llm_calls) == 0

def test_others_are_not_metered():
    from tellmeter.wire.hooks import status
    ask()
    assert "hooked" not in status().values()

@pytest.mark.asyncio
async def test_async(llm_calls):
    import openai
    async with openai.AsyncOpenAI(api_key="any") as client:
        await asyncio.gather(*(client.chat.completions.create(model="gpt-4o", messages=HELLO) for _ in range(3)))
    assert llm_calls.models == {"gpt-4o": 3}

def test_a_program_that_configures_itself(llm_calls, tmp_path):
    tellmeter.configure(sinks=[f"sqlite:///{tmp_path}/calls.db"])
    tellmeter.instrument()
    ask()
    assert len(llm_calls) == 1
""",
        alone=True,
    ).assert_outcomes(passed=5)


def test_a_failing_test_shows_its_calls(suite):
    result = suite(
        """
def test_calls(llm_calls):
    call()
    assert len(llm_calls) == 2
"""
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "*assert 1 == 2",
            "*where 1 = len(<LLMCalls: 1 call (1 x gpt-4o-mini), 1000 + 0 tokens, 0.00015 USD>)",
            "*Captured llm_calls call*",
            "model * provider * latency_ms",
            "gpt-4o-mini * openai * success *",
        ]
    )


def test_budgets(suite):
    result = suite(
        """
pytestmark = pytest.mark.llm_budget(calls=2, usd=1)

def test_within():
    call(); call()

def test_calls_over():
    for _ in range(3): call()

@pytest.mark.llm_budget(calls=5)
def test_the_closest_budget_decides(llm_calls):
    for _ in range(3): call()

@pytest.mark.llm_budget(tokens=1)
def test_tokens_over():
    call()

@pytest.mark.llm_budget(usd=1e-9)
class TestClass:
    def test_usd_over(self):
        call()

@pytest.mark.asyncio
@pytest.mark.llm_budget(calls=0)
async def test_async_over():
    call()

@pytest.mark.xfail(strict=True, reason="spends")
@pytest.mark.llm_budget(calls=0)
def test_expected():
    call()

def test_fails_by_itself():
    call(); call(); call()
    assert False, "its own reason"
"""
    )
    result.assert_outcomes(passed=2, failed=5, xfailed=1)
    result.stdout.fnmatch_lines_random(
        [
            "over the budget of this test: 3 of 2 calls",
            "over the budget of this test: * of 1 tokens",
            "over the budget of this test: * of 1e-09 USD",
            "over the budget of this test: 1 of 0 calls",
            "*its own reason*",
        ]
    )
    # Once each; pytest's summary has them again where it is not cut, as in CI.
    assert sum(line.startswith("over the budget of this test") for line in result.outlines) == 4


@pytest.mark.parametrize("budget", ["", "0.05", "dollars=1"])
def test_a_budget_without_a_known_limit_is_told_at_once(suite, budget):
    result = suite(f"@pytest.mark.llm_budget({budget})\ndef test_it(): pass\n")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*test_it: llm_budget takes usd=, calls=, tokens=*"])


def test_unittest_cases_have_budgets_too(suite):
    result = suite(
        """
import unittest

class TestIt(unittest.TestCase):
    @pytest.mark.llm_budget(calls=1)
    def test_over(self):
        call(); call()

    @pytest.mark.llm_budget(calls=1)
    def test_within(self):
        call()
"""
    )
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["over the budget of this test: 2 of 1 calls"])


def test_a_suite_without_it_imports_nothing_of_tellmeter(pytester):
    pytester.makepyfile(
        """
        import sys

        def test_it():
            found = sorted(name for name in sys.modules if name.startswith("tellmeter"))
            assert found == ["tellmeter", "tellmeter.testing", "tellmeter.testing.plugin"]
            assert "msgspec" not in sys.modules and "wrapt" not in sys.modules
        """
    )
    pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=1)


def test_a_suite_with_a_fixture_of_that_name_keeps_it(suite):
    suite(
        """
@pytest.fixture
def llm_calls():
    return "mine"

@pytest.mark.llm_budget(calls=1)
def test_within(llm_calls):
    call()
    assert llm_calls == "mine"

@pytest.mark.xfail(strict=True)
@pytest.mark.llm_budget(calls=0)
def test_over(llm_calls):
    call()
"""
    ).assert_outcomes(passed=1, xfailed=1)


def test_what_a_wider_fixture_configures_outlives_the_test(suite):
    suite(
        """
@pytest.fixture(scope="session")
def app():
    return tellmeter.configure(sinks=["memory:"])

@pytest.mark.llm_budget(calls=1)
def test_first(app):
    call()

def test_second(app):
    assert tellmeter.get_metrics_collector() is app
"""
    ).assert_outcomes(passed=2)


def test_pytest_lists_the_marker(pytester):
    pytester.makeini("[pytest]\nasyncio_default_fixture_loop_scope = function\n")
    result = pytester.runpytest_inprocess("--markers")
    result.stdout.fnmatch_lines(["@pytest.mark.llm_budget(usd=None, calls=None, tokens=None):*"])
