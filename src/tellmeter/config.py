"""MetricsConfig: every setting with its range, and the environment variables that fill it."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import msgspec

from .cleaning import clean_tags
from .errors import ConfigError
from .records import AgentMetrics

logger = logging.getLogger(__name__)


@runtime_checkable
class MetricsFilter(Protocol):
    """Decides which records are kept. Counters see every call all the same; a filter that raises keeps the record."""

    def should_collect(self, metric: AgentMetrics) -> bool:
        """Whether to keep this record."""


class MetricsConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How calls are metered. A bad value is one `ConfigError` that names field, value and range, when it is made.

    enabled: False makes neither records nor counts.
    batch_size, batch_timeout_seconds: a sink that does I/O gets a batch when this many records wait, or one waits
        this long.
    enable_streaming_metrics: False leaves `record.stream` None.
    enable_reliability_metrics: False leaves the reliability fields (`retry_delay_ms`) out; retries are still counted.
    enable_cost_tracking: False leaves `cost_usd` None.
    filters: `MetricsFilter`s or plain callables; a record is kept when all say True.
    request_sampling_rate, streaming_sampling_rate, error_sampling_rate: share (0..1) of records kept. The error's rate
        applies to calls that failed, else the streaming one to streams, else the request's; one draw a call, by its id.
    tags: on every record, under the tags of the running code.
    providers: host (or `host:port`) -> provider name, before the built-in table.
    prices: model, `provider/model` or `provider/*` -> US dollars per million tokens, before the price book:
        `{"input": 2.5, "output": 10, "cache_read": 1.25, "cache_write": 3.125}`.
    discounts: provider -> share (0..1) taken off the price book.
    label_tags: tags that become labels of the LLM metrics, as `["feature"]`.
    max_series: label sets that a metric of the process's registry keeps; what comes after is one `__overflow__` series.
    max_queue, max_queue_bytes: bounds of the hand-off to the router thread, and of each sink's queue.
    when_full: what a sink's queue that is full does: "drop_newest" (the default without a spool), "drop_oldest", or
        "spool" (the default with one): what does not fit in memory waits on disk, whose oldest goes when that is full.
    spool: a folder in which every record that a sink does I/O for is written before it is sent, so that it survives
        the process; None for none.
    spool_max_bytes: what each sink may have on disk there.
    dead_letters: a folder that gets the records that a sink refused, as lines of JSON; None for none.
    stream_callback: gets a `StreamReport` of every running stream at each interval, at its first token, when it stalls,
        and at its end; sync or async. `stream_options(...)` says otherwise for a block of code.
    stream_interval_ms: milliseconds between two reports of a stream; 0 for none between first token and end.
    include_raw_chunks: whether a stream's last report has the bytes that came, up to 1 MiB of them.
    stall_after_ms: how long a provider may be silent inside a stream before that is a stall; 0 for never.
    flush_timeout_seconds: deadline of `flush` and `shutdown` where none is given.
    exit_timeout_seconds: what all sinks together may take at the end of the process.
    """

    enabled: bool = True
    batch_size: int = 100
    batch_timeout_seconds: float = 1.0
    enable_streaming_metrics: bool = True
    enable_reliability_metrics: bool = True
    enable_cost_tracking: bool = True
    filters: Sequence[MetricsFilter | Callable[[AgentMetrics], bool]] = ()
    request_sampling_rate: float = 1.0
    streaming_sampling_rate: float = 1.0
    error_sampling_rate: float = 1.0
    tags: Mapping[str, str] = {}
    providers: Mapping[str, str] = {}
    prices: Mapping[str, Mapping[str, float]] = {}
    discounts: Mapping[str, float] = {}
    label_tags: Sequence[str] = ()
    max_series: int = 2000
    max_queue: int = 10_000
    max_queue_bytes: int = 32 * 1024 * 1024
    when_full: str | None = None
    spool: str | os.PathLike[str] | None = None
    spool_max_bytes: int = 256 * 1024 * 1024
    dead_letters: str | os.PathLike[str] | None = None
    stream_callback: Callable[[Any], object] | None = None
    stream_interval_ms: float = 1000.0
    include_raw_chunks: bool = False
    stall_after_ms: float = 10_000.0
    flush_timeout_seconds: float = 10.0
    exit_timeout_seconds: float = 2.0

    def __post_init__(self) -> None:
        for name in _FLAGS:
            value = getattr(self, name)
            if type(value) is not bool:
                raise _wrong(name, value, "True or False")
        for name, (low, high, whole) in _RANGES.items():
            _check_number(name, getattr(self, name), low, high, whole)
        self._check_delivery()
        for name in ("tags", "providers", "prices", "discounts"):
            if not isinstance(getattr(self, name), Mapping):
                raise _wrong(name, getattr(self, name), "a mapping")
        if self.stream_callback is not None and not callable(self.stream_callback):
            raise _wrong("stream_callback", self.stream_callback, "a function, or a coroutine function")
        if isinstance(self.filters, (str, bytes)) or not isinstance(self.filters, Sequence):
            raise _wrong("filters", self.filters, "a list of filters")
        for one in self.filters:
            if not callable(one) and not callable(getattr(one, "should_collect", None)):
                raise _wrong("filters", one, "an object with should_collect(metric), or a callable")
        if isinstance(self.label_tags, (str, bytes)) or not isinstance(self.label_tags, Sequence):
            raise _wrong("label_tags", self.label_tags, "a list of tag names")
        for tag in self.label_tags:
            if not isinstance(tag, str) or not tag or tag.startswith("__"):
                raise _wrong("label_tags", tag, "a tag's name, which does not begin with __")
        for name, value in self.tags.items():
            if not isinstance(name, str) or not isinstance(value, (str, int, float)):
                raise _wrong(f"tags[{name!r}]", value, "text to text")
        for name, value in self.providers.items():
            if not isinstance(name, str) or not isinstance(value, str) or not value:
                raise _wrong(f"providers[{name!r}]", value, "host to provider name")
        for name, value in self.discounts.items():
            _check_number(f"discounts[{name!r}]", value, 0.0, 1.0, False)
        for model, rates in self.prices.items():
            _check_rates(model, rates)

    def _check_delivery(self) -> None:
        if self.when_full is not None and self.when_full not in WHEN_FULL:
            raise _wrong("when_full", self.when_full, f"one of {', '.join(WHEN_FULL)}")
        if self.when_full == "spool" and self.spool is None:
            raise _wrong("when_full", self.when_full, "another where there is no spool; set spool to a folder")
        for name in ("spool", "dead_letters"):
            folder = getattr(self, name)
            if folder is not None and not (isinstance(folder, (str, os.PathLike)) and os.fspath(folder)):
                raise _wrong(name, folder, "the path of a folder")

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, **given: Any) -> MetricsConfig:
        """The settings of the environment; `given` wins over it.

        Reads `TELLMETER_<FIELD>` (as `TELLMETER_BATCH_SIZE=500`) and, after it, the names that the setup guide used:
        METRICS_ENABLED, METRICS_BATCH_SIZE, METRICS_BATCH_TIMEOUT, ENABLE_STREAMING_METRICS,
        ENABLE_RELIABILITY_METRICS, ENABLE_COST_TRACKING, REQUEST_SAMPLING_RATE, STREAMING_SAMPLING_RATE,
        ERROR_SAMPLING_RATE, and METRICS_SAMPLE_RATE for REQUEST_SAMPLING_RATE. Mappings are written
        `name=value,name=value`. An unknown `TELLMETER_*` variable is a warning, a bad value a `ConfigError` that names
        it.
        """
        env = os.environ if environ is None else environ
        values: dict[str, Any] = {}
        for name, sources in SOURCES.items():
            variable = next((source for source in sources if env.get(source, "").strip()), None)
            if variable is not None:
                values[name] = _parse(variable, env[variable].strip(), _PARSERS[name])
        for variable in env:
            if variable.startswith("TELLMETER_") and variable not in KNOWN_VARIABLES:
                logger.warning("%s is no setting of tellmeter; see MetricsConfig for the names", variable)
        try:
            return cls(**{**values, **given})
        except ConfigError as error:
            guilty = next((name for name in values if str(error).startswith(name) and name not in given), None)
            if guilty is None:
                raise
            variable = next(source for source in SOURCES[guilty] if env.get(source, "").strip())
            raise ConfigError(f"{variable}: {error}") from None


