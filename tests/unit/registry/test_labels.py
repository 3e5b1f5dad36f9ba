from collections import ChainMap, defaultdict
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tellmeter.registry.definition import MetricDefinition
from tellmeter.registry.labels import (
    bucket_labels,
    clean_value,
    escape,
    help_text,
    label_names,
    label_text,
    sorted_out,
)
from tests.support.hostile import BROKEN, LIMIT, VALUES, Colour, Liar


@pytest.mark.parametrize(("value", "text"), VALUES)
def test_any_value_becomes_a_clean_plain_text(value, text):
    cleaned = clean_value(value, LIMIT)
    assert cleaned == text and type(cleaned) is str
    assert sorted_out(["a"], {"a": value}, LIMIT)[0] == (text,)


@given(st.text() | st.integers() | st.floats() | st.binary() | st.none())
def test_a_cleaned_value_is_utf8_without_control_characters_and_stays_as_it_is(value):
    cleaned = clean_value(value, LIMIT)
    assert cleaned.encode("utf-8") is not None
    assert len(cleaned) <= LIMIT
    assert not any(ord(char) < 32 and char not in "\t\n" for char in cleaned)
    assert clean_value(cleaned, LIMIT) == cleaned


@pytest.mark.security(4)
def test_labels_are_taken_in_the_order_of_their_declaration():
    assert sorted_out(["a", "b"], {"b": "2", "a": "1"}, LIMIT) == (("1", "2"), set())


@pytest.mark.parametrize(
    ("labels", "values", "faults"),
    [
        (None, ("", ""), {"missing"}),
        ({}, ("", ""), {"missing"}),
        ({"a": "1"}, ("1", ""), {"missing"}),
        ({"a": "1", "b": "2", "c": "3"}, ("1", "2"), {"undeclared"}),
        ({"a": "1", "c": "3"}, ("1", ""), {"missing", "undeclared"}),
        ({"a": "1", 7: "3"}, ("1", ""), {"missing", "undeclared"}),
        ({"a": "1", "b": "2" * 200}, ("1", "2" * LIMIT), {"cleaned"}),
        ({"a": "\x00", "b": ""}, ("\ufffd", ""), {"cleaned"}),
        ([("a", "1")], ("", ""), {"not_a_mapping"}),
        ("ab", ("", ""), {"not_a_mapping"}),
        (0, ("", ""), {"not_a_mapping"}),
        (object(), ("", ""), {"not_a_mapping"}),
    ],
)
def test_what_is_wrong_with_labels_is_told_and_the_rest_is_kept(labels, values, faults):
    assert sorted_out(["a", "b"], labels, LIMIT) == (values, faults)


@pytest.mark.parametrize("make", [dict, MappingProxyType, ChainMap, lambda given: defaultdict(str, given)])
def test_any_mapping_will_do(make):
    assert sorted_out(["a", "b"], make({"a": "1", "b": "2"}), LIMIT) == (("1", "2"), set())


@pytest.mark.parametrize("broken", BROKEN)
def test_a_mapping_that_raises_is_none(broken):
    assert sorted_out(["a"], Liar(broken), LIMIT) == (("",), {"not_a_mapping"})


@pytest.mark.parametrize("broken", BROKEN)
def test_the_names_in_a_mapping_that_raises_are_none_or_those_it_gave(broken):
    assert label_names(Liar(broken)) in ([], ["a"])


def test_names_for_labels_are_those_that_a_metric_can_have():
    given_labels = {"a.b": 1, "a-b": 2, "": 3, 7: 4, "__name__": 5, "le": 6, Colour.RED: 7}
    assert label_names(given_labels) == ["a.b", "le", "red"]
    assert label_names(given_labels, reserved=("le",)) == ["a.b", "red"]
    assert label_names(None) == label_names("ab") == label_names([("a", 1)]) == []


def test_escapes_are_those_of_the_text_formats():
    assert escape('a\\b\n"c"', quote=True) == 'a\\\\b\\n\\"c\\"'
    assert escape('a\\b\n"c"', quote=False) == 'a\\\\b\\n"c"'
    assert escape("\ud800\x00\t", quote=False) == "\ufffd\ufffd\t"


def test_labels_are_written_in_order_between_quotes():
    assert label_text(("a", "b"), ('x"y', "")) == 'a="x\\"y",b=""'
    assert label_text((), ()) == ""


@pytest.mark.parametrize(
    ("bound", "text"),
    [
        (0.005, "0.005"),
        (1.0, "1.0"),
        (100000.0, "100000.0"),
        (1e6, "1e+06"),
        (1234567.0, "1.234567e+06"),
        (1234567.5, "1.2345675e+06"),
        (-2.5e7, "-2.5e+07"),
        (4.0**15, "1.073741824e+09"),
        (1e16, "1e+16"),
        (1e-7, "1e-07"),
    ],
)
def test_bounds_are_written_as_prometheus_compares_them(bound, text):
    assert bucket_labels([bound]) == (text, "+Inf")
    assert float(text) == bound


def test_every_metric_has_a_help_line():
    assert help_text(MetricDefinition("jobs", "counter", "a\\b\nc")) == "a\\\\b\\nc"
    assert help_text(MetricDefinition("jobs", "counter")).startswith("jobs ")
