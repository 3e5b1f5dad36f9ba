"""The middleware around Starlette, FastAPI and bare ASGI applications: exact counts, bounded series, nothing changed."""

import asyncio
import threading
import time
from contextlib import contextmanager

import httpx
import pytest
import uvicorn
from fastapi import BackgroundTasks, FastAPI, HTTPException
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import ClientDisconnect
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from tellmeter import MetricsRegistry, counts
from tellmeter.instruments import http
from tellmeter.instruments.http import MetricsMiddleware
from tellmeter.registry import registry as registry_module
from tests.support.metrics import values_of


@pytest.fixture
def registry():
    return MetricsRegistry(strict=True)


def scope_of(path="/", method="GET", **more):
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "scheme": "http",
        "server": ("testserver", 80),
        "client": ("127.0.0.1", 1),
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(b"host", b"testserver")],
        "root_path": "",
        **more,
    }


async def call(app, path="/", method="GET", *, receive=None, send=None, **more):
    """The messages that an application sends for one request."""
    sent = []

    asked = []

    async def nothing_more():
        if asked:
            await asyncio.Event().wait()  # the client stays, and waits for its answer
        asked.append(1)
        return {"type": "http.request", "body": b"", "more_body": False}

    async def keep(message):
        sent.append(message)

    await app(scope_of(path, method, **more), receive or nothing_more, send or keep)
    return sent


def requests(registry):
    """(method, endpoint, status) -> how many."""
    family = registry.counter("http_requests_total")
    return {values: series.read() for values, series in family.series.items()}


def durations(registry):
    """(method, endpoint) -> how many were timed, and seconds in all."""
    family = registry.histogram("http_request_duration_seconds")
    return {values: (sum(series.read()[0]), series.read()[1]) for values, series in family.series.items()}


def active(registry):
    return {values[0]: series.read() for values, series in registry.gauge("http_requests_active").series.items()}


def errors(registry):
    return {values: series.read() for values, series in registry.counter("errors_total").series.items()}


def guarded():
    return counts.snapshot().get("guarded_errors", {}).get("http_middleware", 0)


def client(app, **options):
    transport = httpx.ASGITransport(app, **options)
    return httpx.AsyncClient(transport=transport, base_url="http://testserver")


# ---------------------------------------------------------------------- what it must show


@pytest.mark.heavy
def test_ten_thousand_requests_over_fifty_routes_are_counted_exactly_in_as_many_series_as_there_are_routes(registry):
    app = FastAPI()
    app.add_middleware(MetricsMiddleware, registry=registry)
    for number in range(50):

        @app.get(f"/api/v1/r{number}/{{item_id}}/parts/{{part}}")
        async def item(item_id: str, part: int):
            return {"item": item_id, "part": part}

    async def main():
        for block in range(100):
            await asyncio.gather(
                *(call(app, f"/api/v1/r{n % 50}/{block}-{n}/parts/{n}") for n in range(100)),
            )

    asyncio.run(main())
    expected = {("GET", f"/api/v1/r{number}/{{item_id}}/parts/{{part}}", "200"): 200 for number in range(50)}
    assert requests(registry) == expected
    assert {key: number for key, (number, _) in durations(registry).items()} == {key[:2]: 200 for key in expected}
    assert active(registry) == {"GET": 0}
    assert errors(registry) == {}


def test_the_page_says_what_the_catalogue_says(registry):
    app = FastAPI()
    app.add_middleware(MetricsMiddleware, registry=registry)
    asyncio.run(call(app, "/api/7"))
    assert values_of(registry, "http_requests") == {"endpoint=unmatched,method=GET,status=404": 1}
    assert values_of(registry, "http_requests_active") == {"method=GET": 0}
    assert b'http_request_duration_seconds_count{method="GET",endpoint="unmatched"} 1' in registry.text()


def test_without_a_registry_it_counts_in_the_processs(monkeypatch):
    monkeypatch.setattr(registry_module, "_process_registry", None)
    asyncio.run(call(MetricsMiddleware(PlainTextResponse("ok"))))
    assert requests(registry_module.get_metrics_registry()) == {("GET", "unmatched", "200"): 1}


# ---------------------------------------------------------------------- exceptions


def failing(registry, **handlers):
    app = FastAPI(**handlers)
    app.add_middleware(MetricsMiddleware, registry=registry)

    @app.get("/fails/{how}")
    async def fails(how: str):
        if how == "http":
            raise HTTPException(404, "no such thing")
        raise KeyError(how)

    return app


