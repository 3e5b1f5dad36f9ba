"""Rules as the YAML that Prometheus reads. Written by hand: so little is not worth a YAML library."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from textwrap import indent

from .rules import Alert, Group, Recording


def rules_text(groups: Iterable[Group], *, heading: str = "") -> str:
    """A rules file. Every line of `heading` becomes a comment."""
    lines = [f"# {line}".rstrip() for line in heading.splitlines()]
    lines.append("groups:")
    for group in groups:
        lines += [f"  - name: tellmeter-{group.name}", "    rules:"]
        for rule in group.rules:
            lines += _recording(rule) if isinstance(rule, Recording) else _alert(rule)
    return "\n".join(lines) + "\n"


def _recording(rule: Recording) -> Iterator[str]:
    yield f"      - record: {rule.record}"
    yield from _expression(rule.expr)


def _alert(rule: Alert) -> Iterator[str]:
    yield f"      - alert: {rule.name}"
    yield from _expression(rule.expr)
    yield f"        for: {rule.for_}"
    yield "        labels:"
    yield f"          severity: {rule.severity}"
    yield "        annotations:"
    # JSON's strings are YAML's, whatever is in them.
    yield f"          summary: {json.dumps(rule.summary)}"
    yield f"          description: {json.dumps(rule.description)}"


def _expression(expr: str) -> Iterator[str]:
    yield "        expr: |-"  # a block takes any text as it is; in one line, braces and colons would mean something
    yield indent(expr, " " * 10)
