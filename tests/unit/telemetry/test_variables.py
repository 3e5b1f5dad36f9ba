"""Variables and arguments by a table: good ones are read, bad ones are one warning, or one error in code."""

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tellmeter.errors import ConfigError
from tellmeter.secret import Secret
from tellmeter.telemetry.variables import (
    Field,
    PartlyGood,
    Reader,
    check,
    choice,
    choices,
    flag,
    number,
    secret,
    strict_flag,
    text,
)

PARSERS = [
    text,
    secret,
    flag,
    strict_flag,
    number(0, 10),
    number(1, 10, whole=True),
    choice("a", "b"),
    choices("a", "b"),
]


@pytest.mark.parametrize(
    ("parser", "given", "meant"),
    [
        (text, " a ", "a"),
        (flag, "Yes", True),
        (flag, "0", False),
        (flag, True, True),
        (strict_flag, "TRUE", True),
        (strict_flag, False, False),
        (number(0, 10), "2.5", 2.5),
        (number(0, 10), 3, 3.0),
        (number(0, 10, whole=True), "3", 3),
        (choice("a", "b"), "B", "b"),
        (choices("a", "b"), "b, A,b", ("b", "a")),
        (choices("a", "b"), "none", ()),
        (choices("a", "b"), "none,a", ("a",)),
        (choices("a", "b"), ["a"], ("a",)),
    ],
)
def test_what_is_read(parser, given, meant):
    assert parser(given) == meant


@pytest.mark.parametrize(
    ("parser", "given"),
    [
        (text, ""),
        (text, "a\nb"),
        (text, 3),
        (flag, "maybe"),
        (strict_flag, "1"),
        (strict_flag, "yes"),
        (number(0, 10), "nan"),
        (number(0, 10), "inf"),
        (number(0, 10), "11"),
        (number(0, 10), True),
        (number(0, 10, whole=True), "2.5"),
        (choice("a"), "c"),
        (choice("a"), None),
        (choices("a"), "c"),
        (choices("a"), 3),
    ],
)
def test_what_is_refused(parser, given):
    with pytest.raises(ValueError):
        parser(given)


@given(st.sampled_from(PARSERS), st.one_of(st.text(), st.integers(), st.floats(), st.none(), st.lists(st.text())))
def test_a_parser_gives_a_value_or_says_what_is_allowed(parser, value):
    try:
        parser(value)
    except ValueError as error:
        assert str(error)


def test_the_known_part_of_a_list_is_kept():
    with pytest.raises(PartlyGood) as told:
        choices("a", "b")("a,zipkin")
    assert told.value.good == ("a",)


def test_the_first_variable_that_can_be_used_counts(caplog):
    field = Field(("FIRST", "SECOND"), number(0, 10))
    assert Reader({"FIRST": "1", "SECOND": "2"}).read(field) == 1
    assert Reader({"FIRST": "  ", "SECOND": "2"}).read(field) == 2
    assert Reader({}).read(field) is None
    assert caplog.records == []
    assert Reader({"FIRST": "x", "SECOND": "2"}).read(field) == 2
    assert [record.getMessage() for record in caplog.records] == [
        "FIRST = 'x': it must be a number from 0 to 10; it is ignored"
    ]


def test_a_variable_that_is_read_twice_is_one_warning(caplog):
    reader = Reader({"FIRST": "x"})
    for _ in range(3):
        assert reader.read(Field(("FIRST",), flag)) is None
    assert len(caplog.records) == 1


def test_secrets_are_shown_by_no_warning_and_no_error(caplog):
    field = Field(("HEADERS",), choice("a"), secret=True)
    assert Reader({"HEADERS": "canary"}).read(field) is None
    with pytest.raises(ConfigError) as told:
        check("headers", "canary", field)
    urls = Field(("URL",), choice("a"))
    assert Reader({"URL": "http://user:canary@host/"}).read(urls) is None
    assert "canary" not in caplog.text + str(told.value)
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2


def test_an_argument_is_checked_as_a_variable_is():
    assert check("ratio", 0.5, Field((), number(0, 1))) == 0.5
    with pytest.raises(ConfigError, match="^ratio = '2': it must be a number from 0 to 1$"):
        check("ratio", "2", Field((), number(0, 1)))
    with pytest.raises(ConfigError, match="^ratio = list"):
        check("ratio", ["canary"], Field((), number(0, 1)))


def test_a_secret_stays_one():
    known = Secret("k")
    assert secret(known) is known
    assert secret("k") == known
