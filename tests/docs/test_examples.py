"""The programs of examples/ run as users run them, their SDK calls answered by the simulator."""

import json
import os
import re
import signal
import subprocess
import sys

import pytest

from tellmeter import SQLiteMetricsSink
from tellmeter.simulator.server import SimulatorServer
from tellmeter.simulator.traffic import Traffic
from tests.support import otlp
from tests.support.example_apps import EXAMPLES, served
from tests.unit.sinks.made import run

TOKEN = "operator-canary"


@pytest.fixture
def simulator():
    with SimulatorServer(Traffic(speed=0)) as server:
        yield server


def environment(simulator, **more):
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("TELLMETER_", "METRICS_"))}
    return {**inherited, "OPENAI_BASE_URL": simulator.openai_url, "OPENAI_API_KEY": "none", **more}


# ---------------------------------------------------------------------- fastapi_app.py


def serving(simulator, folder, **more):
    return served("fastapi_app:app", environment(simulator, **more), folder)


def kept(app):
    return len(app.get("/metrics/recent"))


def test_the_pages_show_the_calls_and_nothing_that_was_said(simulator, tmp_path):
    with serving(simulator, tmp_path) as app:
        status, _, text = app.ask("POST", "/ask", {"question": "Where is my parcel-canary?"})
        assert status == 200 and json.loads(text)["answer"]
        assert app.ask("POST", "/ask?model=gpt-4o", {"question": "Why is it late?"})[0] == 200
        summary = app.get("/metrics/summary")
        assert (summary["requests"], summary["error_rate"]) == (2, 0.0)
        assert summary["models"] == {"gpt-4o": 1, "gpt-4o-mini": 1}
        assert summary["providers"] == {"openai": 2}
        assert summary["avg_latency_ms"] > 0 and summary["total_cost"] > 0
        newest, oldest = app.get("/metrics/recent")
        assert (newest["model"], oldest["model"], newest["error"]) == ("gpt-4o", "gpt-4o-mini", None)
        assert newest["tokens"] + oldest["tokens"] == summary["total_tokens"] > 0
        assert newest["latency_ms"] > 0 and newest["timestamp"] > oldest["timestamp"]
        assert app.get("/metrics/recent?limit=1") == [newest]

        simulator.script(401)
        assert app.ask("POST", "/ask", {"question": "And now?"})[0] == 500
        assert app.get("/metrics/recent?limit=1")[0]["error"] == "AuthenticationError"
        assert app.get("/metrics/summary")["error_rate"] == pytest.approx(1 / 3)

        page = app.ask("GET", "/metrics")[2]
        assert 'llm_requests_total{provider="openai",model="gpt-4o",method="generate",status="success"} 1.0' in page
        shown = page + app.ask("GET", "/metrics/recent")[2] + app.ask("GET", "/metrics/summary")[2]
        assert "canary" not in shown
        assert app.ask("GET", "/metrics/summary?window_seconds=-1")[0] == 422
        assert app.ask("GET", "/metrics/recent?limit=100000000")[0] == 422


REFUSED = {
    "no token": {},
    "wrong token": {"authorization": "Bearer operator-canarz"},
    "a part of it": {"authorization": f"Bearer {TOKEN[:-1]}"},
    "more than it": {"authorization": f"Bearer {TOKEN}x"},
    "empty": {"authorization": "Bearer "},
    "another scheme": {"authorization": f"Basic {TOKEN}"},
    "no ASCII": {"authorization": "Bearer \xe9\xff"},
    "as a cookie": {"cookie": f"authorization=Bearer {TOKEN}; token={TOKEN}"},
}


def test_only_who_has_the_token_deletes(simulator, tmp_path):
    with serving(simulator, tmp_path, METRICS_TOKEN=TOKEN) as app:
        app.ask("POST", "/ask", {"question": "Where is my parcel?"})
        for what, headers in REFUSED.items():
            status, sent, text = app.ask("DELETE", "/metrics", **headers)
            assert (status, sent["www-authenticate"]) == (401, "Bearer"), what
            assert TOKEN not in text
        assert app.ask("DELETE", f"/metrics?token={TOKEN}&access_token={TOKEN}")[0] == 401
        assert kept(app) == 1
        status, _, text = app.ask("DELETE", "/metrics", authorization=f"Bearer {TOKEN}")
        assert (status, json.loads(text)) == (200, {"status": "cleared"})
        assert kept(app) == 0
        assert "llm_requests_total{" in app.ask("GET", "/metrics")[2]  # counters go on


def test_without_a_token_nobody_deletes(simulator, tmp_path):
    with serving(simulator, tmp_path) as app:
        app.ask("POST", "/ask", {"question": "Where is my parcel?"})
        for headers in ({}, {"authorization": "Bearer "}, {"authorization": "Bearer none"}):
            assert app.ask("DELETE", "/metrics", **headers)[0] == 404
        assert kept(app) == 1


