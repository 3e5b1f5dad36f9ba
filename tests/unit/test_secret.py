from __future__ import annotations

import copy
import json
import logging
import pickle
from dataclasses import asdict, dataclass

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tellmeter.errors import ConfigError
from tellmeter.secret import Secret

CANARY = "sk-canary-0123"


@dataclass
class Settings:
    key: Secret


@pytest.mark.parametrize(
    "shown",
    [
        repr,
        str,
        lambda secret: f"{secret}",
        lambda secret: f"{secret!r:>40}",
        lambda secret: f"{secret:>12}",
        "%s".__mod__,
        "{0} {0!r} {0!s}".format,
        lambda secret: repr([{"key": secret}]),
        lambda secret: repr(Settings(secret)),
        lambda secret: repr(asdict(Settings(secret))),
        lambda secret: repr(copy.copy(secret)),
        lambda secret: repr(copy.deepcopy([secret])),
        lambda secret: json.dumps({"key": secret}, default=str),
        lambda secret: msgspec.json.encode({"key": secret}, enc_hook=str).decode(),
    ],
)
@pytest.mark.security(3)
def test_it_is_hidden(shown):
    text = shown(Secret(CANARY))
    assert CANARY not in text
    assert "***" in text


@pytest.mark.parametrize("encode", [json.dumps, msgspec.json.encode, msgspec.msgpack.encode, pickle.dumps])
@pytest.mark.security(3)
def test_encoders_refuse_it_without_showing_it(encode):
    with pytest.raises(TypeError) as caught:
        encode(Secret(CANARY))
    assert CANARY not in str(caught.value)


@pytest.mark.security(3)
def test_log_records_hide_it(caplog):
    with caplog.at_level(logging.INFO):
        logging.getLogger("x").info("key %s %r", Secret(CANARY), Secret(CANARY))
    assert caplog.messages == ["key *** Secret('***')"]


def test_it_has_no_attributes_to_print():
    secret = Secret(CANARY)
    assert not hasattr(secret, "__dict__")
    assert [getattr(secret, name) for name in dir(secret) if getattr(secret, name) == CANARY] == [CANARY]  # mangled


@given(st.text(min_size=1), st.text(min_size=1))
def test_equality_and_hash_are_those_of_the_texts(one, other):
    assert (Secret(one) == Secret(other)) == (one == other)
    assert Secret(one) == Secret(one)
    assert hash(Secret(one)) == hash(Secret(one))
    assert Secret(one).reveal() == one
    assert Secret(one) != one


def test_any_text_compares():
    assert Secret("\ud800") == Secret("\ud800")


@pytest.mark.parametrize("value", ["", None, 5, b"bytes"])
def test_only_texts_are_secrets(value):
    with pytest.raises(ConfigError, match="must be a text"):
        Secret(value)


def test_an_argument_may_be_a_text_a_secret_or_missing():
    secret = Secret(CANARY)
    assert Secret.of("token", secret) is secret
    assert Secret.of("token", CANARY) == secret
    assert Secret.of("token", None) is None
    for wrong in ("", 5, b"x"):
        with pytest.raises(ConfigError, match="token"):
            Secret.of("token", wrong)


def test_from_the_environment(monkeypatch):
    monkeypatch.setenv("METRICS_TOKEN", f" {CANARY}\n")
    assert Secret.from_env("METRICS_TOKEN").reveal() == CANARY


@pytest.mark.parametrize("value", [None, "", " \n"])
def test_a_missing_variable_is_named(monkeypatch, value):
    monkeypatch.delenv("METRICS_TOKEN", raising=False)
    if value is not None:
        monkeypatch.setenv("METRICS_TOKEN", value)
    with pytest.raises(ConfigError, match="METRICS_TOKEN"):
        Secret.from_env("METRICS_TOKEN")


@pytest.mark.parametrize("name", [CANARY, "", "a b", "x" * 200, None, "1A"])
def test_what_is_no_name_of_a_variable_is_not_shown(name):
    with pytest.raises(ConfigError) as caught:
        Secret.from_env(name)
    assert CANARY not in str(caught.value)
    assert "environment variable" in str(caught.value)
