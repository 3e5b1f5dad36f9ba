import math
import re
import subprocess

import pytest

from tellmeter.registry.definition import MetricDefinition
from tellmeter.registry.registry import MetricsRegistry
from tellmeter.registry.text import LINES_A_PIECE, number, write
from tests.support.metrics import read_page
from tests.support.servers import require


@pytest.fixture
def registry():
    return MetricsRegistry()


def well_named():
    """One metric of each type, named as Prometheus advises."""
    registry = MetricsRegistry()
    for definition in (
        MetricDefinition("requests", "counter", "Requests that were answered.", labels=["model"]),
        MetricDefinition("open_requests", "gauge", "Requests under way.", labels=["model"]),
        MetricDefinition("gen_ai.client.operation.duration", "histogram", "Seconds a call takes.", "s", ["model"]),
        MetricDefinition("sent", "counter", 'Bytes, and a "\\" with\na new line.', "By", exposed="sent_bytes_total"),
        MetricDefinition("balance_bytes", "up_down_counter", "Bytes taken and given back.", "bytes"),
    ):
        registry.register_metric(definition)
        registry.record(definition.name, 1.5, dict.fromkeys(definition.labels, 'a"\\\n\u00e9'))
    return registry


PAGE = """\
# HELP c_total A counter with \\\\ and \\n in it, and "quotes"
# TYPE c_total counter
c_total{a="x\\"y\\\\z\\n",b=""} 3.0
# HELP g A gauge
# TYPE g gauge
g -0.5
# HELP h_seconds A histogram
# TYPE h_seconds histogram
h_seconds_bucket{a="x",le="0.5"} 1.0
h_seconds_bucket{a="x",le="1e+06"} 2.0
h_seconds_bucket{a="x",le="+Inf"} 3.0
h_seconds_count{a="x"} 3.0
h_seconds_sum{a="x"} 2000010.5
# HELP u An up_down_counter
# TYPE u gauge
u 2.0
"""
OPENMETRICS = """\
# HELP c A counter with \\\\ and \\n in it, and \\"quotes\\"
# TYPE c counter
c_total{a="x\\"y\\\\z\\n",b=""} 3.0
c_created{a="x\\"y\\\\z\\n",b=""} CREATED
# HELP g A gauge
# TYPE g gauge
g -0.5
# HELP h_seconds A histogram
# TYPE h_seconds histogram
# UNIT h_seconds seconds
h_seconds_bucket{a="x",le="0.5"} 1.0 # {trace_id="t\\"1"} 0.5 NOTED
h_seconds_bucket{a="x",le="1e+06"} 2.0
h_seconds_bucket{a="x",le="+Inf"} 3.0
h_seconds_count{a="x"} 3.0
h_seconds_sum{a="x"} 2000010.5
h_seconds_created{a="x"} CREATED
# HELP u An up_down_counter
# TYPE u gauge
u 2.0
# EOF
"""


def test_the_pages_are_what_the_formats_say(registry):
    registry.counter("c", 'A counter with \\ and \n in it, and "quotes"', labels=["a", "b"])
    registry.gauge("g", "A gauge", labels=[])
    registry.histogram("h_seconds", "A histogram", ["a"], "s", [0.5, 1e6])
    registry.register_metric(MetricDefinition("u", "up_down_counter", "An up_down_counter"))
    registry.increment("c", 3, {"a": 'x"y\\z\n', "b": ""})
    registry.set_gauge("g", -0.5)
    registry.increment_gauge("u", 2)
    for value in (10, 2_000_000):
        registry.observe("h_seconds", value, {"a": "x"})
    registry.histogram("h_seconds").labels("x").observe(0.5, {"trace_id": 't"1'})
    assert registry.text().decode() == PAGE
    page = re.sub(r"(_created\S*(?:\{.*\})?) [0-9.e+]+\n", r"\1 CREATED\n", registry.text(openmetrics=True).decode())
    assert re.sub(r"(# \{.*\} 0.5) [0-9.e+]+\n", r"\1 NOTED\n", page) == OPENMETRICS


def test_an_exemplar_is_shown_where_the_format_has_them(registry):
    registry.counter("c", labels=["a"]).labels("x").inc(2, {"trace_id": "abc"})
    spread = registry.histogram("h", labels=[], buckets=[1.0]).labels()
    spread.observe(0.5, {"trace_id": "low"})
    spread.observe(5, {"trace_id": "high"})
    read = read_page(registry.text(openmetrics=True), openmetrics=True)
    assert read["c"].exemplars == {("c_total", (("a", "x"),)): ({"trace_id": "abc"}, 2.0)}
    assert read["h"].exemplars == {
        ("h_bucket", (("le", "1.0"),)): ({"trace_id": "low"}, 0.5),
        ("h_bucket", (("le", "+Inf"),)): ({"trace_id": "high"}, 5.0),
    }
    assert b"trace_id" not in registry.text()