def test_an_exception_that_leaves_the_application_is_one_error_and_one_request(registry):
    app = failing(registry)
    with pytest.raises(KeyError, match="badly"):
        asyncio.run(call(app, "/fails/badly"))
    assert requests(registry) == {("GET", "/fails/{how}", "500"): 1}
    assert durations(registry)["GET", "/fails/{how}"][0] == 1
    assert errors(registry) == {("http", "KeyError"): 1}
    assert active(registry) == {"GET": 0}


def test_around_the_whole_application_it_sees_the_answer_of_the_error_handler_and_the_exception_once(registry):
    async def handler(request, error):
        return JSONResponse({}, status_code=503)

    app = FastAPI(exception_handlers={Exception: handler})

    @app.get("/x")
    async def fails():
        raise KeyError

    sent = []

    async def send(message):
        sent.append(message)

    with pytest.raises(KeyError):
        asyncio.run(call(MetricsMiddleware(app, registry=registry), "/x", send=send))
    assert sent[0]["status"] == 503
    assert requests(registry) == {("GET", "/x", "503"): 1}
    assert errors(registry) == {("http", "KeyError"): 1}


def test_an_exception_that_the_application_handles_is_its_answer(registry):
    async def handler(request, error):
        return JSONResponse({}, status_code=418)

    app = failing(registry, exception_handlers={KeyError: handler})
    asyncio.run(call(app, "/fails/badly"))
    asyncio.run(call(app, "/fails/http"))
    assert requests(registry) == {("GET", "/fails/{how}", "418"): 1, ("GET", "/fails/{how}", "404"): 1}
    assert errors(registry) == {}


def test_a_response_that_breaks_off_is_500_though_it_began_with_200(registry):
    async def pieces():
        yield b"one"
        raise ValueError

    app = Starlette(routes=[Route("/s", lambda request: StreamingResponse(pieces()))])
    app.add_middleware(MetricsMiddleware, registry=registry)
    with pytest.raises(ValueError):
        asyncio.run(call(app, "/s"))
    assert requests(registry) == {("GET", "/s", "500"): 1}
    assert errors(registry) == {("http", "ValueError"): 1}


def test_an_application_that_answers_nothing_is_500(registry):
    async def silent(scope, receive, send):
        pass

    asyncio.run(call(MetricsMiddleware(silent, registry=registry)))
    assert requests(registry) == {("GET", "unmatched", "500"): 1}
    assert errors(registry) == {}


# ---------------------------------------------------------------------- time and endings


