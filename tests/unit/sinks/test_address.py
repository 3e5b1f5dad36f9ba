from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tellmeter.errors import ConfigError
from tellmeter.sinks.address import file_path, flag, parse, positive, redact, whole, whole_or_zero


def test_a_url_is_taken_apart():
    address = parse("SQLite:///a b%20.db?retention_days=1%2E5&retention_rows=7")
    assert (address.scheme, address.location) == ("sqlite", "///a b%20.db")
    assert address.read(retention_days=positive, retention_rows=whole) == {"retention_days": 1.5, "retention_rows": 7}


@pytest.mark.parametrize("text", ["", "calls.db", "c:/calls.db", "://x", None, 5])
def test_text_without_a_scheme_is_no_url(text):
    with pytest.raises(ConfigError, match="is no URL"):
        parse(text)


def test_an_unknown_option_names_the_known_ones():
    with pytest.raises(ConfigError, match="'colour' is no option of sqlite: URLs; its options are size"):
        parse("sqlite:///x?colour=red").read(size=whole)
    with pytest.raises(ConfigError, match="it has none"):
        parse("sqlite:///x?colour=red").read()


def test_a_bad_value_says_what_is_allowed():
    with pytest.raises(
        ConfigError, match=r"size = 'many' in sqlite:///x\?size=many: it must be a whole number above 0"
    ):
        parse("sqlite:///x?size=many").read(size=whole)


def test_paths_follow_sqlalchemy(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert parse("sqlite:///sub/x.db").file() == tmp_path / "sub" / "x.db"
    assert parse("sqlite:////sub/x.db").file() == file_path("/sub/x.db")
    assert parse("sqlite:///~/x.db").file() == tmp_path / "x.db"
    assert parse("sqlite:///100%#1.db").file() == tmp_path / "100%#1.db"


@pytest.mark.parametrize("url", ["sqlite://calls.db", "sqlite:calls.db", "sqlite:///", "sqlite://user:pw@host/x.db"])
def test_a_path_with_too_few_slashes_is_refused(url):
    with pytest.raises(ConfigError, match=r"three slashes, or sqlite:////absolute/path with four") as caught:
        parse(url).file()
    assert "pw" not in str(caught.value)


def test_a_path_that_is_none_is_refused():
    for text in ("", "a\0b", "~nobody-of-that-name/x.db"):
        with pytest.raises(ConfigError, match="is no path"):
            file_path(text)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:secret@host:5432/db", "postgresql://me:***@host:5432/db"),
        ("postgresql://me:sec@re/t#?x@host/db", "postgresql://me:***@host/db"),
        ("datadog://apikey@datadoghq.eu", "datadog://***@datadoghq.eu"),
        ("http://h/x?api_key=abc&y=1&Password=p", "http://h/x?api_key=***&y=1&Password=***"),
        ("sqlite:///a@b:c/calls.db?retention_days=5", "sqlite:///a@b:c/calls.db?retention_days=5"),
        ("console:", "console:"),
        ("plain text", "plain text"),
    ],
)
@pytest.mark.security(3)
def test_secrets_are_not_shown(url, shown):
    assert redact(url) == shown


password = st.text(st.characters(blacklist_categories=["Cs", "Cc"]), min_size=6).map(lambda text: f"s3cr3t{text}")


@given(password, st.sampled_from(["postgresql", "clickhouse", "nowhere"]))
@pytest.mark.security(3)
def test_no_password_of_any_spelling_is_shown(secret, scheme):
    assert "s3cr3t" not in redact(f"{scheme}://user:{secret}@host/db")
    assert "s3cr3t" not in redact(f"{scheme}://{secret.replace(':', '')}@host/db")
    assert secret.split("&")[0] not in redact(f"{scheme}://host/db?token={secret}")


@given(st.text())
def test_any_text_can_be_redacted_and_parsed_or_refused(text):
    redact(text)
    try:
        parse(text)
    except ConfigError:
        pass


@pytest.mark.parametrize(("parser", "text"), [(positive, "0"), (positive, "nan"), (positive, "inf"), (positive, "x"),
                                              (whole, "0"), (whole, "1.5"), (whole, "9" * 19), (whole, "²"),
                                              (whole_or_zero, "-1"), (flag, "maybe")])  # fmt: skip
def test_values_that_are_refused(parser, text):
    with pytest.raises(ValueError, match=r"number|true or false"):
        parser(text)


def test_values_that_are_read():
    assert (positive("1e3"), whole("007"), whole_or_zero("0"), whole_or_zero("5")) == (1000.0, 7, 0, 5)
    assert (flag("YES"), flag("off")) == (True, False)
