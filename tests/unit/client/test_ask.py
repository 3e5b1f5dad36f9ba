"""Messages as they are given, and the Ask that is made of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tellmeter import ConfigError
from tellmeter.client.ask import ROLES, Ask, messages_of

MESSAGE = {"role": "user", "content": "canary"}
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.binary() | st.sampled_from(ROLES),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["role", "content"]) | st.text(), inner),
    max_leaves=8,
)


def test_a_text_is_what_the_user_says():
    assert messages_of("Hi") == [{"role": "user", "content": "Hi"}]
    assert messages_of("") == [{"role": "user", "content": ""}]


def test_the_system_speaks_first():
    system = {"role": "system", "content": "Be kind."}
    assert messages_of("Hi", "Be kind.") == [system, {"role": "user", "content": "Hi"}]
    assert messages_of((MESSAGE,), "Be kind.") == [system, MESSAGE]


@pytest.mark.parametrize("role", ROLES)
def test_every_role_passes_with_all_that_the_message_has(role):
    message = {"role": role, "content": None, "tool_calls": [{"id": "1"}], "name": "x"}
    assert messages_of([message]) == [message]


def test_the_callers_messages_are_not_the_ones_that_are_sent():
    given = [dict(MESSAGE)]
    made = messages_of(given, "Be kind.")
    made[1]["content"] = "other"
    assert given == [MESSAGE]


@pytest.mark.parametrize(
    ("messages", "told"),
    [
        ([], "there is none"),
        ((), "there is none"),
        (None, "NoneType"),
        (5, "int"),
        (b"canary", "bytes"),
        (bytearray(b"canary"), "bytearray"),
        (MESSAGE, "dict"),
        ({"canary"}, "set"),
        (iter([MESSAGE]), "iterator"),
        (["canary"], r"messages\[0\]"),
        ([MESSAGE, {"content": "canary"}], r"messages\[1\]"),
        ([{"role": "canary", "content": "canary"}], "system, developer, user, assistant, tool"),
        ([{"role": None, "content": "canary"}], r"messages\[0\]"),
        ([{"role": ["user"], "content": "canary"}], r"messages\[0\]"),
    ],
)
def test_what_is_no_message_is_refused_and_not_quoted(messages, told):
    with pytest.raises(ConfigError, match=told) as caught:
        messages_of(messages)
    assert "canary" not in str(caught.value)


@given(ANYTHING)
def test_anything_makes_messages_or_one_clear_error(anything):
    try:
        made = messages_of(anything)
    except ConfigError as error:
        assert str(error).startswith("messages")
    else:
        assert made and all(message["role"] in ROLES for message in made)


def test_an_asks_repr_tells_nothing_of_what_is_said():
    ask = Ask(
        model="m",
        messages=[MESSAGE],
        stop=("canary",),
        tools=[{"canary": 1}],
        tool_choice="canary",
        response_format={"type": "canary"},
        extra={"canary": "canary"},
        max_tokens=7,
    )
    assert "canary" not in repr(ask) and "max_tokens=7" in repr(ask)