def clocked(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(http, "perf_counter", lambda: now[0])
    return now


def test_a_streaming_response_is_timed_to_its_last_byte(registry, monkeypatch):
    now = clocked(monkeypatch)

    async def pieces():
        for _ in range(5):
            now[0] += 2
            assert active(registry) == {"GET": 1}
            yield b"piece"

    app = FastAPI()
    app.add_middleware(MetricsMiddleware, registry=registry)
    app.get("/s")(lambda: StreamingResponse(pieces()))
    asyncio.run(call(app, "/s"))
    assert durations(registry) == {("GET", "/s"): (1, 10.0)}
    assert requests(registry) == {("GET", "/s", "200"): 1}
    assert active(registry) == {"GET": 0}


def test_background_tasks_are_not_the_requests_time_but_their_exception_is_an_error(registry, monkeypatch):
    now = clocked(monkeypatch)
    seen = []
    app = FastAPI()
    app.add_middleware(MetricsMiddleware, registry=registry)

    async def later():
        seen.append((requests(registry), active(registry)))
        now[0] += 100
        raise LookupError

    @app.get("/b")
    async def begin(tasks: BackgroundTasks):
        now[0] += 1
        tasks.add_task(later)
        return {}

    with pytest.raises(LookupError):
        asyncio.run(call(app, "/b"))
    assert seen == [({("GET", "/b", "200"): 1}, {"GET": 0})]
    assert requests(registry) == {("GET", "/b", "200"): 1}
    assert durations(registry) == {("GET", "/b"): (1, 1.0)}
    assert errors(registry) == {("http", "LookupError"): 1}
    assert active(registry) == {"GET": 0}


def test_a_file_that_the_server_sends_by_itself_ends_the_request(registry):
    async def sends_a_file(scope, receive, send):
        await send({"type": "http.response.start", "status": 206, "headers": []})
        await send({"type": "http.response.pathsend", "path": "/some/file"})

    asyncio.run(call(MetricsMiddleware(sends_a_file, registry=registry)))
    assert requests(registry) == {("GET", "unmatched", "206"): 1}


def test_a_client_that_leaves_is_499_and_no_error(registry):
    """As uvicorn tells it: by `receive`; and as other servers do: `send` raises."""

    async def endless():
        while True:
            yield b"x" * 10
            await asyncio.sleep(0)

    app = FastAPI()
    app.add_middleware(MetricsMiddleware, registry=registry)
    app.get("/s")(lambda: StreamingResponse(endless()))

    async def gone():
        return {"type": "http.disconnect"}

    async def broken(message):
        raise OSError("the client is gone")

    asyncio.run(call(app, "/s", receive=gone))
    with pytest.raises(ClientDisconnect):
        asyncio.run(call(app, "/s", send=broken, asgi={"version": "3.0", "spec_version": "2.4"}))
    assert requests(registry) == {("GET", "/s", "499"): 2}
    assert errors(registry) == {}
    assert active(registry) == {"GET": 0}


def test_a_client_that_leaves_while_it_sends_is_499(registry):
    async def upload(request):
        return PlainTextResponse(await request.body())

    app = Starlette(routes=[Route("/up", upload, methods=["POST"])])
    app.add_middleware(MetricsMiddleware, registry=registry)

    async def gone():
        return {"type": "http.disconnect"}

    with pytest.raises(ClientDisconnect):
        asyncio.run(call(app, "/up", "POST", receive=gone))
    assert requests(registry) == {("POST", "/up", "499"): 1}
    assert errors(registry) == {}


def test_a_cancelled_request_is_499_and_stays_cancelled(registry):
    app = FastAPI()
    app.add_middleware(MetricsMiddleware, registry=registry)
    began = asyncio.Event()

    @app.get("/waits/{x}")
    async def waits(x: int):
        began.set()
        await asyncio.Event().wait()

    async def main():
        task = asyncio.create_task(call(app, "/waits/3"))
        await began.wait()
        assert active(registry) == {"GET": 1}
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert requests(registry) == {("GET", "/waits/{x}", "499"): 1}
    assert errors(registry) == {}
    assert active(registry) == {"GET": 0}


def test_requests_at_the_same_time_are_all_active(registry):
    app = FastAPI()
    app.add_middleware(MetricsMiddleware, registry=registry)
    began, go_on = asyncio.Semaphore(0), asyncio.Event()

    @app.post("/waits/{x}")
    @app.get("/waits/{x}")
    async def waits(x: int):
        began.release()
        await go_on.wait()
        return {}

    async def main():
        tasks = [asyncio.create_task(call(app, f"/waits/{n}", "POST" if n % 4 else "GET")) for n in range(100)]
        for _ in tasks:
            await began.acquire()
        assert active(registry) == {"GET": 25, "POST": 75}
        go_on.set()
        await asyncio.gather(*tasks)

    asyncio.run(main())
    assert active(registry) == {"GET": 0, "POST": 0}
    assert requests(registry) == {("GET", "/waits/{x}", "200"): 25, ("POST", "/waits/{x}", "200"): 75}


# ---------------------------------------------------------------------- what a client chooses


def test_head_404_405_and_redirects_have_bounded_labels(registry):
    app = FastAPI()
    app.add_middleware(MetricsMiddleware, registry=registry)
    app.add_api_route("/items/{item_id}", lambda item_id: {}, methods=["GET", "HEAD"])
    app.add_api_route("/slash/", lambda: None)

    async def main():
        async with client(app) as asking:
            assert (await asking.head("/items/1")).status_code == 200
            assert (await asking.delete("/items/1")).status_code == 405
            assert (await asking.get("/slash")).status_code == 307
            for number in range(50):
                assert (await asking.get(f"/attack/{number}")).status_code == 404
                await asking.request(f"HACK{number}", f"/attack/{number}")

    asyncio.run(main())
    assert requests(registry) == {
        ("HEAD", "/items/{item_id}", "200"): 1,
        ("DELETE", "/items/{item_id}", "405"): 1,
        ("GET", "unmatched", "307"): 1,
        ("GET", "unmatched", "404"): 50,
        ("OTHER", "unmatched", "404"): 50,
    }
    assert set(active(registry)) == {"HEAD", "DELETE", "GET", "OTHER"}


def test_an_application_cannot_fill_the_memory_with_statuses(registry, monkeypatch):
    monkeypatch.setattr(http, "_BOUND", 10)

    async def odd(scope, receive, send):
        await send({"type": "http.response.start", "status": scope["status"], "headers": []})
        await send({"type": "http.response.body", "body": b""})

    middleware = MetricsMiddleware(odd, registry=registry)
    for status in (*range(100, 150), "text", None):
        asyncio.run(call(middleware, status=status))
    assert len(middleware._series) <= 10
    assert requests(registry)["GET", "unmatched", "invalid"] == 2
    assert requests(registry)["GET", "unmatched", "149"] == 1


def test_mounted_applications_are_in_the_template(registry):
    sub = FastAPI()
    sub.get("/items/{item_id}")(lambda item_id: {})
    app = FastAPI()
    app.add_middleware(MetricsMiddleware, registry=registry)
    app.mount("/sub/{tenant}", sub)
    for tenant in ("a", "b", "c"):
        asyncio.run(call(app, f"/sub/{tenant}/items/{tenant}"))
        asyncio.run(call(app, f"/sub/{tenant}/nothing"))
    assert requests(registry) == {
        ("GET", "/sub/{tenant}/items/{item_id}", "200"): 3,
        ("GET", "unmatched", "404"): 3,
    }


# ---------------------------------------------------------------------- options


def test_excluded_paths_and_templates_are_not_counted(registry):
    app = FastAPI()
    app.add_middleware(MetricsMiddleware, registry=registry, exclude=["/metrics", "/private/{x}"])
    for path in ("/metrics", "/private/{x}", "/public/{x}", "/metricsx"):
        app.get(path)(lambda x="": {})

    @app.get("/private/{x}/fails")
    async def fails(x: str):
        raise KeyError

    for path in ("/metrics", "/metrics/", "/private/1", "/private/2", "/public/1", "/metricsx"):
        asyncio.run(call(app, path))
    assert requests(registry) == {("GET", "/public/{x}", "200"): 1, ("GET", "/metricsx", "200"): 1}
    assert active(registry) == {"GET": 0}


def test_one_path_may_be_excluded_as_a_text(registry):
    middleware = MetricsMiddleware(PlainTextResponse("ok"), registry=registry, exclude="/health")
    asyncio.run(call(middleware, "/health"))
    asyncio.run(call(middleware, "/h"))
    assert sum(requests(registry).values()) == 1


def test_a_request_that_passes_two_of_them_is_counted_once(registry):
    other = MetricsRegistry()
    sub = FastAPI()
    sub.add_middleware(MetricsMiddleware, registry=registry)
    sub.add_middleware(MetricsMiddleware, registry=other)

    @sub.get("/x")
    async def fails():
        raise KeyError

    app = Starlette(routes=[Mount("/sub", sub)])
    app.add_middleware(MetricsMiddleware, registry=registry)
    app.add_middleware(MetricsMiddleware, registry=registry)
    with pytest.raises(KeyError):
        asyncio.run(call(app, "/sub/x"))
    assert requests(registry) == {("GET", "/sub/x", "500"): 1}
    assert errors(registry) == {("http", "KeyError"): 1}
    assert requests(other) == {("GET", "/sub/x", "500"): 1}


# ---------------------------------------------------------------------- nothing is changed


@pytest.mark.parametrize("kind", ["websocket", "lifespan", "something.else"])
def test_other_scopes_pass_untouched(registry, kind):
    async def receive():
        return {}

    async def send(message):
        pass

    async def inner(*given):
        return given

    scope = {"type": kind, "path": "/ws"}
    same = dict(scope)
    given = asyncio.run(MetricsMiddleware(inner, registry=registry)(scope, receive, send))
    assert given[0] is scope and given[1] is receive and given[2] is send
    assert scope == same
    assert registry.families() == []


def test_messages_exceptions_and_what_is_returned_are_the_same_objects(registry):
    asked, told, answer = {"type": "http.request", "body": b"x"}, {"type": "http.response.debug", "odd": 1}, object()
    error = type("Odd", (BaseException,), {})("secret")
    sent = []

    async def receive():
        return asked

    async def send(message):
        sent.append(message)
        return answer

    async def inner(scope, receive, send):
        assert await receive() is asked
        assert await send(told) is answer
        if scope["path"] == "/fails":
            raise error
        return answer

    middleware = MetricsMiddleware(inner, registry=registry)
    assert asyncio.run(middleware(scope_of("/"), receive, send)) is answer
    with pytest.raises(BaseException) as raised:
        asyncio.run(middleware(scope_of("/fails"), receive, send))
    assert raised.value is error and error.__context__ is None
    assert sent[0] is told and sent[1] is told


def test_what_is_wrong_with_a_message_is_for_the_server_to_say(registry):
    before = guarded()
    sent = []

    async def odd(scope, receive, send):
        assert await receive() is None
        await send(None)
        await send({})
        await send({"type": "http.response.start"})

    async def receive():
        return None

    async def send(message):
        sent.append(message)

    asyncio.run(call(MetricsMiddleware(odd, registry=registry), receive=receive, send=send))
    assert sent == [None, {}, {"type": "http.response.start"}]
    assert guarded() > before


def test_metering_that_fails_is_counted_and_not_noticed():
    class Broken(MetricsRegistry):
        def gauge(self, *given, **more):
            raise RuntimeError("secret")

    before = guarded()
    sent = asyncio.run(call(MetricsMiddleware(PlainTextResponse("ok"), registry=Broken())))
    assert sent[1]["body"] == b"ok"
    assert guarded() == before + 1


def test_a_program_that_has_metrics_of_these_names_keeps_them():
    registry = MetricsRegistry()
    registry.counter("http_requests_total", "mine", ["method", "status"])
    registry.gauge("http_request_duration_seconds", "no histogram at all")
    before = guarded()
    for _ in range(2):
        sent = asyncio.run(call(MetricsMiddleware(PlainTextResponse("ok"), registry=registry)))
        assert sent[1]["body"] == b"ok"
    assert guarded() == before + 2
    assert active(registry) == {"GET": 0}


def test_middlewares_of_others_around_and_inside_change_nothing(registry):
    class Other(BaseHTTPMiddleware):
        async def dispatch(self, request, call_next):
            return await call_next(request)

    app = FastAPI()
    app.add_middleware(Other)
    app.add_middleware(MetricsMiddleware, registry=registry)
    app.add_middleware(Other)
    app.get("/items/{item_id}")(lambda item_id: {})

    async def main():
        async with client(app) as asking:
            for number in range(20):
                assert (await asking.get(f"/items/{number}")).json() == {}

    asyncio.run(main())
    assert requests(registry) == {("GET", "/items/{item_id}", "200"): 20}


def test_what_a_middleware_answers_before_any_route_is_unmatched(registry):
    class Refuses(BaseHTTPMiddleware):
        async def dispatch(self, request, call_next):
            return PlainTextResponse("no", status_code=401)

    app = FastAPI()
    app.add_middleware(Refuses)
    app.add_middleware(MetricsMiddleware, registry=registry)
    app.get("/items/{item_id}")(lambda item_id: {})
    asyncio.run(call(app, "/items/1"))
    assert requests(registry) == {("GET", "unmatched", "401"): 1}


# ---------------------------------------------------------------------- under a real server


@contextmanager
def served(app):
    """A real uvicorn; its port."""
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, ws="none"))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()))
    thread.start()
    try:
        until(lambda: server.started or not thread.is_alive())
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


