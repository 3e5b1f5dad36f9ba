"""Names of metrics and labels: what Prometheus accepts, and how OpenTelemetry's and its names make each other.

The rules are those of the OpenTelemetry specification, "Prometheus and OpenMetrics compatibility": characters that
Prometheus does not know become `_`, runs of `_` become one, the unit's word is appended, counters end in `_total`.
"""

from __future__ import annotations

import re

NAME_LENGTH = 200

_NOT_IN_NAME = re.compile(r"[^a-zA-Z0-9_:]+")
_NOT_IN_LABEL = re.compile(r"[^a-zA-Z0-9_]+")
_RUNS = re.compile(r"__+")
_ANNOTATION = re.compile(r"\{[^}]*\}")

# UCUM symbol (OpenTelemetry) -> word (Prometheus).
UNIT_WORDS = {
    "d": "days",
    "h": "hours",
    "min": "minutes",
    "s": "seconds",
    "ms": "milliseconds",
    "us": "microseconds",
    "ns": "nanoseconds",
    "By": "bytes",
    "KiBy": "kibibytes",
    "MiBy": "mebibytes",
    "GiBy": "gibibytes",
    "TiBy": "tebibytes",
    "KBy": "kilobytes",
    "MBy": "megabytes",
    "GBy": "gigabytes",
    "TBy": "terabytes",
    "m": "meters",
    "V": "volts",
    "A": "amperes",
    "J": "joules",
    "W": "watts",
    "g": "grams",
    "Cel": "celsius",
    "Hz": "hertz",
    "%": "percent",
}
_UNIT_SYMBOLS = {word: symbol for symbol, word in UNIT_WORDS.items()}
_PER_WORDS = {"s": "second", "min": "minute", "h": "hour", "d": "day", "wk": "week", "mo": "month", "a": "year"}


def clean_name(name: str) -> str:
    """`name` with what Prometheus does not accept in a metric's name made `_`; a colon is kept, as rules use it."""
    return _valid_start(_NOT_IN_NAME.sub("_", name[:NAME_LENGTH]))


def clean_label(name: str) -> str:
    """`name` as a label of Prometheus: as `clean_name`, without colons; names in `__` are Prometheus's own."""
    cleaned = _NOT_IN_LABEL.sub("_", name[:NAME_LENGTH])
    if cleaned.startswith("__"):
        cleaned = "_" + cleaned.lstrip("_")
    return _valid_start(cleaned)


def _valid_start(name: str) -> str:
    return f"_{name}" if not name or name[0].isdigit() else name


def unit_word(unit: str) -> str:
    """A unit as Prometheus writes it (`s` is seconds, `By/s` bytes_per_second, `{token}` nothing)."""
    bare = _ANNOTATION.sub("", unit).strip()
    if bare in ("", "1"):
        return ""
    main, slash, per = bare.partition("/")
    word = UNIT_WORDS.get(main, main) if main != "1" else ""
    if slash:
        word = f"{word}_per_{_PER_WORDS.get(per, per)}" if word else f"per_{_PER_WORDS.get(per, per)}"
    return _RUNS.sub("_", _NOT_IN_LABEL.sub("_", word)).strip("_")


def unit_symbol(unit: str) -> str:
    """A unit as OpenTelemetry writes it (UCUM): `seconds` is s; a word that UCUM does not know is an annotation."""
    if not unit or unit in UNIT_WORDS or unit == "1" or "{" in unit or "/" in unit:
        return unit
    return _UNIT_SYMBOLS.get(unit, f"{{{unit}}}")


def prometheus_name(name: str, unit: str, kind: str) -> str:
    """The Prometheus name of an OpenTelemetry metric; `kind` is counter, gauge, up_down_counter or histogram."""
    words = [word for word in clean_name(name.replace(":", "_")).split("_") if word]
    suffix = unit_word(unit)
    if kind == "gauge" and unit == "1":
        suffix = "ratio"
    if kind == "counter":
        words = [word for word in words if word != "total"]
    ending = suffix.split("_") if suffix else []
    if ending and not any(words[at : at + len(ending)] == ending for at in range(len(words))):
        words += ending
    base = _valid_start("_".join(words))
    return f"{base}_total" if kind == "counter" else base


def otlp_name(name: str, unit: str, kind: str) -> str:
    """The OpenTelemetry name that `prometheus_name` makes `name` of again, where `name` follows the conventions."""
    if kind == "counter":
        name = name.removesuffix("_total")
    word = unit_word(unit_symbol(unit))
    shorter = name.removesuffix(f"_{word}") if word else name
    return shorter or name


def seconds_name(name: str) -> str:
    """What a timer's metric is called on /metrics that nobody defined: its name, and the unit."""
    exposed = exposed_name(name, "", "histogram")
    return exposed if exposed.endswith("_seconds") else f"{exposed}_seconds"


def exposed_name(name: str, unit: str, kind: str) -> str:
    """What a metric recorded as `name` is called on /metrics.

    A dotted name is OpenTelemetry's and follows its rules; any other is kept, but for what Prometheus does not accept,
    and for the `_total` of counters.
    """
    if "." in name:
        return prometheus_name(name, unit, kind)
    cleaned = clean_name(name)
    if kind == "counter" and (not cleaned.endswith("_total") or cleaned == "_total"):
        return f"{cleaned}_total"
    return cleaned
