"""What the tests of metrics share: pages as prometheus_client reads them, and children for what might hang."""

import json
import math
import subprocess
import sys
import textwrap
from typing import NamedTuple

from prometheus_client.openmetrics import parser as openmetrics_parser
from prometheus_client.parser import text_string_to_metric_families


class Read(NamedTuple):
    """One family as a parser saw it. Samples: (name, labels) -> value; exemplars: the same -> (labels, value)."""

    type: str
    help: str
    unit: str
    samples: dict
    exemplars: dict


def read_families(families, *, created=True):
    found = {}
    for family in families:
        samples, exemplars = {}, {}
        for sample in family.samples:
            if sample.name.endswith("_created") and not created:
                continue
            key = (sample.name, tuple(sorted(sample.labels.items())))
            assert key not in samples, f"{key} twice"
            samples[key] = sample.value
            if sample.exemplar is not None:
                exemplars[key] = (dict(sample.exemplar.labels), sample.exemplar.value)
        assert family.name not in found, f"{family.name} twice"
        found[family.name] = Read(family.type, family.documentation, family.unit, samples, exemplars)
    return found


def read_page(page, *, openmetrics=False, created=True):
    """The families of a page. The parsers refuse what a scraper would."""
    parse = openmetrics_parser.text_string_to_metric_families if openmetrics else text_string_to_metric_families
    return read_families(parse(page.decode("utf-8")), created=created)


def values_of(registry, name, *, openmetrics=False):
    """The samples of one family by their labels' text: {"": 1.0} or {"a=x,b=y": 1.0}; for counters and gauges."""
    read = read_page(registry.text(openmetrics=openmetrics), openmetrics=openmetrics, created=False)
    return {",".join(f"{k}={v}" for k, v in labels): value for (_, labels), value in read[name].samples.items()}


def assert_same(ours, theirs):
    """Equal families, types, help, units and samples; sums of floats may differ in their last digits."""
    assert set(ours) == set(theirs)
    for name, read in ours.items():
        other = theirs[name]
        assert read[:3] == other[:3]
        assert set(read.samples) == set(other.samples)
        for key, value in read.samples.items():
            if key[0].endswith(("_bucket", "_count")):
                assert value == other.samples[key], key
            elif not key[0].endswith("_created"):
                assert math.isclose(value, other.samples[key], rel_tol=1e-9, abs_tol=1e-9), key
        assert read.exemplars == other.exemplars


def in_child(code, *arguments, timeout=60):
    """What a program prints last, as JSON. A program that hangs is killed, and fails the test."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", textwrap.dedent(code), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Exception ignored" not in done.stderr, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])