def test_created_is_when_the_series_was_made_and_in_openmetrics_only(registry):
    series = registry.counter("c", labels=["a"]).labels("x")
    spread = registry.histogram("h", labels=["a"]).labels("x")
    read = read_page(registry.text(openmetrics=True), openmetrics=True)
    assert read["c"].samples["c_created", (("a", "x"),)] == series.created
    assert read["h"].samples["h_created", (("a", "x"),)] == spread.created
    assert b"_created" not in registry.text()


def test_a_metric_without_series_or_description_has_its_head(registry):
    registry.counter("c", labels=["a"])
    page = registry.text().decode()
    assert page == "# HELP c_total c (no description was given)\n# TYPE c_total counter\n"
    assert read_page(registry.text(openmetrics=True), openmetrics=True)["c"].samples == {}


def test_a_unit_is_told_where_the_name_ends_in_it(registry):
    for name, unit in (
        ("a_seconds", "s"),
        ("b_seconds", "seconds"),
        ("c", "seconds"),
        ("d_bytes", "seconds"),
        ("e", "1"),
    ):
        registry.gauge(name, "G", unit=unit, labels=[])
    registry.counter("f_bytes", "C", unit="By", labels=[])
    units = {name: read.unit for name, read in read_page(registry.text(openmetrics=True), openmetrics=True).items()}
    assert units == {
        "a_seconds": "seconds",
        "b_seconds": "seconds",
        "c": "",
        "d_bytes": "",
        "e": "",
        "f_bytes": "bytes",
    }


def test_a_histogram_that_may_have_negative_values_has_no_sum_in_openmetrics(registry):
    for name, buckets, value in (("signed", [-1.0], 3), ("below", [0.0], -3), ("above", [0.0], 3)):
        registry.histogram(name, "H", labels=[], buckets=buckets).observe(value)
    for openmetrics in (False, True):
        read = read_page(registry.text(openmetrics=openmetrics), openmetrics=openmetrics)
        for name, value in (("signed", 3.0), ("below", -3.0), ("above", 3.0)):
            shown = [read[name].samples.get((f"{name}_{part}", ())) for part in ("sum", "count")]
            assert shown == ([None, None] if openmetrics and name != "above" else [value, 1.0])
    assert registry.get_metric_stats("below")["sum"] == -3.0


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0.0"),
        (3, "3.0"),
        (True, "1.0"),
        (-0.5, "-0.5"),
        (1e22, "1e+22"),
        (2**60, "1.152921504606847e+18"),
        (10**400, "+Inf"),
        (-(10**400), "-Inf"),
        (math.inf, "+Inf"),
        (-math.inf, "-Inf"),
        (math.nan, "NaN"),
        (5e-324, "5e-324"),
    ],
)
def test_numbers_are_written_as_both_formats_have_them(value, text):
    assert number(value) == text


def test_a_long_page_comes_in_pieces_that_make_the_whole(registry):
    family = registry.counter("c", "C", labels=["a"])
    registry.max_series = 10_000
    for index in range(3 * LINES_A_PIECE + 7):
        family.labels(str(index)).inc(index)
    registry.gauge("g", "G", labels=[])
    pieces = list(write(registry.families()))
    assert len(pieces) == 4 and all(piece.count(b"\n") <= LINES_A_PIECE + 2 for piece in pieces)
    assert b"".join(pieces) == registry.text()
    assert len(read_page(registry.text())["c"].samples) == 3 * LINES_A_PIECE + 7


def test_what_is_recorded_while_a_page_is_written_is_on_it_or_on_the_next(registry):
    family = registry.counter("c", "C", labels=["a"])
    for index in range(LINES_A_PIECE * 2):
        family.labels(str(index))
    page = write(registry.families())
    first = next(page)
    family.labels("new").inc()
    family.labels("0").inc()
    registry.increment("other", 1, {"b": "x"})
    rest = b"".join(page)
    assert b'a="0"} 0.0' in first and b"other" not in rest
    read_page(first + rest)
    assert b'a="0"} 1.0' in registry.text() and b'other_total{b="x"} 1.0' in registry.text()


def test_promtool_finds_nothing_to_complain_of():
    promtool = require("promtool")
    checked = subprocess.run(
        [promtool, "check", "metrics"], input=well_named().text(), capture_output=True, timeout=60, check=False
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")


def test_promtool_finds_what_is_wrong_with_a_page():
    """So that the test before this one means something."""
    promtool = require("promtool")
    checked = subprocess.run(
        [promtool, "check", "metrics"], input=b"# TYPE a counter\na 1\n", capture_output=True, timeout=60, check=False
    )
    assert checked.returncode != 0