def until(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_under_uvicorn_answers_errors_and_clients_that_leave_are_told_apart(registry):
    app = FastAPI()
    app.add_middleware(MetricsMiddleware, registry=registry)

    async def endless():
        while True:
            yield b"x" * 1000
            await asyncio.sleep(0.001)

    @app.get("/fails")
    async def fails():
        raise KeyError

    app.get("/items/{item_id}")(lambda item_id: {})
    app.get("/endless")(lambda: StreamingResponse(endless()))
    with served(app) as port:
        url = f"http://127.0.0.1:{port}"
        with httpx.Client(base_url=url) as asking:
            for number in range(20):
                assert asking.get(f"/items/{number}").status_code == 200
        assert httpx.get(f"{url}/fails").status_code == 500  # uvicorn closes the connection after it
        with httpx.stream("GET", f"{url}/endless") as response:
            pieces = response.iter_bytes()  # which ends the response when it is dropped
            next(pieces)
            assert active(registry)["GET"] == 1
        until(lambda: active(registry)["GET"] == 0)
    assert requests(registry) == {
        ("GET", "/items/{item_id}", "200"): 20,
        ("GET", "/fails", "500"): 1,
        ("GET", "/endless", "499"): 1,
    }
    assert errors(registry) == {("http", "KeyError"): 1}
