import asyncio
import copy
import io
import json
import logging
import logging.config
import logging.handlers
import queue
import re
import threading
import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from tellmeter import ConfigError, context, tags
from tellmeter.instruments import logs
from tellmeter.instruments.logs import JSONFormatter, TextFormatter, configure_logging, get_logger

TRACER = TracerProvider().get_tracer("test")  # not the global one
NAME = "tests.tellmeter.logs"


class Kept(logging.Handler):
    def __init__(self):
        super().__init__()
        self.records = []

    def emit(self, record):
        self.records.append(record)


@pytest.fixture
def kept():
    handler = Kept()
    logger = logging.getLogger(NAME)
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    yield handler.records
    for name in (NAME, f"{NAME}.child"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.filters.clear()
        logger.setLevel(logging.NOTSET)
        logger.propagate = True


def written(kept, formatter):
    return [formatter.format(record) for record in kept]


def record_of(message, arguments=(), **more):
    made = logging.LogRecord(NAME, logging.INFO, "file.py", 1, message, arguments, None)
    made.__dict__.update(more)
    return made


# ---------------------------------------------------------------------- get_logger


def test_it_is_the_standard_librarys_logger(kept):
    assert get_logger(NAME) is logging.getLogger(NAME)
    assert get_logger() is logging.getLogger(__name__)
    logging.getLogger(__name__).filters.clear()


def test_records_carry_trace_span_and_tags(kept):
    logger = get_logger(NAME)
    logger.info("before")
    with TRACER.start_as_current_span("s") as span, tags(feature="chat", tenant=7):
        logger.info("inside %s", "it")
    before, inside = kept
    assert (before.trace_id, before.span_id, before.tags) == ("", "", {})
    known = span.get_span_context()
    assert (inside.trace_id, inside.span_id) == (trace.format_trace_id(known.trace_id), f"{known.span_id:016x}")
    assert inside.tags == {"feature": "chat", "tenant": "7"}
    assert inside.getMessage() == "inside it"


def test_asking_twice_adds_nothing_twice_and_touches_nobody_else(kept):
    factory, root = logging.getLogRecordFactory(), (logging.root.filters[:], logging.root.handlers[:])
    for _ in range(3):
        get_logger(NAME)
    assert len(logging.getLogger(NAME).filters) == 1
    assert logging.getLogRecordFactory() is factory
    assert (logging.root.filters, logging.root.handlers) == root
    assert logging.getLogger(f"{NAME}.child").filters == []


def test_what_the_program_put_there_stays(kept):
    with tags(feature="chat"):
        get_logger(NAME).info("x", extra={"trace_id": "mine", "tags": ["a", "b"]})
    assert (kept[0].trace_id, kept[0].span_id, kept[0].tags) == ("mine", "", ["a", "b"])
    assert written(kept, TextFormatter())[0].endswith("""x trace_id=mine [tags="['a', 'b']"]""")
    assert json.loads(written(kept, JSONFormatter())[0])["tags"] == {"tags": "['a', 'b']"}


def test_tags_of_a_record_are_its_own(kept):
    with tags(feature="chat"):
        get_logger(NAME).info("x")
        kept[0].tags["feature"] = "changed"
        get_logger(NAME).info("x")
    assert kept[1].tags == {"feature": "chat"}


def test_each_task_and_thread_has_its_own(kept):
    logger = get_logger(NAME)

    async def work(number):
        with TRACER.start_as_current_span("s"), tags(number=number):
            await asyncio.sleep(0)
            logger.info("%s", number)
            await asyncio.to_thread(logger.info, "%s", number)

    async def main():
        await asyncio.gather(*(work(number) for number in range(20)))

    asyncio.run(main())
    threading.Thread(target=logger.info, args=("bare",)).start()
    assert len(kept) == 41
    assert all(record.tags["number"] == record.getMessage() for record in kept[:40])
    assert len({record.trace_id for record in kept[:40]}) == 20
    assert kept[40].tags == {}


def test_a_handler_in_another_thread_writes_those_of_where_it_was_logged():
    waiting = queue.SimpleQueue()
    logger = get_logger(NAME)
    handler = logging.handlers.QueueHandler(waiting)
    logger.addHandler(handler)
    try:
        with TRACER.start_as_current_span("s"), tags(feature="chat"):
            logger.warning("x")
    finally:
        logger.removeHandler(handler)
        logger.filters.clear()
    shown = json.loads(JSONFormatter().format(waiting.get()))
    assert shown["tags"] == {"feature": "chat"} and len(shown["trace_id"]) == 32


def test_a_span_that_raises_is_no_reason_to_lose_a_line(kept, monkeypatch):
    def broken():
        raise RuntimeError("secret")

    monkeypatch.setattr(logs, "current_trace", broken)
    get_logger(NAME).info("x")
    assert (kept[0].trace_id, kept[0].getMessage()) == ("", "x")


# ---------------------------------------------------------------------- lines


def test_a_line_of_text(kept):
    with TRACER.start_as_current_span("s") as span, tags(feature="chat", tenant="a b=c", **{"odd name": ""}):
        get_logger(NAME).warning("paid %d", 3)
    known = span.get_span_context()
    (line,) = written(kept, TextFormatter())
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.split()[0])
    assert line.split(" ", 1)[1] == (
        f"WARNING {NAME}: paid 3 trace_id={known.trace_id:032x} span_id={known.span_id:016x}"
        ' [feature=chat tenant="a b=c" "odd name"=""]'
    )


