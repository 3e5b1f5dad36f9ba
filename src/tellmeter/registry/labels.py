"""Label values: what a recording gives made fit for the page, and how the page writes them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from .definition import MetricDefinition
from .names import clean_label

# A newline or tab in a value is fine, and written as it must be; other control characters and lone surrogates are not.
_UNCLEAN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def clean_value(value: object, limit: int) -> str:
    """`value` as a label's value: a text of at most `limit` characters that is valid UTF-8; None is ""."""
    if value is None:
        return ""
    if type(value) is not str:
        try:
            # A text Enum is its value, and a text of another class a plain one.
            value = str.__str__(value if isinstance(value, str) else str(value))
        except Exception:
            return ""
    assert isinstance(value, str)
    value = value[:limit]
    return value if value.isprintable() else _UNCLEAN.sub("\ufffd", value)


def sorted_out(declared: Sequence[str], labels: Any, limit: int) -> tuple[tuple[str, ...], set[str]]:
    """The values of the declared labels, in their order, and what was wrong with what was given.

    The faults are missing, undeclared, not_a_mapping and cleaned.
    """
    if labels is None:
        labels = {}
    faults = set()
    values = []
    try:
        if not isinstance(labels, Mapping):
            return ("",) * len(declared), {"not_a_mapping"}
        for name in declared:
            if name not in labels:
                faults.add("missing")
                values.append("")
                continue
            given = labels[name]
            value = clean_value(given, limit)
            if type(given) is str and value != given:
                faults.add("cleaned")
            values.append(value)
        if len(labels) > len(declared) or any(name not in declared for name in labels):
            faults.add("undeclared")
    except Exception:  # a mapping with a mind of its own
        return ("",) * len(declared), {"not_a_mapping"}
    return tuple(values), faults


def label_names(labels: Any, reserved: Sequence[str] = ()) -> list[str]:
    """The names in `labels` that a metric can have as its labels; the first of those that are one on the page."""
    kept: dict[str, str] = {}
    try:
        for name in list(labels) if isinstance(labels, Mapping) else ():
            if isinstance(name, str) and name and not name.startswith("__") and clean_label(name) not in reserved:
                kept.setdefault(clean_label(name), str.__str__(name))
    except Exception:  # as above
        pass
    return list(kept.values())


def escape(text: str, *, quote: bool) -> str:
    """Backslash and newline as the text formats write them, and the quotation mark where it would end the text."""
    text = _UNCLEAN.sub("\ufffd", text).replace("\\", "\\\\").replace("\n", "\\n")
    return text.replace('"', '\\"') if quote else text


def label_text(names: Sequence[str], values: Sequence[str]) -> str:
    """Labels as a page writes them between the braces."""
    return ",".join(f'{name}="{escape(value, quote=True)}"' for name, value in zip(names, values, strict=True))


def help_text(definition: MetricDefinition) -> str:
    """What a metric's HELP line says, escaped as text 0.0.4 wants it; promtool asks for one on every metric."""
    return escape(definition.description or f"{definition.name} (no description was given)", quote=False)


def bucket_labels(bounds: Sequence[float]) -> tuple[str, ...]:
    """The values of `le` for a histogram's buckets, the one above all bounds included."""
    return (*map(_go_float, bounds), "+Inf")


def _go_float(bound: float) -> str:
    """A bucket's bound as Go writes it, which is how Prometheus compares them: 0.5, 10.0, 1e+06."""
    shown = repr(bound)
    whole, _, rest = shown.lstrip("-").partition(".")
    if "e" in shown or len(whole) < 7:
        return shown
    digits = (whole[1:] + rest).rstrip("0")
    sign = "-" if bound < 0 else ""
    return f"{sign}{whole[0]}{'.' if digits else ''}{digits}e+{len(whole) - 1:02d}"
