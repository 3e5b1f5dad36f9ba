"""OpenTelemetry: a call with its span beside other instrumentations, and an export of 10,000 series beside the SDK's.

    python benchmarks/otel.py [--rounds 7] [--only calls|export]

Calls are measured as `call_overhead.py` does. The export is that of the registry over OTLP, beside the SDK's own reader.
Ten metrics of 1,000 series with three labels each. A recording of ours waits to be added up by whoever reads, and the
SDK adds at once: "record in each and collect" is what a program pays for both. Where nothing is new, the SDK has no
series left under delta, and we look through ours. "encode" is what the public exporter does with the data of either,
where it is installed. CPU time of one thread; the median of rounds in which both take turns, and the quartiles.
"""

from __future__ import annotations

import argparse
import gc
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

from _harness import frozen, middle, ratio
from _metric_subjects import BOUNDS, NAMES, UNLIMITED, many_labels
from opentelemetry.sdk.metrics import Counter, Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    InMemoryMetricReader,
    MetricsData,
    ResourceMetrics,
    ScopeMetrics,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from tellmeter import MetricsRegistry
from tellmeter.telemetry.points import Points

try:
    from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
except ImportError:  # no exporter is installed here: the encoding is left out
    encode_metrics = None

ROUNDS = 15
METRICS, SERIES = 10, 1000
CUMULATIVE, DELTA = AggregationTemporality.CUMULATIVE, AggregationTemporality.DELTA


def ours(kind: str, temporality: AggregationTemporality):
    registry = MetricsRegistry(max_series=UNLIMITED)
    record = []
    for index in range(METRICS):
        name = f"made{index}"
        if kind == "counters":
            metric, method = registry.counter(name, "d", NAMES), "inc"
        else:
            metric, method = registry.histogram(name, "d", NAMES, buckets=BOUNDS), "observe"
        record += [getattr(metric.labels(**labels), method) for labels in many_labels(SERIES)]
    points = Points([registry], delta=temporality is DELTA)
    return (lambda: [one(0.3) for one in record]), points.collect


def theirs(kind: str, temporality: AggregationTemporality):
    reader = InMemoryMetricReader({Counter: temporality, Histogram: temporality})
    meter = MeterProvider([reader], shutdown_on_exit=False).get_meter("made")
    attributes = many_labels(SERIES)
    record = []
    for index in range(METRICS):
        if kind == "counters":
            act = meter.create_counter(f"made{index}").add
        else:
            act = meter.create_histogram(f"made{index}", explicit_bucket_boundaries_advisory=BOUNDS).record
        record.append(act)
    return (lambda: [act(0.3, one) for act in record for one in attributes]), reader.get_metrics_data


def rounds(before, acts):
    """Milliseconds of each subject's act, a list of one figure a round; what comes before it is not measured."""
    found = {name: [] for name in acts}
    for name, act in acts.items():
        before[name]()
        act()
    with frozen():
        for _ in range(ROUNDS):
            for name, act in acts.items():
                before[name]()
                gc.collect()
                started = time.process_time()
                act()
                found[name].append((time.process_time() - started) * 1e3)
    return found


def encoding(collect):
    """As an exporter: the bytes that are sent."""
    metrics = collect()
    if isinstance(metrics, list):
        scope = ScopeMetrics(InstrumentationScope("made"), metrics, "")
        metrics = MetricsData([ResourceMetrics(Resource({}), [scope], "")])
    return encode_metrics(metrics).SerializeToString()


CALLS = ("tellmeter", "tellmeter, spans", "tellmeter, live spans", "opentelemetry genai-openai", "openllmetry")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", choices=["calls", "export"])
    options = parser.parse_args()
    if options.only != "export":
        program = Path(__file__).with_name("call_overhead.py")
        asked = [sys.executable, str(program), "--rounds", str(options.rounds), "--only", ";".join(CALLS)]
        subprocess.run(asked, check=True)
        print()
    if options.only != "calls":
        export()


def export() -> None:
    print(f"{'10,000 series, ms of CPU':52}{'tellmeter':>11}{'OpenTelemetry SDK':>22}")
    for temporality, word in ((CUMULATIVE, "cumulative"), (DELTA, "delta")):
        for kind in ("counters", "histograms"):
            subjects = {"ours": ours(kind, temporality), "theirs": theirs(kind, temporality)}
            record = {name: subject[0] for name, subject in subjects.items()}
            collect = {name: subject[1] for name, subject in subjects.items()}
            nothing = dict.fromkeys(subjects, int)
            show(f"{word} {kind}: collect what is new in each", rounds(record, collect))
            show("  collect where nothing is new", rounds(nothing, collect))
            show(
                "  record in each and collect",
                rounds(nothing, {name: partial(both, *subjects[name]) for name in subjects}),
            )
            if encode_metrics is not None:
                whole = {name: partial(encoding, act) for name, act in collect.items()}
                show("  collect what is new in each, and encode", rounds(record, whole))


def both(record, collect):
    record()
    collect()


def show(what, found) -> None:
    times, spread = ratio(found["theirs"], found["ours"])
    print(f"{what:52}{middle(found['ours']):11.1f}{middle(found['theirs']):9.1f} {times:5.3g}x {spread}", flush=True)


if __name__ == "__main__":
    main()
