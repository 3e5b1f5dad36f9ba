import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tellmeter.errors import ConfigError
from tellmeter.serve.access import Access


def basic(text):
    return {"authorization": f"Basic {base64.b64encode(text.encode()).decode()}"}


def status(access, headers):
    refused = access.refusal(headers)
    return refused.status if refused else 200


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", 200),
        ("localhost:9090", 200),
        ("LOCALHOST:1", 200),
        ("127.0.0.1", 200),
        ("127.0.0.1:9090", 200),
        ("127.1.2.3:9090", 200),
        ("[::1]", 200),
        ("[::1]:9090", 200),
        ("", 403),
        ("evil.example", 403),
        ("evil.example:9090", 403),
        ("localhost.evil.example", 403),
        ("127.0.0.1.evil.example", 403),
        ("evil.example#localhost", 403),
        ("localhost:9090@evil.example", 403),
        ("evil@localhost", 403),
        ("localhost, evil.example", 403),
        ("10.0.0.1:9090", 403),
        ("0.0.0.0:9090", 403),
        ("[::]", 403),
        ("[fe80::1]", 403),
        ("::1", 403),
        ("127.0.0.1:x", 403),
        ("999.0.0.1", 403),
        ("localhost\n", 403),
        ("127.1", 403),
        ("2130706433", 403),
    ],
)
@pytest.mark.security(5)
def test_without_a_secret_only_names_of_this_machine(host, expected):
    assert status(Access(), {"host": host}) == expected


def test_a_request_without_a_host_is_refused():
    assert status(Access(), {}) == 403


@given(st.text())
def test_whatever_stands_in_the_headers(text):
    assert status(Access(), {"host": text}) in {200, 403}
    assert status(Access("t" * 40, ("u", "p" * 40)), {"authorization": text, "host": "localhost"}) == 401
    assert status(Access("t" * 40, ("u", "p" * 40)), {"authorization": f"Basic {text}"}) == 401
    assert status(Access("t" * 40, ("u", "p" * 40)), {"authorization": f"Bearer {text}"}) == 401


@pytest.mark.security(5)
def test_a_token():
    access = Access("s3cret")
    assert access.secret
    assert status(access, {"authorization": "Bearer s3cret", "host": "any.example"}) == 200
    assert status(access, {"authorization": "bearer  s3cret "}) == 200
    for wrong in ("Bearer s3cre", "Bearer s3crett", "Bearer", "Bearer ", "s3cret", "Basic s3cret", ""):
        refused = access.refusal({"authorization": wrong, "host": "localhost"})
        assert refused.status == 401
        assert [value for name, value in refused.headers if name == "www-authenticate"] == ['Bearer realm="metrics"']


@pytest.mark.parametrize("given_as", ["user:pa:ss wörd", ("user", "pa:ss wörd")])
@pytest.mark.security(5)
def test_a_user_and_a_password(given_as):
    access = Access(basic_auth=given_as)
    assert status(access, basic("user:pa:ss wörd")) == 200
    for wrong in ("user:pass", "user", "", "User:pa:ss wörd", "user:pa:ss wörd "):
        assert status(access, basic(wrong)) == 401
    assert status(access, {"authorization": "Basic !!!"}) == 401
    assert status(access, {"authorization": "Bearer user:pa:ss wörd"}) == 401


def test_either_of_both():
    access = Access("s3cret", "user:password")
    assert status(access, {"authorization": "Bearer s3cret"}) == 200
    assert status(access, basic("user:password")) == 200
    refused = access.refusal({})
    assert [value.split()[0] for name, value in refused.headers if name == "www-authenticate"] == ["Bearer", "Basic"]


def test_a_token_beyond_ascii_is_compared_as_it_is_sent():
    assert status(Access("schlüssel"), {"authorization": "Bearer schlüssel".encode().decode("latin-1")}) == 200


@pytest.mark.parametrize("token", ["", "  ", "with\nnewline", "with\0zero", "\udc80", 5, b"bytes"])
def test_tokens_that_cannot_be(token):
    with pytest.raises(ConfigError) as error:
        Access(token)
    assert str(error.value).startswith("token: it ")
    assert "with" not in str(error.value)


@pytest.mark.parametrize(
    "given_as",
    ["", "hunter2", "user:", "user: ", ("us:er", "hunter2"), ("hunter2",), ("user", 5), "u:hunter2\0", "u:\ud800"],
)
def test_passwords_that_cannot_be(given_as):
    with pytest.raises(ConfigError) as error:
        Access(basic_auth=given_as)
    assert "hunter2" not in str(error.value)
    assert error.value.__cause__ is None


def test_secrets_are_in_no_answer_and_no_repr():
    access = Access("s3cret", ("user", "hunter2"))
    shown = repr(access) + str(access.refusal({"authorization": "Bearer wrong"}))
    assert "s3cret" not in shown
    assert "hunter2" not in shown
    assert "wrong" not in shown
