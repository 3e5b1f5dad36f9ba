"""The ASGI application: in Starlette, in FastAPI and alone, under a real uvicorn; one scrape never stops the loop."""

import asyncio
import gzip
import socket
import subprocess
import sys
import threading

import httpx
import pytest
from fastapi import FastAPI
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from starlette.applications import Starlette
from starlette.routing import Mount, Route

from tellmeter import counts
from tellmeter.serve import asgi
from tellmeter.serve.asgi import get_metrics_app


def fastapi_route(app):
    made = FastAPI()
    made.add_route("/metrics", app)
    return made


def fastapi_mount(app):
    made = FastAPI()
    made.mount("/metrics", app)
    return made


def nested(app):
    return Starlette(routes=[Mount("/internal", routes=[Route("/prom", app)])])


SHAPES = {
    "alone": (lambda app: app, ["/metrics", "/metrics/", "/", "/metrics?x=1"]),
    "starlette route": (lambda app: Starlette(routes=[Route("/metrics", app)]), ["/metrics"]),
    "starlette mount": (lambda app: Starlette(routes=[Mount("/metrics", app=app)]), ["/metrics/"]),
    "starlette mount elsewhere": (lambda app: Starlette(routes=[Mount("/in/side", app=app)]), ["/in/side/"]),
    "starlette route elsewhere": (lambda app: Starlette(routes=[Route("/prom", app)]), ["/prom"]),
    "starlette nested": (nested, ["/internal/prom"]),
    "fastapi route": (fastapi_route, ["/metrics"]),
    "fastapi mount": (fastapi_mount, ["/metrics/"]),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_it_answers_where_it_is_put(shape, registry, uvicorn_server, ask):
    make, paths = SHAPES[shape]
    with uvicorn_server(make(get_metrics_app(registry))) as port:
        for path in paths:
            answer = ask(port, path)
            assert (answer.status, path) == (200, path)
            (family,) = parse_text(answer.body.decode())
            assert len(family.samples) == 50
        assert ask(port, "/other").status == 404
        posted = ask(port, paths[0], "POST")
        assert (posted.status, posted.getheader("allow")) == (405, "GET, HEAD")


def test_only_starlettes_mount_redirects(registry, uvicorn_server, ask):
    with uvicorn_server(Starlette(routes=[Mount("/metrics", app=get_metrics_app(registry))])) as port:
        assert ask(port, "/metrics").status == 307


@pytest.mark.parametrize("root_path", ["/api", "/api/"])
def test_behind_a_proxy_that_cuts_a_prefix(root_path, registry, uvicorn_server, ask):
    with uvicorn_server(fastapi_route(get_metrics_app(registry)), root_path=root_path) as port:
        assert ask(port, "/metrics").status == 200


def test_formats_coding_and_head_under_uvicorn(registry, uvicorn_server, ask):
    with uvicorn_server(get_metrics_app(registry)) as port:
        plain = ask(port)
        zipped = ask(port, accept_encoding="gzip")
        assert zipped.getheader("content-encoding") == "gzip"
        assert gzip.decompress(zipped.body) == plain.body
        rich = ask(port, accept="application/openmetrics-text;version=1.0.0;q=0.9,*/*;q=0.1")
        assert rich.getheader("content-type") == "application/openmetrics-text; version=1.0.0; charset=utf-8"
        assert list(parse_openmetrics(rich.body.decode()))
        head = ask(port, method="HEAD")
        assert (head.status, head.body) == (200, b"")
        assert {**dict(head.getheaders()), "date": ""} == {**dict(plain.getheaders()), "date": ""}
        assert head.getheader("content-length") == str(len(plain.body))


def http_scope(**given):
    return {"type": "http", "method": "GET", "path": "/metrics", "headers": [], **given}


async def nothing():
    await asyncio.Event().wait()


async def sent_by(app, scope, receive=nothing):
    sent = []

    async def send(message):
        sent.append(message)

    await app(scope, receive, send)
    return sent


def test_a_page_is_sent_piece_by_piece(page):
    page.pieces = [b"one\n", b"two\n", b"three\n"]
    start, *bodies = asyncio.run(sent_by(get_metrics_app(), http_scope()))
    assert start["status"] == 200
    assert [(body["body"], body["more_body"]) for body in bodies] == [
        (b"one\n", True),
        (b"two\n", True),
        (b"three\n", False),
    ]


@pytest.mark.parametrize("headers", [[(b"accept", b"text/plain;q=0.1"), (b"accept", b"application/openmetrics-text")]])
def test_several_headers_of_one_name_count_together(page, headers):
    asyncio.run(sent_by(get_metrics_app("mine"), http_scope(headers=iter(headers))))
    assert page.asked == [("mine", True)]


def test_the_loop_goes_on_while_the_page_is_written(page):
    page.gate = threading.Event()

    async def main():
        scrape = asyncio.create_task(sent_by(get_metrics_app(), http_scope()))
        turns = 0
        await asyncio.to_thread(page.started.acquire)
        while turns < 100:
            await asyncio.sleep(0)
            turns += 1
        assert not scrape.done()
        page.gate.set()
        return await scrape

    assert asyncio.run(main())[0]["status"] == 200


def test_the_loop_goes_on_while_it_is_sent(page):
    page.pieces = [b"one\n"] * 100
    turns = 0

    async def count():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def main():
        counting = asyncio.create_task(count())
        before = []

        async def send(message):  # a client that reads so fast that no send ever waits
            before.append(turns)

        await get_metrics_app()(http_scope(), nothing, send)
        counting.cancel()
        return before

    before = asyncio.run(main())
    assert len(set(before)) >= 100


def test_work_that_fills_the_default_executor_is_no_obstacle(page):
    release = threading.Event()

    async def main():
        loop = asyncio.get_running_loop()
        waiting = [loop.run_in_executor(None, release.wait) for _ in range(100)]
        sent = await sent_by(get_metrics_app(), http_scope())
        release.set()
        await asyncio.gather(*waiting)
        return sent

    assert asyncio.run(main())[0]["status"] == 200


def test_the_fifth_scrape_at_a_time_is_told_to_come_again(page):
    page.gate = threading.Event()
    app = get_metrics_app()

    async def main():
        tasks = [asyncio.create_task(sent_by(app, http_scope())) for _ in range(4)]
        for _ in tasks:
            await asyncio.to_thread(page.started.acquire)
        start, _ = await sent_by(app, http_scope())
        refused, _ = await sent_by(app, http_scope(method="POST"))
        page.gate.set()
        others = [sent[0]["status"] for sent in await asyncio.gather(*tasks)]
        again, *_ = await sent_by(app, http_scope())
        return start, refused["status"], others, again["status"]

    start, *statuses = asyncio.run(main())
    assert (start["status"], dict(start["headers"])[b"retry-after"]) == (503, b"1")
    assert statuses == [405, [200] * 4, 200]


def test_cancelled_requests_free_their_places_when_the_pages_are_written(page, until):
    page.gate = threading.Event()
    app = get_metrics_app()

    async def main():
        tasks = [asyncio.create_task(sent_by(app, http_scope())) for _ in range(4)]
        for task in tasks:
            await asyncio.to_thread(page.started.acquire)
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        busy, *_ = await sent_by(app, http_scope())
        page.gate.set()
        await asyncio.to_thread(until, lambda: len(app._places._free) == 4)
        found, *_ = await sent_by(app, http_scope())
        return busy["status"], found["status"]

    assert asyncio.run(main()) == (503, 200)


def test_a_loop_that_is_gone_before_its_page_frees_the_place(page, until):
    page.gate = threading.Event()
    app = get_metrics_app()

    async def main():
        task = asyncio.create_task(sent_by(app, http_scope()))
        await asyncio.to_thread(page.started.acquire)
        task.cancel()

    asyncio.run(main())
    page.gate.set()
    until(lambda: len(app._places._free) == 4)


def test_a_client_that_goes_away_while_it_is_sent_to(page, until, caplog, uvicorn_server, ask):
    page.pieces = [b"x" * 60_000] * 2000
    app = get_metrics_app()
    with uvicorn_server(app) as port:
        for _ in range(6):
            with socket.create_connection(("127.0.0.1", port)) as client:
                client.sendall(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n")
                assert client.recv(1000).startswith(b"HTTP/1.1 200")
        until(lambda: len(app._places._free) == 4)
        page.pieces = [b"y"]
        assert ask(port).body == b"y"
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


@pytest.mark.parametrize("error", [OSError("gone"), ConnectionResetError()])
def test_a_server_that_says_the_client_is_gone(page, error):
    app = get_metrics_app()

    async def send(message):
        raise error

    asyncio.run(app(http_scope(), nothing, send))
    assert len(app._places._free) == 4


def test_a_client_that_does_not_read_is_given_up(page, monkeypatch):
    monkeypatch.setattr(asgi, "_SEND_SECONDS", 0.01)
    app = get_metrics_app()

    async def send(message):
        if message["type"] == "http.response.body":
            await asyncio.Event().wait()

    asyncio.run(app(http_scope(), nothing, send))
    assert len(app._places._free) == 4


@pytest.mark.parametrize("error", [ValueError("sk-secret"), SystemExit(3), KeyboardInterrupt()])
def test_whatever_the_page_raises_is_a_500_of_one_line(page, error, caplog):
    page.error = error
    before = counts.total("guarded_errors")
    start, body = asyncio.run(sent_by(get_metrics_app(), http_scope()))
    assert (start["status"], body["body"].count(b"\n")) == (500, 1)
    assert counts.total("guarded_errors") == before + 1
    assert b"sk-secret" not in body["body"]
    assert "sk-secret" not in caplog.text


def test_without_another_thread_the_page_is_written_at_once(page, monkeypatch):
    def no_thread(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", no_thread)
    assert asyncio.run(sent_by(get_metrics_app(), http_scope()))[0]["status"] == 200


def test_without_asyncio_the_page_is_written_at_once(page):
    app = get_metrics_app()
    sent = sent_by(app, http_scope())
    with pytest.raises(StopIteration) as end:  # it waits for nothing, so a single step of whatever loop is enough
        sent.send(None)
    assert end.value.value[0]["status"] == 200
    assert len(app._places._free) == 4


def test_lifespan():
    messages = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])

    async def receive():
        return next(messages)

    assert asyncio.run(sent_by(get_metrics_app(), {"type": "lifespan"}, receive)) == [
        {"type": "lifespan.startup.complete"},
        {"type": "lifespan.shutdown.complete"},
    ]


def test_uvicorn_finds_the_lifespan_in_order(registry, uvicorn_server, ask):
    with uvicorn_server(get_metrics_app(registry), lifespan="on") as port:
        assert ask(port).status == 200


def test_a_websocket_is_closed_and_other_scopes_end():
    app = get_metrics_app()
    assert asyncio.run(sent_by(app, {"type": "websocket", "path": "/metrics"})) == [
        {"type": "websocket.close", "code": 1000}
    ]
    assert asyncio.run(sent_by(app, {"type": "something.new"})) == []


@pytest.mark.parametrize(
    ("root_path", "path", "status"),
    [
        ("", "/metrics", 200),
        (None, "/metrics", 200),
        ("/", "/metrics", 200),
        ("/api", "/api/metrics", 200),
        ("/api/", "/api/metrics", 200),
        ("/metrics", "/metrics", 200),
        ("/metrics", "/metrics/", 200),
        ("/metrics", "/", 200),  # servers before ASGI 2.4 gave the path without root_path
        ("/met", "/metrics", 200),
        ("/metrics", "/metrics/other", 404),
        ("", "/metrics/other", 404),
    ],
)
def test_paths_below_a_root(page, root_path, path, status):
    sent = asyncio.run(sent_by(get_metrics_app(), http_scope(root_path=root_path, path=path)))
    assert sent[0]["status"] == status


def test_hostile_headers_are_answered(page):
    headers = [(b"accept", b"\xff\x00;q=\xff"), (b"accept-encoding", b'"gzip;q=9'), (b"\xff", b"")]
    assert asyncio.run(sent_by(get_metrics_app(), http_scope(headers=headers)))[0]["status"] == 200


def test_httpx_reads_it_through_starlette(registry):
    app = Starlette(routes=[Route("/metrics", get_metrics_app(registry))])

    async def main():
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
            return await client.get("/metrics")

    answer = asyncio.run(main())
    assert answer.headers["content-encoding"] == "gzip"
    assert answer.text.startswith("# HELP request_count_total Requests\n")


FORKED = """
import asyncio, os, threading
import tellmeter.serve.page as pages
from tellmeter.serve.asgi import get_metrics_app

gate, started = threading.Event(), threading.Semaphore(0)
def page(registry=None, *, openmetrics=False):
    started.release()
    gate.wait()
    yield b"one 1.0"
pages.page = page
app = get_metrics_app()
scope = {"type": "http", "method": "GET", "path": "/metrics", "headers": []}

async def ask():
    sent = []
    async def send(message):
        sent.append(message)
    await app(scope, None, send)
    return sent[0]["status"]

async def fill():
    return await asyncio.gather(*[ask() for _ in range(4)])

thread = threading.Thread(target=lambda: asyncio.run(fill()))
thread.start()
for _ in range(4):
    started.acquire()
child = os.fork()
if not child:
    pages.page = lambda registry=None, *, openmetrics=False: iter([b"two 2.0"])
    os._exit(0 if asyncio.run(ask()) == 200 else 1)
code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
gate.set()
thread.join()
print(code)
"""


def test_a_child_that_is_forked_amid_scrapes_serves_its_own():
    run = subprocess.run([sys.executable, "-c", FORKED], capture_output=True, text=True, timeout=60, check=False)
    assert (run.stdout, run.returncode) == ("0\n", 0), run.stderr


def test_importing_it_imports_neither_asyncio_nor_what_is_optional():
    code = """
import sys
import tellmeter.serve.asgi, tellmeter.serve.wsgi, tellmeter.serve.page
print(sorted({"asyncio", "starlette", "prometheus_client", "http.server"} & sys.modules.keys()))
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