_FLAGS = (
    "enabled",
    "enable_streaming_metrics",
    "enable_reliability_metrics",
    "enable_cost_tracking",
    "include_raw_chunks",
)
# field -> lowest, highest, whole numbers only
_RANGES: dict[str, tuple[float, float, bool]] = {
    "batch_size": (1, 100_000, True),
    "batch_timeout_seconds": (0.001, 3600.0, False),
    "request_sampling_rate": (0.0, 1.0, False),
    "streaming_sampling_rate": (0.0, 1.0, False),
    "error_sampling_rate": (0.0, 1.0, False),
    "max_series": (1, 1_000_000, True),
    "max_queue": (1, 10_000_000, True),
    "max_queue_bytes": (1024, 2**40, True),
    "spool_max_bytes": (64 * 1024, 2**40, True),
    "stream_interval_ms": (0.0, 3_600_000.0, False),
    "stall_after_ms": (0.0, 3_600_000.0, False),
    "flush_timeout_seconds": (0.0, 3600.0, False),
    "exit_timeout_seconds": (0.0, 3600.0, False),
}
WHEN_FULL = ("drop_newest", "drop_oldest", "spool")
_RATE_NAMES = frozenset({"input", "output", "cache_read", "cache_write"})


def _wrong(name: str, value: object, allowed: str) -> ConfigError:
    shown = repr(value)
    return ConfigError(f"{name} = {shown if len(shown) <= 80 else shown[:77] + '...'}: it must be {allowed}")


