"""examples/streaming_page.py, served by uvicorn and read as a browser reads it: a stream's numbers while it runs."""

import asyncio
import json
import signal
import sys

import httpx2
import pytest

from tellmeter import SQLiteMetricsSink
from tests.support.example_apps import EXAMPLES, served
from tests.support.streaming_guide import events, python, simulated


@pytest.fixture
def simulator():
    with simulated() as backend:
        yield backend


@pytest.fixture
def app(simulator, tmp_path):
    environment = {**simulator.environment(), "TELLMETER_SINKS": "sqlite:///calls.db"}
    with served("streaming_page:app", environment, tmp_path) as found:
        yield found


def script(simulator, *faults):
    httpx2.post(f"{simulator.url}/__faults", json=faults).raise_for_status()


def received(response):
    """The server-sent events of a response: their names and data."""
    name = ""
    for line in response.iter_lines():
        field, _, value = line.partition(":")
        if field == "event":
            name = value.strip()
        elif field == "data":
            yield name, json.loads(value) if value.strip() else None


def live(app, **headers):
    return httpx2.stream("GET", f"{app.url}/live", params={"question": "Count."}, headers=headers, timeout=60)


def test_the_page_is_shown_and_has_a_place_for_every_field(app):
    status, headers, text = app.ask("GET", "/")
    assert status == 200 and headers["content-type"].startswith("text/html")
    with live(app) as response:
        shown = [data for name, data in received(response) if name == "report"]
    assert all(f'id="{name}"' in text for name in shown[-1])


def test_a_stream_is_shown_to_its_end(app, simulator):
    with live(app) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        told = list(received(response))
    assert told.pop() == ("end", None)
    assert {name for name, _ in told} == {"report"}
    (body,) = simulator.bodies
    last = told[-1][1]
    assert (last["status"], last["chunks"], last["waits"]) == ("completed", len(events(body)), "-")
    assert last["data"] == (f"{len(body) / 1000:.1f} kB" if len(body) >= 1000 else f"{len(body)} B")
    assert last["speed"] > 0


def test_a_stream_is_shown_while_it_runs_and_ends_with_its_browser(app, simulator, tmp_path):
    script(simulator, "stall;after=6;seconds=3600")
    with live(app) as response:
        told = received(response)
        seen = [next(told) for _ in range(5)]
        assert {data["status"] for _, data in seen} == {"streaming"}
        chunks = [data["chunks"] for _, data in seen]
        assert chunks == sorted(chunks) and 0 < chunks[-1] == len(events(simulator.bodies[0])) == 6
        assert seen[-1][1]["waits"] == "provider"
    with live(app) as response:  # the page goes on
        assert list(received(response))[-2][1]["status"] == "completed"
    if sys.platform != "win32":
        app.process.send_signal(signal.SIGINT)  # its exit delivers
        app.process.wait(30)
        records = asyncio.run(SQLiteMetricsSink(tmp_path / "calls.db").get_metrics())
        assert sorted(record.stream.status for record in records) == ["cancelled", "completed"]


def test_an_answer_that_never_begins_ends_too(app, simulator, tmp_path):
    script(simulator, "401")
    with live(app) as response:
        assert list(received(response)) == [("end", None)]
    log = (tmp_path / "log").read_text("utf-8")
    assert "The answer failed: AuthenticationError" in log and "Traceback" not in log


def test_a_stream_that_breaks_off_is_shown_as_an_error(app, simulator, tmp_path):
    script(simulator, "reset;after=6")
    with live(app) as response:
        *told, end = received(response)
    assert end == ("end", None) and told[-1][1]["status"] == "error"
    assert told[-1][1]["chunks"] == len(events(simulator.bodies[0])) == 6
    assert "Traceback" not in (tmp_path / "log").read_text("utf-8")


def test_another_site_cannot_ask_in_a_browsers_name(app, simulator):
    for site in ("cross-site", "same-site"):
        with live(app, **{"sec-fetch-site": site}) as response:
            assert response.status_code == 403
    assert simulator.bodies == []
    with live(app, **{"sec-fetch-site": "same-origin"}) as response:
        assert response.status_code == 200 and list(received(response))


def test_what_the_documentation_shows_is_in_the_example():
    example = (EXAMPLES / "streaming_page.py").read_text("utf-8")
    (block,) = python("A live page")
    function = block[block.index("async def live(") :]
    assert function in example
