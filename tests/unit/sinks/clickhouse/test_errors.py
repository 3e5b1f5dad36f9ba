from __future__ import annotations

import inspect
import re

import pytest

from tellmeter.errors import SchemaTooNew, StoreError
from tellmeter.pipeline.outcome import Rejected, RetryLater, TooLarge
from tellmeter.sinks.clickhouse import errors
from tests.support.clickhouse import shared


def test_the_codes_have_the_names_that_the_engine_gives_them():
    written = dict(re.findall(r"^    (\d+): .*# ([A-Z_]+)", inspect.getsource(errors), re.MULTILINE))
    assert {int(code) for code in written} == set(errors.CAUSES)
    ((real),) = shared().run(f"SELECT {', '.join(f'errorCodeToName({code}) AS c{code}' for code in written)}")
    # 170 became 701.
    assert {code: name for code, name in written.items() if code != "170"} == {
        name[1:]: value for name, value in real.items() if name != "c170"
    }
    assert real["c170"] == "BAD_GET"


@pytest.mark.parametrize(
    ("code", "status", "expected"),
    [
        (516, 403, RetryLater(60.0, "unauthorized")),
        (192, 403, RetryLater(60.0, "unauthorized")),
        (497, 500, RetryLater(60.0, "forbidden")),
        (81, 404, RetryLater(60.0, "no_such_database")),
        (164, 500, RetryLater(60.0, "read_only")),
        (60, 404, RetryLater(None, "no_such_table")),
        (241, 500, RetryLater(None, "no_memory")),
        (202, 500, RetryLater(None, "too_many_queries")),
        (252, 500, RetryLater(None, "too_many_parts")),
        (159, 408, RetryLater(None, "timeout")),
        (243, 500, RetryLater(None, "disk_full")),
        (242, 500, RetryLater(None, "read_only_replica")),
        (4711, 500, RetryLater(None, "clickhouse_4711")),
        (4711, 404, Rejected("clickhouse_4711")),
    ],
)
def test_what_an_exception_comes_to(code, status, expected):
    cause = errors.cause_of_code(code, status)
    assert cause.outcome == expected
    assert cause.name == expected.reason
    assert cause.advice
    assert not cause.of_rows


@pytest.mark.parametrize("code", [26, 27, 41, 72, 117, 469, 395])
def test_errors_of_single_rows_are_told_apart(code):
    assert errors.cause_of_code(code, 400).of_rows


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (Rejected("http_404"), RetryLater(60.0, "not_clickhouse")),
        (Rejected("http_400"), Rejected("http_400")),
        (RetryLater(None, "unreachable"), RetryLater(None, "unreachable")),
        (TooLarge(), TooLarge()),
    ],
)
def test_what_an_answer_of_somebody_else_comes_to(outcome, expected):
    assert errors.cause_of_outcome(outcome).outcome == expected


def test_reasons_are_short_names():
    causes = [*errors.CAUSES.values(), errors.NOT_CLICKHOUSE, errors.cause_of_outcome(TooLarge())]
    assert all(re.fullmatch(r"[a-z_]{1,64}", cause.name) for cause in causes)


def test_errors_of_the_schema_wait_for_somebody():
    assert errors.cause_of(SchemaTooNew("x")).outcome == RetryLater(60.0, "schema_too_new")
    assert errors.cause_of(StoreError("x")).outcome == RetryLater(60.0, "foreign_table")


def test_a_failure_is_one_line_with_its_code():
    failure = errors.Failure(errors.cause_of_code(516, 403), 516)
    assert errors.cause_of(failure) is failure.cause
    assert (
        str(errors.store_error("there", failure)) == "there: the server refuses the user; check user and password (516)"
    )
    nobody = errors.Failure(errors.cause_of_outcome(RetryLater(None, "dns")))
    assert str(errors.store_error("there", nobody)).endswith("(dns); check host, port and network")