def _check_number(name: str, value: object, low: float, high: float, whole: bool) -> None:
    kinds = (int,) if whole else (int, float)
    bounds = f"{'a whole number' if whole else 'a number'} from {low:g} to {high:,g}"
    if isinstance(value, bool) or not isinstance(value, kinds):
        raise _wrong(name, value, bounds)
    assert isinstance(value, (int, float))
    if math.isnan(value) or not low <= value <= high:
        raise _wrong(name, value, bounds)


def _check_rates(model: object, rates: object) -> None:
    name = f"prices[{model!r}]"
    if not isinstance(model, str) or not isinstance(rates, Mapping) or not rates or set(rates) - _RATE_NAMES:
        raise _wrong(name, rates, "US dollars per million tokens under input, output, cache_read, cache_write")
    for kind, rate in rates.items():
        _check_number(f"{name}[{kind!r}]", rate, 0.0, 1e9, False)


def _flag(text: str) -> bool:
    if text.lower() in {"1", "true", "yes", "on"}:
        return True
    if text.lower() in {"0", "false", "no", "off"}:
        return False
    raise ValueError("true or false")


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError("a whole number") from None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError("a number") from None


def _pairs(text: str) -> dict[str, str]:
    found = [pair.partition("=") for pair in text.split(",") if pair.strip()]
    if any(not sign or not name.strip() for name, sign, _ in found):
        raise ValueError("name=value,name=value")
    return clean_tags({name.strip(): value.strip() for name, _, value in found})


_Parser = Callable[[str], Any]


def _parse(variable: str, text: str, parser: _Parser) -> Any:
    try:
        return parser(text)
    except ValueError as error:
        raise _wrong(variable, text, str(error)) from None


_PARSERS: dict[str, _Parser] = {
    **dict.fromkeys(_FLAGS, _flag),
    **{name: _whole if whole else _number for name, (_, _, whole) in _RANGES.items()},
    **dict.fromkeys(("when_full", "spool", "dead_letters"), str),
    "label_tags": lambda text: [name.strip() for name in text.split(",") if name.strip()],
    "tags": _pairs,
    "providers": _pairs,
    "discounts": lambda text: {name: _number(value) for name, value in _pairs(text).items()},
}
# The setup guide's own names, beside TELLMETER_<FIELD>.
_GUIDE_NAMES = {
    "enabled": "METRICS_ENABLED",
    "batch_size": "METRICS_BATCH_SIZE",
    "batch_timeout_seconds": "METRICS_BATCH_TIMEOUT",
    "enable_streaming_metrics": "ENABLE_STREAMING_METRICS",
    "enable_reliability_metrics": "ENABLE_RELIABILITY_METRICS",
    "enable_cost_tracking": "ENABLE_COST_TRACKING",
    "request_sampling_rate": "REQUEST_SAMPLING_RATE",
    "streaming_sampling_rate": "STREAMING_SAMPLING_RATE",
    "error_sampling_rate": "ERROR_SAMPLING_RATE",
}
SOURCES: dict[str, tuple[str, ...]] = {
    name: (f"TELLMETER_{name.upper()}", *([_GUIDE_NAMES[name]] if name in _GUIDE_NAMES else [])) for name in _PARSERS
}
# The telemetry guide's: here it thins out records, never counts.
SOURCES["request_sampling_rate"] += ("METRICS_SAMPLE_RATE",)
SINKS_VARIABLE = "TELLMETER_SINKS"
STORE_VARIABLE = "TELLMETER_STORE"
RUN_VARIABLE = "TELLMETER_RUN_DIR"
MULTIPROC_VARIABLE = "TELLMETER_MULTIPROC_DIR"
KNOWN_VARIABLES = {variable for sources in SOURCES.values() for variable in sources} | {
    SINKS_VARIABLE,
    STORE_VARIABLE,
    RUN_VARIABLE,
    MULTIPROC_VARIABLE,
}


def default_store_url(environ: Mapping[str, str] | None = None) -> str:
    """The store of every command where none is named: `TELLMETER_STORE`, else a file of the user's data folder."""
    env = os.environ if environ is None else environ
    if env.get(STORE_VARIABLE, "").strip():
        return env[STORE_VARIABLE].strip()
    home = Path(env.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return f"sqlite:///{home.absolute() / 'tellmeter' / 'calls.db'}"
