"""The same recordings through prometheus_client and through us: both pages must say the same to its parsers."""

import contextlib
import math
from decimal import Decimal
from typing import NamedTuple

import numpy
import prometheus_client
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

from tellmeter.errors import MetricError
from tellmeter.registry.definition import GAUGE_MODES, MetricDefinition, MetricType
from tellmeter.registry.registry import MetricsRegistry
from tests.support.hostile import BROKEN, VALUES, Liar
from tests.support.metrics import assert_same, read_families, read_page

# ---------------------------------------------------------------------- what prometheus_client accepts too

clean = st.characters(exclude_categories=("Cs", "Cc"))
texts = st.text(clean | st.sampled_from('\n\t\\"{}=,# '), max_size=20)
endings = st.from_regex(r"[a-zA-Z0-9_]{0,12}", fullmatch=True).filter(
    lambda text: not text.endswith(("_total", "_created", "_info", "_seconds"))
)
label_names = st.from_regex(r"(?!__)[a-zA-Z_][a-zA-Z0-9_]{0,8}", fullmatch=True).filter(lambda name: name != "le")
eighths = st.integers(0, 10**6).map(lambda number: number / 8)  # their sums are exact
amounts = eighths | st.floats(0, 1e6) | st.integers(0, 10**6)
bounds = st.lists(st.floats(0, 1e9), min_size=1, max_size=12, unique=True).map(sorted)
exemplars = st.none() | st.fixed_dictionaries(
    # Their parser does not know escapes and braces there.
    {"trace_id": st.text(st.characters(exclude_categories=("Cs", "Cc"), exclude_characters='\\"{}#'), max_size=30)}
)


class Metric(NamedTuple):
    kind: str
    name: str
    help: str
    labels: list
    unit: str
    buckets: list


class Step(NamedTuple):
    metric: int
    values: list
    amount: float
    gauge: str
    exemplar: dict | None
    bound: bool


@st.composite
def metrics(draw):
    made = []
    for index in range(draw(st.integers(1, 4))):
        unit = draw(st.sampled_from(["", "", "seconds"]))
        made.append(
            Metric(
                draw(st.sampled_from(["counter", "gauge", "histogram"])),
                f"m{index}_{draw(endings)}{f'_{unit}' if unit else ''}",
                draw(texts.filter(bool)),
                draw(st.lists(label_names, max_size=3, unique=True)),
                unit,
                draw(bounds),
            )
        )
    return made


steps = st.lists(
    st.builds(
        Step,
        metric=st.integers(0, 3),
        values=st.lists(texts, min_size=3, max_size=3) | st.just(["a", "b", "c"]),
        amount=amounts,
        gauge=st.sampled_from(["set", "inc", "dec"]),
        exemplar=exemplars,
        bound=st.booleans(),
    ),
    max_size=25,
)


@pytest.fixture(scope="module", autouse=True)
def no_created():
    prometheus_client.disable_created_metrics()
    yield
    prometheus_client.enable_created_metrics()


def recorded(given_metrics, given_steps):
    """Our registry and theirs with the same recordings."""
    ours, theirs = MetricsRegistry(), prometheus_client.CollectorRegistry()
    handles = []
    for metric in given_metrics:
        kind = {"counter": prometheus_client.Counter, "gauge": prometheus_client.Gauge}.get(metric.kind)
        shape = {"labelnames": metric.labels, "unit": metric.unit, "registry": theirs}
        if kind is None:
            kind = prometheus_client.Histogram
            shape["buckets"] = metric.buckets
        handles.append(kind(metric.name, metric.help, **shape))
        ours.register_metric(
            MetricDefinition(metric.name, metric.kind, metric.help, metric.unit, metric.labels, metric.buckets)
        )
    for step in given_steps:
        metric = given_metrics[step.metric % len(given_metrics)]
        handle = handles[step.metric % len(given_metrics)]
        values = step.values[: len(metric.labels)]
        child = handle.labels(*values) if values else handle
        labels = dict(zip(metric.labels, values, strict=True))
        bound = getattr(ours, metric.kind)(metric.name).labels(*values)
        if metric.kind == "gauge":
            getattr(child, step.gauge)(step.amount)
            if step.bound:
                getattr(bound, step.gauge)(step.amount)
            else:
                by_name = {"set": ours.set_gauge, "inc": ours.increment_gauge, "dec": ours.decrement_gauge}
                by_name[step.gauge](metric.name, step.amount, labels)
            continue
        method = "inc" if metric.kind == "counter" else "observe"
        getattr(child, method)(step.amount, step.exemplar)
        if step.bound or step.exemplar is not None:
            getattr(bound, method)(step.amount, step.exemplar)
        else:
            {"inc": ours.increment, "observe": ours.observe}[method](metric.name, step.amount, labels)
    return ours, theirs