def test_no_other_site_deletes_through_a_browser(simulator, tmp_path):
    """A form of another site can send GET and POST and no such header; to more the browser asks first."""
    with serving(simulator, tmp_path, METRICS_TOKEN=TOKEN) as app:
        app.ask("POST", "/ask", {"question": "Where is my parcel?"})
        allowed = {"authorization": f"Bearer {TOKEN}"}
        overrides = ({"X-HTTP-Method-Override": "DELETE"}, {"X-Method-Override": "DELETE"}, {"X-HTTP-Method": "DELETE"})
        for method in ("GET", "HEAD", "POST", "PUT", "PATCH"):
            for more in overrides:
                status = app.ask(method, "/metrics?_method=DELETE&method=DELETE", **allowed, **more)[0]
                assert status == (200 if method in ("GET", "HEAD") else 405)
        _, headers, _ = app.ask(
            "OPTIONS", "/metrics", origin="https://other.example", Access_Control_Request_Method="DELETE"
        )
        assert not [name for name in headers if name.lower().startswith("access-control-")]
        assert kept(app) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGTERM")
def test_what_waits_is_delivered_when_the_server_is_told_to_end(simulator, tmp_path):
    waiting = {"TELLMETER_SINKS": "sqlite:///calls.db", "TELLMETER_BATCH_TIMEOUT_SECONDS": "3600"}
    with serving(simulator, tmp_path, **waiting) as app:
        for _ in range(3):
            app.ask("POST", "/ask", {"question": "Where is my parcel?"})
        app.process.send_signal(signal.SIGTERM)
        app.process.wait(30)
        assert "Traceback" not in (tmp_path / "log").read_text("utf-8")
    records = run(SQLiteMetricsSink(tmp_path / "calls.db").get_metrics())
    assert [(record.model, record.tags) for record in records] == [("gpt-4o-mini", {"feature": "ask"})] * 3


# ---------------------------------------------------------------------- from_environment.py


def from_environment(simulator, folder, *arguments, **more):
    done = subprocess.run(
        [sys.executable, "-W", "error", EXAMPLES / "from_environment.py", *arguments],
        cwd=folder,
        env=environment(simulator, **more),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_the_environment_alone_sets_everything_up(simulator, tmp_path):
    told = from_environment(simulator, tmp_path, TELLMETER_SINKS="sqlite:///calls.db", METRICS_BATCH_SIZE="500")
    assert told == ["SQLiteMetricsSink: 1 of 1 delivered"]
    (record,) = run(SQLiteMetricsSink(tmp_path / "calls.db").get_metrics())
    assert (record.model, record.provider, record.status) == ("gpt-4o-mini", "openai", "success")


CHOSEN = {
    "development": ({"ENVIRONMENT": "development"}, ["InMemoryMetricsSink: 1 of 1 delivered"]),
    "nothing chosen": ({}, ["InMemoryMetricsSink: 1 of 1 delivered"]),
    "left to the URLs": ({"TELLMETER_SINKS": "jsonl:///calls.jsonl"}, ["JSONLMetricsSink: 1 of 1 delivered"]),
    "sampled": ({"REQUEST_SAMPLING_RATE": "0"}, ["InMemoryMetricsSink: 0 of 0 delivered"]),
    "off": ({"METRICS_ENABLED": "false"}, ["InMemoryMetricsSink: 0 of 0 delivered"]),
}


@pytest.mark.parametrize("what", CHOSEN)
def test_a_program_may_choose_its_sinks_itself(simulator, tmp_path, what):
    variables, told = CHOSEN[what]
    assert from_environment(simulator, tmp_path, "chosen", SERVICE_NAME="search", **variables) == told
    if "TELLMETER_SINKS" in variables:
        assert json.loads((tmp_path / "calls.jsonl").read_text("utf-8"))["tags"] == {"service": "search"}


def test_with_an_endpoint_it_exports_over_otlp(simulator, tmp_path):
    with otlp.Receiver() as receiver:
        told = from_environment(
            simulator,
            tmp_path,
            "chosen",
            OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url,
            OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf",
            SERVICE_NAME="search",
            METRICS_NAMESPACE="production",
        )
        assert told == ["OTelMetricsSink: 1 of 1 delivered"]
        assert otlp.totals(receiver)["calls"] == 1
    names = {(point.resource["service.name"], point.resource["service.namespace"]) for point in receiver.points()}
    assert names == {("search", "production")}


# ---------------------------------------------------------------------- the page about it


def test_what_the_page_shows_is_in_the_example():
    page = (EXAMPLES.parent / "docs" / "fastapi.md").read_text("utf-8")
    example = (EXAMPLES / "fastapi_app.py").read_text("utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert blocks and [block for block in blocks if block not in example] == []
    assert sum(block.count("\n") for block in blocks) < example.count("\n") / 2
