"""get_logger: loggers of the standard library whose records carry the trace and the tags of the running code."""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

from ..context import NO_TRACE, current_trace, tags_in_force
from ..errors import ConfigError
from ..guard import note

# What would end a line, move a terminal's cursor, or turn the order of what is read.
_UNPRINTED = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_SURROGATES = re.compile("[\ud800-\udfff]")
_PLAIN = re.compile(r"[^\s\"=\[\]]+")


class _Stamp(logging.Filter):
    """Writes trace and tags on each record, in the thread and task that logs: handlers may format in another."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep the record; what the program itself put there (`extra=`) stays."""
        known = record.__dict__
        if "trace_id" not in known or "span_id" not in known:
            try:
                trace = current_trace()
            except Exception as error:
                note("log_trace", error)
                trace = NO_TRACE
            known.setdefault("trace_id", trace.trace_id or "")
            known.setdefault("span_id", trace.span_id or "")
        if "tags" not in known:
            known["tags"] = dict(tags_in_force.get())
        return True


_STAMP = _Stamp()


def get_logger(name: str | None = None) -> logging.Logger:
    """The standard library's logger `name`, whose records have `trace_id`, `span_id` ("" outside a span) and `tags`.

    They are attributes of the record, for every handler and format: `%(trace_id)s`. Levels, handlers and propagation
    are the program's own; `TextFormatter`, `JSONFormatter` and `configure_logging` write lines with them.

    Args:
        name: as of `logging.getLogger`; that of the calling module without one.
    """
    if name is None:
        name = sys._getframe(1).f_globals.get("__name__") or "tellmeter"
    logger = logging.getLogger(name)
    logger.addFilter(_STAMP)  # which is there once, however often this is called
    return logger


class _LineFormatter(logging.Formatter):
    """What both have: times in UTC unless a `datefmt` is given; the format itself is fixed."""

    def _time(self, record: logging.LogRecord) -> str:
        if self.datefmt:
            return self.formatTime(record, self.datefmt)
        return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

    def _trace(self, record: logging.LogRecord) -> str:
        """The exception's traceback, as the standard library keeps it for all handlers."""
        if record.exc_info and not record.exc_text:
            record.exc_text = self.formatException(record.exc_info)
        return record.exc_text or ""


class TextFormatter(_LineFormatter):
    """`2026-01-31T12:00:00.000Z INFO shop.cart: paid trace_id=... span_id=... [feature=cart]`.

    One line a record, whatever is in message and tags: what would end it is escaped. Tracebacks follow below.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The record as a line."""
        _STAMP.filter(record)
        known = record.__dict__
        line = f"{self._time(record)} {record.levelname} {record.name}: {record.getMessage()}"
        for name in ("trace_id", "span_id"):
            if known[name]:
                line += f" {name}={_word(known[name])}"
        tags = _texts(known["tags"])
        if tags:
            line += f" [{' '.join(f'{_word(name)}={_word(value)}' for name, value in tags.items())}]"
        parts = [_UNPRINTED.sub(_escaped, line), self._trace(record)]
        if record.stack_info:
            parts.append(self.formatStack(record.stack_info))
        return "\n".join(filter(None, parts))


class JSONFormatter(_LineFormatter):
    """One JSON object a line: timestamp, level, logger, message, trace_id, span_id, tags; exception, stack if any."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as a line."""
        _STAMP.filter(record)
        known = record.__dict__
        shown: dict[str, Any] = {
            "timestamp": self._time(record),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            "trace_id": str(known["trace_id"] or ""),
            "span_id": str(known["span_id"] or ""),
            "tags": _texts(known["tags"]),
        }
        trace = self._trace(record)
        if trace:
            shown["exception"] = trace
        if record.stack_info:
            shown["stack"] = self.formatStack(record.stack_info)
        return json.dumps(_encodable(shown))  # in ASCII: no reader finds another end of the line in it


def configure_logging(
    name: str,
    *,
    style: Literal["text", "json"] = "text",
    level: int | str = logging.INFO,
    stream: TextIO | None = None,
) -> logging.Handler:
    """Write what the logger `name` and those below it log, as lines with trace and tags; again, to replace it.

    Args:
        name: the logger; "" is the root, which has everything that the program logs.
        style: `TextFormatter`'s lines, or `JSONFormatter`'s.
        level: of the logger.
        stream: where to; standard error without one.

    Raises:
        ConfigError: no such style or level.
    """
    formatter = {"text": TextFormatter, "json": JSONFormatter}.get(style)
    if formatter is None:
        raise ConfigError(f"style = {style!r}: it must be text or json")
    logger = logging.getLogger(name)
    try:
        logger.setLevel(level)
    except (TypeError, ValueError):
        raise ConfigError(f"level = {level!r}: it must be a level of logging, as INFO") from None
    for former in [one for one in logger.handlers if isinstance(one, _Handler)]:
        logger.removeHandler(former)
        former.close()
    handler = _Handler(stream)
    handler.setFormatter(formatter())
    handler.addFilter(_STAMP)  # for those that were not made by get_logger()
    logger.addHandler(handler)
    return handler


class _Handler(logging.StreamHandler[TextIO]):
    """Ours, so that the next `configure_logging` finds it."""


def _texts(tags: object) -> dict[str, str]:
    """Tags as texts; whatever else the program put in their place is shown as one."""
    if isinstance(tags, Mapping):
        return {str(name): str(value) for name, value in tags.items()}
    return {"tags": str(tags)} if tags else {}


def _word(value: object) -> str:
    text = str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=False)


def _escaped(found: re.Match[str]) -> str:
    return found.group().encode("unicode_escape").decode()


def _encodable(value: Any) -> Any:
    """The same without lone surrogates, which few readers of JSON take."""
    if isinstance(value, str):
        return _SURROGATES.sub("\ufffd", value)
    return {_encodable(name): _encodable(one) for name, one in value.items()}
