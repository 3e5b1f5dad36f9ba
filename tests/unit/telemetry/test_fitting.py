import decimal
import math

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans

from tellmeter.counts import snapshot
from tellmeter.telemetry import tracing
from tellmeter.telemetry.fitting import fit_attributes, fit_text, fit_value
from tests.support.hostile import BROKEN, Colour, Level, Liar, Number, Raising
from tests.support.tracing import recorded


class Prompt:
    def __str__(self):
        return "the prompt"


@pytest.mark.parametrize(
    ("value", "fit"),
    [
        ("text", "text"),
        (True, True),
        (7, 7),
        (1.5, 1.5),
        (Colour.RED, "red"),
        (Level.HIGH, "high"),
        (Number.ONE, 1),
        (numpy.int32(3), 3),
        (numpy.float32(0.5), 0.5),
        (decimal.Decimal("1.5"), 1.5),
        (2**63, "int"),
        (10**5000, "int"),
        ("a\ud800b", "a\ufffdb"),
        ("x" * 5000, "x" * 4096),
        (["a", "b"], ["a", "b"]),
        ((1, 2), [1, 2]),
        ([1, 2.5], [1.0, 2.5]),
        ([1, "a", True], ["1", "a", "True"]),
        ([], []),
        (list(range(1000)), list(range(128))),
        ([Prompt(), "a"], ["Prompt", "a"]),
        (Prompt(), "Prompt"),
        ({"prompt": "secret"}, "dict"),
        (b"secret", "bytes"),
        (ValueError("secret"), "ValueError"),
        (Raising(), "Raising"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_values_fit(value, fit):
    found = fit_value(value)
    assert found == fit
    assert type(found) is type(fit)


def test_no_number_is_no_error():
    assert math.isnan(fit_value(math.nan))
    assert fit_value(numpy.zeros(3)) == "ndarray"


def test_attributes_without_a_value_or_a_name_are_left_out():
    assert fit_attributes({"a": 1, "b": None, "": 2, 3: 4}) == {"a": 1}
    assert fit_attributes(None) == {}
    assert len(fit_attributes({str(number): number for number in range(1000)})) == 128


def test_what_is_no_mapping_or_a_broken_one_is_counted():
    before = snapshot().get("guarded_errors", {}).get("span_attributes", 0)
    assert fit_attributes("text") == {}
    for broken in BROKEN:
        fit_attributes(Liar(broken))
    assert snapshot()["guarded_errors"]["span_attributes"] > before


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.builds(Prompt),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=2),
    max_leaves=8,
)


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.text(st.characters()), ANYTHING, max_size=5), st.text(st.characters()))
def test_exporters_can_write_whatever_was_given(attributes, text):
    with recorded() as spans, tracing.start_span(text, attributes=attributes) as span:
        tracing.set_span_attributes(attributes)
        tracing.add_span_event(text, attributes)
        span.end()
        encode_spans(spans.all).SerializeToString()
    assert "the prompt" not in str([each.attributes for each in spans.all])


@given(st.text(st.characters()))
def test_texts_are_valid_utf_8(text):
    fit_text(text).encode()
