from __future__ import annotations

import psycopg
import pytest
from psycopg import errors

from tellmeter.errors import SchemaTooNew, StoreError
from tellmeter.pipeline.outcome import Rejected, RetryLater
from tellmeter.sinks.postgresql import errors as module
from tellmeter.sinks.postgresql.connection import OutOfTimeError


@pytest.mark.parametrize(
    ("state", "outcome"),
    [
        ("08006", RetryLater(reason="unreachable")),
        ("25006", RetryLater(reason="read_only")),
        ("28P01", RetryLater(after=60.0, reason="unauthorized")),
        ("3D000", RetryLater(after=60.0, reason="no_such_database")),
        ("3F000", RetryLater(after=60.0, reason="no_such_schema")),
        ("40001", RetryLater(reason="conflict")),
        ("40P01", RetryLater(reason="deadlock")),
        ("42501", RetryLater(after=60.0, reason="forbidden")),
        ("42P01", RetryLater(reason="no_such_table")),
        ("53100", RetryLater(reason="disk_full")),
        ("53200", RetryLater(reason="no_resources")),
        ("53300", RetryLater(reason="too_many_connections")),
        ("55P03", RetryLater(reason="locked")),
        ("57014", RetryLater(reason="timeout")),
        ("57P01", RetryLater(reason="shutting_down")),
        ("57P03", RetryLater(reason="shutting_down")),
        ("42703", Rejected("rejected")),
        ("58030", RetryLater(reason="server_error")),
        ("XX000", RetryLater(reason="server_error")),
    ],
)
def test_every_class_of_error_has_an_outcome(state, outcome):
    error = errors.lookup(state)("canary")
    assert module.outcome_of(module.cause_of(error)) == outcome
    told = str(module.store_error("there", error))
    assert told.startswith("there: ")
    assert state in told
    assert "canary" not in told


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ('connection failed: FATAL:  password authentication failed for user "me"', "unauthorized"),
        ("connection failed: fe_sendauth: no password supplied", "unauthorized"),
        ('connection failed: FATAL:  no pg_hba.conf entry for host "::1"', "unauthorized"),
        ('connection failed: FATAL:  role "me" does not exist', "unauthorized"),
        ('connection failed: FATAL:  database "app" does not exist', "no_such_database"),
        ("connection failed: FATAL:  sorry, too many clients already", "too_many_connections"),
        ("connection failed: FATAL:  the database system is starting up", "shutting_down"),
        ("connection failed: Connection refused", "unreachable"),
        ("connection failed: FATAL:  Passwort-Authentifizierung fehlgeschlagen", "unreachable"),
    ],
)
def test_a_refused_connection_goes_by_the_servers_words(said, name):
    assert module.cause_of(psycopg.OperationalError(said)).name == name


def test_errors_of_no_server():
    assert module.cause_of(OutOfTimeError("late")) is module.TIMEOUT
    assert module.cause_of(SchemaTooNew("new")).name == "schema_too_new"
    assert module.cause_of(StoreError("other")).name == "foreign_table"
    assert module.outcome_of(module.cause_of(StoreError("other"))) == RetryLater(after=60.0, reason="foreign_table")
    assert module.outcome_of(module.cause_of(TypeError("bug"))) == Rejected("rejected")


def test_errors_of_single_records_and_of_lost_connections_are_told_apart():
    for state in ("22P05", "23502", "23514", "54000", "P0001"):
        assert module.is_of_rows(errors.lookup(state)("x"))
    assert module.is_of_rows(UnicodeEncodeError("utf-8", "\ud800", 0, 1, "x"))
    assert not module.is_of_rows(errors.lookup("42501")("x"))
    assert not module.is_of_rows(OutOfTimeError("x"))
    assert module.is_lost(psycopg.OperationalError("the connection is lost"))
    assert module.is_lost(errors.lookup("57P01")("x"))
    assert not module.is_lost(errors.lookup("55P03")("x"))
    assert not module.is_lost(ValueError("x"))
