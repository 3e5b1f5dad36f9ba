from __future__ import annotations

import urllib.parse

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tellmeter.pipeline.outcome import RetryLater
from tellmeter.sinks.clickhouse.client import Client, exception_code
from tellmeter.sinks.clickhouse.errors import Failure
from tellmeter.sinks.sending.answers import HTTPAnswer
from tellmeter.sinks.sending.sender import HTTPSender
from tellmeter.testing import Answer, FaultServer, Hang
from tests.support.clickhouse import shared
from tests.unit.sinks.made import deadline


def client_of(url, **options):
    return Client(HTTPSender(url, name="test", **options), "/")


@pytest.fixture(scope="module")
def client():
    one = client_of(shared().url)
    yield one
    one.sender.close()


@pytest.fixture
def server():
    with FaultServer() as one:
        yield one


def failure(work):
    with pytest.raises(Failure) as caught:
        work()
    return caught.value


def test_a_statement_is_answered(client):
    assert client.run("SELECT 1 + 1", deadline()) == b"2\n"
    assert client.rows("SELECT number, 'a' FROM numbers(2)", deadline(), tuple[int, str]) == [(0, "a"), (1, "a")]
    assert client.rows("SELECT 1 WHERE 0", deadline(), tuple[int]) == []
    assert client.rows("SELECT toInt64(9223372036854775807)", deadline(), tuple[int]) == [(2**63 - 1,)]


clean = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)


@given(clean)
@settings(deadline=None, max_examples=60)
def test_any_text_is_a_value_and_never_sql(client, text):
    assert client.rows("SELECT {a:String}", deadline(), tuple[str], values={"a": text}) == [(text,)]


def test_settings_are_the_engines(client):
    sql = "SELECT value FROM system.settings WHERE name = 'max_execution_time'"
    assert client.rows(sql, deadline(), tuple[str], settings={"max_execution_time": "7"}) == [("7",)]
    refused = failure(lambda: client.run("SELECT 1", deadline(), settings={"no_such_setting": "1"}))
    assert (refused.code, refused.cause.name) == (115, "setting")


def test_data_goes_beside_the_statement(client):
    client.run("CREATE TABLE IF NOT EXISTS of_client (a Int64) ENGINE = Memory", deadline())
    lines = b"\n".join(b'{"a": %d}' % number for number in range(1000))  # enough to be packed
    client.run("INSERT INTO of_client FORMAT JSONEachRow", deadline(), data=lines)
    assert client.rows("SELECT sum(a) FROM of_client", deadline(), tuple[int]) == [(499_500,)]
    client.run("DROP TABLE of_client", deadline())


def test_what_the_engine_refuses_is_a_failure_with_its_code(client):
    assert failure(lambda: client.run("SELECT * FROM nowhere", deadline())).code == 60
    assert failure(lambda: client.run("SELEC 1", deadline())).code == 62
    readonly = {"readonly": "2"}
    assert client.run("SELECT 1", deadline(), settings=readonly) == b"1\n"


def test_nobody_there_and_nobody_answering_are_failures_too(server):
    client = client_of(server.url)
    server.script(Hang())
    assert failure(lambda: client.run("SELECT 1", deadline(0.2))).cause.outcome == RetryLater(None, "timeout")
    server.stop_listening()
    found = failure(lambda: client.run("SELECT 1", deadline()))
    assert (found.code, found.cause.name) == (None, "unreachable")
    client.sender.close()


@pytest.mark.parametrize(
    ("answer", "code", "reason"),
    [
        (Answer(500, headers={"X-ClickHouse-Exception-Code": "241"}), 241, "no_memory"),
        (Answer(500, b"Code: 241. DB::Exception: Memory limit (total) exceeded"), 241, "no_memory"),
        (Answer(200, b"[1]\n[2]\nCode: 159. DB::Exception: Timeout exceeded\n"), 159, "timeout"),
        (Answer(200, b"[1]\r\n__exception__\r\nabc\r\nCode: 159. DB::Exception: x\r\n20 abc\r\n"), 159, "timeout"),
        (Answer(404, b"no such backend"), None, "not_clickhouse"),
        (Answer(502), None, "http_502"),
        (Answer(401), None, "unauthorized"),
        (Answer(302, headers={"Location": "/login"}), None, "redirected"),
        (Answer(200, b"<html>sign in</html>"), None, "not_clickhouse"),
        (Answer(200, b'["a", 1]\n'), None, "unreadable"),
        (Answer(200, b"[1]\n[2"), None, "unreadable"),
        (Answer(200, b"\xff\xfe"), None, "not_clickhouse"),
    ],
)
def test_answers_that_are_none(server, answer, code, reason):
    server.script(answer)
    client = client_of(server.url)
    found = failure(lambda: client.rows("SELECT 1", deadline(), tuple[int]))
    assert (found.code, found.cause.name) == (code, reason)
    client.sender.close()


def test_an_exception_in_the_words_of_a_row_is_none():
    row = b'["Code: 60. DB::Exception: x"]\n'
    assert exception_code(HTTPAnswer(200, {}, row)) is None
    assert exception_code(HTTPAnswer(200, {}, b'["' + b"x" * 20_000 + b'Code: 60. DB::Exception: x"]\n')) is None
    assert exception_code(HTTPAnswer(200, {"x-clickhouse-exception-code": "0"}, row)) is None
    assert exception_code(HTTPAnswer(200, {}, row + b"Code: 241. DB::Exception: y\n")) == 241


def test_an_answer_that_is_too_large_is_a_failure(server, monkeypatch):
    monkeypatch.setattr("tellmeter.sinks.clickhouse.client.ANSWER_BYTES", 1000)
    server.script(Answer(200, b"[1]\n" * 1000))
    client = client_of(server.url)
    assert failure(lambda: client.rows("SELECT 1", deadline(), tuple[int])).cause.name == "too_much"
    client.sender.close()


def test_values_settings_and_the_path_are_in_the_url_and_the_query_in_the_body(server):
    client = Client(HTTPSender(f"{server.url}/proxy/", name="test"), "/proxy/")
    client.run("SELECT {a:String}", deadline(), settings={"readonly": "2"}, values={"a": "x\\\ty\n&"})
    client.run("INSERT INTO t FORMAT JSONEachRow", deadline(), data=b"{}")
    asked, inserted = server.requests
    place = urllib.parse.urlsplit(asked.path)
    assert (place.path, asked.body) == ("/proxy/", b"SELECT {a:String}")
    assert dict(urllib.parse.parse_qsl(place.query)) == {
        "wait_end_of_query": "1",
        "readonly": "2",
        "param_a": "x\\\\\\ty\\n&",
    }
    assert "query=INSERT+INTO+t+FORMAT+JSONEachRow" in inserted.path
    assert inserted.body == b"{}"
    client.sender.close()