@given(metrics(), steps)
def test_our_pages_say_what_theirs_say(given_metrics, given_steps):
    ours, theirs = recorded(given_metrics, given_steps)
    assert_same(read_page(ours.text()), read_page(prometheus_client.generate_latest(theirs)))
    assert_same(
        read_page(ours.text(openmetrics=True), openmetrics=True, created=False),
        read_page(generate_openmetrics(theirs), openmetrics=True),
    )


@given(metrics(), steps)
def test_what_we_hand_to_their_registry_is_what_theirs_has(given_metrics, given_steps):
    ours, theirs = recorded(given_metrics, given_steps)
    assert_same(read_families(ours.collect(), created=False), read_families(theirs.collect()))
    outer = prometheus_client.CollectorRegistry()
    outer.register(ours)
    assert_same(
        read_page(generate_openmetrics(outer), openmetrics=True, created=False),
        read_page(generate_openmetrics(theirs), openmetrics=True),
    )


@given(metrics(), steps)
def test_their_registry_on_our_page_says_what_theirs_says(given_metrics, given_steps):
    _, theirs = recorded(given_metrics, given_steps)
    page = MetricsRegistry()
    page.add_source(theirs)
    assert_same(read_page(page.text()), read_page(prometheus_client.generate_latest(theirs)))
    assert_same(
        read_page(page.text(openmetrics=True), openmetrics=True),
        read_page(generate_openmetrics(theirs), openmetrics=True),
    )


# ---------------------------------------------------------------------- what only we accept

chaos = st.text(st.characters() | st.sampled_from('\n\r\t\x00\\"{}=,#. _:\ud800\u2028'), max_size=12)
few_names = st.sampled_from(["a", "a_total", "a.b", "a_b", "b_seconds", "b", "b_bucket", ".", "total", "_total", "le"])
any_value = st.one_of(
    st.floats(),
    st.integers(),
    st.booleans(),
    st.none(),
    chaos,
    st.decimals(),
    st.fractions(),
    st.complex_numbers(),
    st.binary(max_size=3),
    st.sampled_from(
        [numpy.float32(1.5), numpy.int8(100), numpy.array([1.0, 2.0]), numpy.array(1.0), 10**400, object()]
    ),
    st.sampled_from([Decimal("sNaN"), math.inf, -math.inf, math.nan, 1e308, -1e308, 10**308]),
)
label_values = chaos | any_value | st.sampled_from([one[0] for one in VALUES if isinstance(one, tuple)])
any_labels = (
    st.none()
    | st.dictionaries(chaos | few_names | st.integers(), label_values, max_size=4)
    | st.builds(Liar, st.sampled_from(BROKEN))
    | st.lists(chaos)
)
calls = st.lists(
    st.tuples(
        st.sampled_from(["increment", "observe", "set_gauge", "increment_gauge", "decrement_gauge", "record", "timer"]),
        chaos | few_names,
        any_value,
        any_labels,
    ),
    max_size=15,
)
any_definitions = st.lists(
    st.fixed_dictionaries(
        {"name": chaos | few_names, "type": st.sampled_from(list(MetricType))},
        optional={
            "description": chaos,
            "unit": chaos | st.sampled_from(["s", "By", "1", "%", "total", "seconds"]),
            "labels": st.lists(chaos | few_names, max_size=3),
            "buckets": st.lists(st.floats(-1e9, 1e9), max_size=4, unique=True).map(sorted),
            "exposed": chaos | few_names,
            "aliases": st.lists(chaos | few_names, max_size=2),
            "gauge_mode": st.sampled_from(GAUGE_MODES),
        },
    ),
    max_size=4,
)


def read_every_way(registry):
    names = set()
    for openmetrics in (False, True):
        read = read_page(registry.text(openmetrics=openmetrics), openmetrics=openmetrics)
        names.add(frozenset(read))
    assert len(names) == 1
    outer = prometheus_client.CollectorRegistry()
    outer.register(registry)
    read_page(prometheus_client.generate_latest(outer))
    if not any(":" in name for name in next(iter(names))):  # their OpenMetrics writer loses colons in samples
        assert set(read_page(generate_openmetrics(outer), openmetrics=True)) in names
    for told in registry.get_all_metrics().values():
        assert told["stats"]["count"] >= 0


@settings(max_examples=200)
@given(any_definitions, calls, st.integers(0, 5))
def test_whatever_is_recorded_nothing_raises_and_every_page_can_be_read(definitions, given_calls, max_series):
    registry = MetricsRegistry(max_series=max_series)
    for fields in definitions:
        with contextlib.suppress(MetricError):
            registry.register_metric(MetricDefinition(**fields))
    for method, name, value, labels in given_calls:
        if method == "timer":
            with registry.timer(name, labels):
                pass
        else:
            getattr(registry, method)(name, value, labels)
    read_every_way(registry)
    for method, name, value, labels in given_calls:
        if method != "timer":
            getattr(registry, method)(name, value, labels)
    read_every_way(registry)
    registry.reset()
    read_every_way(registry)