def test_a_line_of_text_without_a_span_and_tags_has_none(kept):
    get_logger(NAME).info("x")
    assert written(kept, TextFormatter())[0].endswith(f" INFO {NAME}: x")


def test_a_line_of_json(kept):
    with tags(feature="chat"):
        get_logger(NAME).info("paid %d", 3, extra={"card": "1234"})
    (line,) = written(kept, JSONFormatter())
    shown = json.loads(line)
    assert shown.pop("timestamp").endswith("Z")
    assert shown == {
        "level": "INFO",
        "logger": NAME,
        "message": "paid 3",
        "trace_id": "",
        "span_id": "",
        "tags": {"feature": "chat"},
    }


def test_an_exception_is_written_as_the_standard_library_does(kept):
    try:
        int("two\nlines")
    except ValueError as error:
        get_logger(NAME).exception("failed", stack_info=True)
        expected = "".join(traceback.format_exception(error)).rstrip("\n")
    record = kept[0]
    shown = json.loads(JSONFormatter().format(record))
    assert shown["exception"] == expected == record.exc_text
    assert shown["stack"].startswith("Stack (most recent call last)")
    first, rest = TextFormatter().format(record).split("\n", 1)
    assert first.endswith(": failed")
    assert rest == f"{expected}\n{record.stack_info}"


def test_a_time_format_of_ones_own():
    assert JSONFormatter(datefmt="%Y").format(record_of("x")).startswith('{"timestamp": "20')
    assert re.match(r"\d{4} INFO", TextFormatter(None, "%Y").format(record_of("x")))


def test_records_that_were_never_stamped_are_written_too():
    with tags(feature="chat"):
        assert TextFormatter().format(record_of("x")).endswith("x [feature=chat]")
        assert json.loads(JSONFormatter().format(record_of("x")))["tags"] == {"feature": "chat"}


ANYTHING = st.text(st.characters(codec=None, categories=None)) | st.sampled_from(
    ["a\nb", "\r\n", "\x1b[2J", "\u2028", "\u0085", "\udc80", '"}\n{"', "\u202e", "%s", "\x00"]
)


@given(ANYTHING, ANYTHING, st.dictionaries(ANYTHING, ANYTHING, max_size=4))
def test_whatever_is_logged_is_exactly_one_line(message, name, given_tags):
    record = record_of("%s", (message,), tags=given_tags, name=name, levelname=name)
    line = TextFormatter().format(copy.copy(record))
    assert len(line.splitlines()) == 1
    line.encode()
    line = JSONFormatter().format(copy.copy(record))
    assert line.isascii() and len(line.splitlines()) == 1
    shown = json.loads(line)
    shown["message"].encode()
    if not re.search("[\ud800-\udfff]", message + name + "".join([*given_tags, *given_tags.values()])):
        assert (shown["message"], shown["logger"], shown["tags"]) == (message, name, given_tags)


# ---------------------------------------------------------------------- configure_logging


@pytest.mark.parametrize("style", ["text", "json"])
def test_lines_reach_the_stream_once_however_often_it_is_configured(kept, style):
    first, stream = io.StringIO(), io.StringIO()
    configure_logging(NAME, style=style, stream=first)
    configure_logging(NAME, style=style, level="WARNING", stream=stream)
    logger, child = get_logger(NAME), logging.getLogger(f"{NAME}.child")
    with tags(feature="chat"):
        logger.info("too little")
        logger.warning("one")
        child.warning("two")
    assert first.getvalue() == ""
    lines = stream.getvalue().splitlines()
    assert len(lines) == 2 and all("chat" in line for line in lines)
    if style == "json":
        assert [json.loads(line)["message"] for line in lines] == ["one", "two"]
    assert len([one for one in logger.handlers if isinstance(one, logs._Handler)]) == 1
    assert len([one for one in logger.handlers if isinstance(one, Kept)]) == 1  # the program's own stay


def test_without_a_stream_it_is_standard_error(kept, capsys):
    configure_logging(NAME)
    get_logger(NAME).info("here")
    assert "here" in capsys.readouterr().err


@pytest.mark.parametrize("wrong", [{"style": "xml"}, {"level": "LOUD"}, {"level": 1.5}])
def test_what_cannot_be_is_told(kept, wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        configure_logging(NAME, **wrong)


def test_the_formatters_fit_into_a_configuration_of_the_program(kept):
    stream = io.StringIO()
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"json": {"class": "tellmeter.instruments.logs.JSONFormatter"}},
            "handlers": {"one": {"class": "logging.StreamHandler", "stream": stream, "formatter": "json"}},
            "loggers": {NAME: {"handlers": ["one"], "level": "INFO"}},
        }
    )
    with tags(feature="chat"):
        get_logger(NAME).info("x")
    assert json.loads(stream.getvalue())["tags"] == {"feature": "chat"}


def test_the_tags_in_force_are_not_touched(kept):
    with tags(feature="chat"):
        before = context.tags_in_force.get()
        get_logger(NAME).info("x")
        assert context.tags_in_force.get() is before
