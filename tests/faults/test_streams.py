"""Streams that stall, dribble, break or are left, over real sockets: one record and one last report each, and nothing stays."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import httpx
import httpx2
import pytest

from tellmeter.testing import FaultServer
from tellmeter.testing.contract_kit import poll
from tests.support.paced import ASKED, HANG, PATIENCE, RESET, URL, Paced, from_memory
from tests.support.sse import chunk, stream
from tests.support.watched import FINAL, Watched

EVENTS = stream(20)
BODY = b"".join(EVENTS)
FIRST, REST = EVENTS[:5], EVENTS[5:]
WAYS = [(http, is_async) for http in (httpx, httpx2) for is_async in (False, True)]
IDS = [f"{http.__name__}-{'async' if is_async else 'sync'}" for http, is_async in WAYS]
Meet = Callable[[int], None]  # called with the number of bytes so far after each piece


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with FaultServer() as made:
        yield made


def read(
    server: FaultServer, way: tuple[ModuleType, bool], timeout: float = PATIENCE, meet: Meet = lambda size: None
) -> tuple[bytes, BaseException | None]:
    """What an application gets of one stream, and the exception that ended it."""
    http, is_async = way
    got = bytearray()

    def take(part: bytes) -> None:
        got.extend(part)
        meet(len(got))

    asked = {"method": "POST", "url": f"{server.url}/v1/chat/completions", "json": ASKED, "timeout": timeout}

    def run() -> None:
        with http.Client() as client, client.stream(**asked) as response:
            for part in response.iter_raw():
                take(part)

    async def run_async() -> None:
        async with http.AsyncClient() as client, client.stream(**asked) as response:
            async for part in response.aiter_raw():
                take(part)

    try:
        asyncio.run(run_async()) if is_async else run()
    except (http.HTTPError, ZeroDivisionError, OSError) as error:
        return bytes(got), error
    return bytes(got), None


ways = pytest.mark.parametrize("way", WAYS, ids=IDS)


@ways
@pytest.mark.fault(24)
@pytest.mark.parametrize("size", [1, 700], ids=["dribbled", "in pieces"])
def test_a_whole_stream(server: FaultServer, way: Any, size: int) -> None:
    server.script(Paced([BODY[at : at + size] for at in range(0, len(BODY), size)]))
    with Watched() as watched:
        assert read(server, way) == (BODY, None)
        record, final = watched.only()
        assert (record.status, final.status, final.chunks_received) == ("success", "completed", len(EVENTS) - 1)
        assert [one.event for one in watched.reports] == ["stream.first_token", "stream.complete"]


@ways
@pytest.mark.fault(24)
def test_a_reset_in_the_middle(server: FaultServer, way: Any) -> None:
    server.script(Paced([*FIRST, RESET]))
    with Watched() as watched:
        got, error = read(server, way)
        assert isinstance(error, (way[0].ReadError, way[0].RemoteProtocolError)) and BODY.startswith(got)
        record, final = watched.only()
        assert (record.status, record.error_category, final.status) == ("error", "network", "error")
        assert (final.error_count, final.last_error) == (1, type(error).__name__)
        assert record.tokens_estimated and final.bytes_received == len(got)


@ways
@pytest.mark.fault(24)
def test_a_read_timeout_is_a_silence_of_the_provider(server: FaultServer, way: Any) -> None:
    server.script(Paced([*FIRST, HANG]))
    with Watched(stall_after_ms=100.0) as watched:
        got, error = read(server, way, timeout=0.4)
        assert isinstance(error, way[0].ReadTimeout) and got == b"".join(FIRST)
        record, final = watched.only()
        assert (record.status, record.error_category, final.status) == ("timeout", "timeout", "error")
        assert final.last_error == "ReadTimeout"
        assert final.provider_wait_ms >= 380
        assert final.stalls == 1 and final.stalled and final.max_gap_ms >= 380
        assert len(watched.of("stream.stall")) == 1


@ways
@pytest.mark.fault(24)
def test_a_provider_that_stalls_is_told_of_while_it_does(
    server: FaultServer, way: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tellmeter.streams.running._logged_at", float("-inf"))
    again, end = threading.Event(), threading.Event()
    server.script(Paced([*FIRST, again, *REST[:5], end, *REST[5:]]))
    with Watched(stall_after_ms=100.0) as watched, caplog.at_level(logging.WARNING, "tellmeter"):
        reading = threading.Thread(target=read, args=(server, way))
        reading.start()
        told = watched.wait_for("stream.stall")
        assert (told.waiting_for, told.stalled, told.stalls, told.status) == ("provider", True, 1, "streaming")
        assert told.waiting_ms >= 100 and told.provider == "openai" and told.chunks_received == len(FIRST)
        assert watched.total("llm_stream_stalls_total") == watched.total("llm_active_streams") == 1
        (live,) = watched.collector.active_streams()
        assert (live.waiting_for, live.stalled, live.stalls) == ("provider", True, 1)
        assert live.stream_id == told.stream_id and live.provider_wait_ms >= 100
        # Several more looks at the same silence, and no more is told of it.
        poll(lambda: watched.collector.active_streams()[0].waiting_ms > 350, lambda: "it does not wait")
        assert len(watched.of("stream.stall")) == 1 == watched.total("llm_stream_stalls_total")
        again.set()
        assert watched.wait_for("stream.stall", 2).stalls == 2  # another silence
        end.set()
        reading.join(PATIENCE)
        record, final = watched.only()
        assert (record.status, final.stalls, final.stalled) == ("success", 2, False)
        assert watched.total("llm_stream_stalls_total") == 2
        assert final.provider_wait_ms >= 400
    lines = [line for line in caplog.messages if "has sent nothing" in line]
    assert len(lines) >= 1 and final.stream_id in lines[0]
    assert " t1" not in caplog.text and "hi" not in lines[0].split()


@ways
@pytest.mark.fault(17)
def test_a_consumer_that_stalls_is_not_the_providers_fault(server: FaultServer, way: Any) -> None:
    server.script(Paced([*FIRST, *REST]))
    seen: list[Any] = []

    def hold(size: int) -> None:
        if not seen:
            poll(lambda: watched.collector.active_streams()[0].waiting_ms > 300, lambda: "nobody waits")
            seen.extend(watched.collector.active_streams())

    with Watched(stall_after_ms=100.0) as watched:
        assert read(server, way, meet=hold) == (BODY, None)
        record, final = watched.only()
    assert (seen[0].waiting_for, seen[0].stalled, seen[0].stalls) == ("consumer", False, 0)
    assert final.consumer_wait_ms >= 300 and final.stalls == 0 and record.status == "success"
    assert watched.of("stream.stall") == []
    assert final.provider_wait_ms + final.consumer_wait_ms <= final.duration_ms + 0.01


@ways
@pytest.mark.fault(24)
def test_an_exception_of_the_applications(server: FaultServer, way: Any) -> None:
    server.script(Paced([*FIRST, HANG]))
    with Watched() as watched:
        assert isinstance(read(server, way, meet=lambda size: 1 // 0)[1], ZeroDivisionError)
        record, final = watched.only()
        assert (record.status, record.error_category, final.status) == ("closed_early", "cancelled", "closed_early")
        assert (final.error_count, final.event) == (0, "stream.complete")


def opened(server: FaultServer, http: ModuleType) -> tuple[Any, Any]:
    client = http.Client(timeout=PATIENCE)
    return client, client.send(
        client.build_request("POST", f"{server.url}/v1/chat/completions", json=ASKED), stream=True
    )


LEFT: dict[str, tuple[Callable[[Any], object], str]] = {
    "never read": (lambda response: None, "abandoned"),
    "left in the middle": (lambda response: next(response.iter_raw()), "closed_early"),
    "closed unread": (lambda response: response.close(), "closed_early"),
    "closed after its first piece": (lambda response: (next(response.iter_raw()), response.close()), "closed_early"),
}


@pytest.mark.parametrize("left", LEFT)
@pytest.mark.parametrize("http", [httpx, httpx2], ids=["httpx", "httpx2"])
@pytest.mark.fault(24)
def test_a_stream_that_is_left(server: FaultServer, http: ModuleType, left: str) -> None:
    server.script(Paced([*FIRST, HANG]))
    act, status = LEFT[left]
    with Watched() as watched:
        client, response = opened(server, http)
        act(response)
        del response
        gc.collect()
        record, final = watched.only()
        assert (record.status, final.status) == (status, status)
        client.close()


@pytest.mark.parametrize("http", [httpx, httpx2], ids=["httpx", "httpx2"])
@pytest.mark.fault(24)
def test_a_stream_that_another_thread_closes(server: FaultServer, http: ModuleType) -> None:
    more, reached = threading.Event(), threading.Event()
    server.script(Paced([*FIRST, more, *REST]))
    with Watched() as watched:
        client, response = opened(server, http)

        def consume() -> None:
            with contextlib.suppress(Exception):  # whatever the library makes of it
                for _ in response.iter_raw():
                    reached.set()

        reading = threading.Thread(target=consume)
        reading.start()
        assert reached.wait(PATIENCE)
        response.close()
        more.set()
        reading.join(PATIENCE)
        client.close()
        record, final = watched.only()
        assert (record.status, final.status) == ("closed_early", "closed_early")


def test_streams_leave_no_thread_of_their_own(server: FaultServer) -> None:
    with Watched(stall_after_ms=50.0, stream_interval_ms=10.0) as watched:
        for steps in ([*FIRST, 0.1, *REST], [*FIRST, RESET]) * 5:
            server.script(Paced(steps))
            read(server, WAYS[0])
        watched.records()
        server.close()
        ours = {name for name in watched.threads() if name.startswith("tellmeter") and "fault-server" not in name}
        assert ours <= {"tellmeter-streams", "tellmeter-callback", "tellmeter-router"}
        watched.check()
        assert len(watched.of(*FINAL)) == 10


STREAMING = """
import json, os, sys, threading
import httpx, tellmeter
def tell(report):
    print(json.dumps([os.getpid(), report.event, report.status, report.stream_id, report.stalled]), flush=True)
    if report.event == "stream.stall":
        stalled.set()
