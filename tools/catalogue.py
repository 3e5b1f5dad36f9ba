"""Prints docs/catalogue.md, which is made of the table in src/tellmeter/registry/catalogue.py: `make docs`."""

from __future__ import annotations

import sys

from tellmeter.registry.catalogue import CATALOGUE, CLIENT_METRICS, LLM_METRICS
from tellmeter.registry.definition import MetricDefinition

HEAD = """\
# Catalogue of metrics

<!-- Made by `make docs` from src/tellmeter/registry/catalogue.py: do not edit. -->

Record under any name in this table; the page has the name that follows Prometheus' conventions. A metric is on it once
it was recorded. Labels that a recording leaves out are empty.
"""
LLM = """
## LLM calls

Fed by every call that tellmeter sees. `MetricsConfig(label_tags=[...])` adds tags as labels.
"""
CLIENT = """
## LLMClient

Fed by every `LLMClient`; where several have a circuit breaker for one provider, the page shows the worst of them.
"""
OTHERS = """
## For your own code

Recorded by you, by [decorators and middleware](metrics.md), or by `track_system()`.
"""


def main() -> None:
    """Write the page to standard output."""
    sys.stdout.write(HEAD)
    sys.stdout.write(LLM)
    sys.stdout.writelines(table(LLM_METRICS))
    sys.stdout.write(CLIENT)
    sys.stdout.writelines(table(CLIENT_METRICS))
    sys.stdout.write(OTHERS)
    sys.stdout.writelines(table(tuple(one for one in CATALOGUE if one not in (*LLM_METRICS, *CLIENT_METRICS))))


def table(definitions: tuple[MetricDefinition, ...]) -> list[str]:
    """The rows of a table."""
    rows = ["\n| metric | on the page | type | labels | buckets | |\n", "| --- | --- | --- | --- | --- | --- |\n"]
    for one in definitions:
        names = ", ".join(f"`{name}`" for name in (one.name, *one.aliases))
        labels = ", ".join(f"`{label}`" for label in one.labels)
        buckets = f"{one.buckets[0]:g} to {one.buckets[-1]:g}" if one.buckets else ""
        exposed = "" if one.exposed == one.name else f"`{one.exposed}`"
        rows.append(f"| {names} | {exposed} | {one.type.value} | {labels} | {buckets} | {one.description} |\n")
    return rows


if __name__ == "__main__":
    main()
