"""The demo's application, as far as it goes without a server; tests/real runs it."""

import random
import sys

import pytest

from tellmeter.simulator import demo_app
from tellmeter.simulator.traffic import CHAT_INPUT
from tellmeter.simulator.words import count


def test_questions_are_as_long_as_in_production_and_follow_from_the_seed():
    lengths = sorted(count(demo_app._question(random.Random(n), CHAT_INPUT)) for n in range(200))
    assert 500 < lengths[100] < 2000
    assert demo_app._question(random.Random(1), CHAT_INPUT) == demo_app._question(random.Random(1), CHAT_INPUT)


def test_instructions_are_long_enough_to_be_cached():
    assert count(demo_app._RULES) > 1024


@pytest.mark.parametrize("missing", ["openai", "anthropic"])
def test_a_missing_sdk_is_one_line(missing, monkeypatch, capsys):
    import anthropic  # noqa: F401 - while openai is there: pydantic looks up in it what openai renamed as its own
    import openai  # noqa: F401

    monkeypatch.setitem(sys.modules, missing, None)
    assert demo_app.main(["--base-url", "http://127.0.0.1:9"]) == 1
    assert "pip install 'tellmeter[demo]'" in capsys.readouterr().err


def test_an_interrupt_before_it_opens_is_no_failure(monkeypatch, capsys):
    def interrupted(*given):
        raise KeyboardInterrupt

    monkeypatch.setattr(demo_app, "_Shop", interrupted)
    assert demo_app.main(["--base-url", "http://127.0.0.1:9"]) == 0
    assert capsys.readouterr().out.count("\n") == 1