stalled = threading.Event()
collector = tellmeter.configure(
    tellmeter.MetricsConfig(stream_callback=tell, stream_interval_ms=20, stall_after_ms=50, enable_cost_tracking=False),
    sinks=[f"jsonl:///{sys.argv[2]}"])
tellmeter.instrument()
client = httpx.Client(timeout=60)
def ask():
    request = client.build_request("POST", sys.argv[1], json=json.loads(sys.argv[3]))
    return client.send(request, stream=True)
"""


def program(code: str, server: FaultServer, store: Any) -> tuple[list[list[Any]], list[Any]]:
    """What a program was told at the ends of its streams (process, event, status, stream, stalled), and its records."""
    arguments = [f"{server.url}/v1/chat/completions", str(store), json.dumps(ASKED)]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", STREAMING + textwrap.dedent(code), *arguments],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert (done.returncode, "Error" in done.stderr) == (0, False), done.stderr
    told = [json.loads(line) for line in done.stdout.splitlines()]
    records = [json.loads(line) for line in store.read_text().splitlines()]
    return [one for one in told if one[1] in FINAL], records


@pytest.mark.fault(14)
def test_the_process_ends_while_streams_run(server: FaultServer, tmp_path: Any) -> None:
    server.default = Paced([*FIRST, HANG])
    finals, records = program(
        """
        responses = [ask() for _ in range(3)]
        next(responses[1].iter_raw())
        threading.Thread(target=lambda: list(responses[2].iter_raw()), daemon=True).start()
        assert stalled.wait(60)
        """,
        server,
        tmp_path / "calls.jsonl",
    )
    assert [record["status"] for record in records] == ["abandoned"] * 3
    assert [one[2] for one in finals] == ["abandoned"] * 3 and len({one[3] for one in finals}) == 3
    # Only the third one was waited for: its provider was silent, the others' application was.
    assert sorted(one[4] for one in finals) == [False, False, True]
    waits = sorted(record["stream"].get("provider_wait_ms", 0.0) for record in records)
    assert waits[2] >= 50


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.fault(12)
def test_a_fork_while_a_stream_runs(server: FaultServer, tmp_path: Any) -> None:
    go = threading.Event()

    def answer(request: Any) -> Paced:
        if server.received > 1:
            go.set()  # the child has asked, and the parent's stream goes on
        return Paced(EVENTS if server.received > 1 else [*FIRST, go, *REST])

    server.default = answer
    finals, records = program(
        """
        response = ask()
        parts = response.iter_raw()
        next(parts)
        pid = os.fork()
        if pid == 0:
            assert collector.active_streams() == []
            client = httpx.Client(timeout=60)
            b"".join(ask().iter_raw())
            os._exit(0 if collector.flush_sync(30).complete and collector.stats().recorded == 1 else 3)
        assert os.waitpid(pid, 0)[1] == 0
        for _ in parts: pass
        response.close()
        assert collector.flush_sync(30).complete and collector.stats().recorded == 1
        assert collector.active_streams() == []
        """,
        server,
        tmp_path / "calls.jsonl",
    )
    assert [one[2] for one in finals] == ["completed"] * 2
    assert len({one[0] for one in finals}) == len({one[3] for one in finals}) == 2  # each process told of its own
    assert [record["status"] for record in records] == ["success"] * 2
    assert {record["stream"]["stream_id"] for record in records} == {one[3] for one in finals}


def test_what_is_asked_of_the_meter_at_the_end_of_a_stream_does_not_change_how_it_ended() -> None:
    """Another thread that looks at the stream holds its lock at the moment at which the application closes it."""
    events = [chunk({"content": "x"}), *EVENTS[1:]]
    with Watched() as watched, httpx.Client(transport=from_memory(httpx, lambda: [*events, HANG])[0]) as client:
        request = client.build_request("POST", URL, json=ASKED)
        response = client.send(request, stream=True)
        parts = response.iter_raw()
        for _ in events:
            next(parts)
        (call,) = watched.collector.open_calls.values()
        meter = call.meter
        assert meter is not None
        meter._lock.acquire()
        looking = threading.Timer(0.2, meter._lock.release)
        looking.start()
        response.close()
        looking.join()
        record, final = watched.only()
        assert (record.status, final.status) == ("success", "completed")
