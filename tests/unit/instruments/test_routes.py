import asyncio

import pytest
from fastapi import APIRouter, FastAPI
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Host, Mount, Route, Router
from starlette.staticfiles import StaticFiles

from tellmeter import counts
from tellmeter.instruments import routes
from tellmeter.instruments.routes import Templates


async def plain(request):
    return PlainTextResponse("ok")


async def opaque(scope, receive, send):
    await PlainTextResponse("ok")(scope, receive, send)


def asked(app, path, method="GET", *, root_path="", host=b"testserver"):
    """The scope after the application answered."""
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "scheme": "http",
        "server": ("testserver", 80),
        "client": ("127.0.0.1", 1),
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(b"host", host)],
        "root_path": root_path,
    }

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        pass

    asyncio.run(app(scope, receive, send))
    return scope


def starlette_app(**options):
    inner = Router([Route("/things/{thing:int}", plain), Mount("/deep/{level}", routes=[Route("/x/{y}", plain)])])

    async def wrapped(scope, receive, send):
        await inner(scope, receive, send)

    return Starlette(
        routes=[
            Route("/", plain),
            Route("/items/{item_id:int}", plain),
            Route("/items/{name}", plain, methods=["POST"]),
            Mount("/sub", inner),
            Mount("/again", inner),
            Mount("/tenants/{tenant}", inner),
            Mount("/wrapped/{w}", wrapped),
            Mount("/opaque", opaque),
            Mount("/files", StaticFiles(directory=".", check_dir=False)),
            Host("{name}.example.org", Router([Route("/hosted/{h}", plain)])),
        ],
        **options,
    )


STARLETTE = [
    ("/", "/"),
    ("/items/3", "/items/{item_id}"),
    ("/sub/things/4", "/sub/things/{thing}"),
    ("/again/things/4", "/again/things/{thing}"),
    ("/tenants/acme/things/4", "/tenants/{tenant}/things/{thing}"),
    ("/tenants/acme/deep/7/x/8", "/tenants/{tenant}/deep/{level}/x/{y}"),
    ("/wrapped/acme/things/4", "/wrapped/{w}/things/{thing}"),
    ("/opaque/a/b", "/opaque/{path}"),
    ("/files/a.css", "/files/{path}"),
    ("/nothing", "unmatched"),
    ("/sub/nothing", "unmatched"),
    ("/tenants/acme/deep/7", "unmatched"),
]


@pytest.mark.parametrize("root_path", ["", "/proxy"])
@pytest.mark.parametrize("turned", [False, True])
def test_starlettes_templates_are_whole(root_path, turned):
    app, templates = starlette_app(), Templates()
    for _ in range(2):  # the second time from what is at hand
        for path, template in STARLETTE[::-1] if turned else STARLETTE:
            scope = asked(app, root_path + path, root_path=root_path)
            assert (path, templates.find(scope)) == (path, template)


def test_a_host_has_no_part_in_the_template():
    app = starlette_app()
    assert Templates().find(asked(app, "/hosted/5", host=b"acme.example.org")) == "/hosted/{h}"
    assert Templates().find(asked(app, "/nothing", host=b"acme.example.org")) == "unmatched"


def test_a_method_that_the_route_does_not_have_is_still_that_route():
    app = starlette_app()
    assert Templates().find(asked(app, "/items/3", "DELETE")) == "/items/{item_id}"
    assert Templates().find(asked(app, "/items/name", "DELETE")) == "/items/{name}"
    assert Templates().find(asked(app, "/sub/things/4", "DELETE")) == "/sub/things/{thing}"


def fastapi_app():
    app = FastAPI()
    inner, nested, twice = APIRouter(prefix="/v1"), APIRouter(prefix="/nested"), APIRouter()

    @app.get("/items/{item_id}")
    @inner.get("/items/{item_id}")
    @nested.get("/items/{item_id:int}")
    @twice.get("/twice/{one}")
    async def item(item_id: str = "", one: str = ""):
        return {}

    nested.add_route("/plain/{x}", plain)
    nested.mount("/mounted", Router([Route("/m/{n}", plain)]))
    inner.include_router(nested)
    app.include_router(inner, prefix="/api")
    app.include_router(twice, prefix="/a")
    app.include_router(twice, prefix="/b/{b}")
    app.add_route("/same/{one}", plain)
    app.add_route("/other/{two}", plain)
    app.mount("/opaque", opaque)
    app.mount("/starlette/{s}", starlette_app())
    sub = FastAPI()
    sub.include_router(nested, prefix="/in")
    sub.add_route("/plain", plain)
    sub.get("/direct/{d}")(item)
    app.mount("/sub/{name}", sub)
    return app


FASTAPI = [
    ("/items/3", "/items/{item_id}"),
    ("/api/v1/items/3", "/api/v1/items/{item_id}"),
    ("/api/v1/nested/items/3", "/api/v1/nested/items/{item_id}"),
    ("/api/v1/plain/3", "/api/v1/plain/{x}"),
    ("/a/twice/1", "/a/twice/{one}"),
    ("/b/1/twice/1", "/b/{b}/twice/{one}"),
    ("/same/1", "/same/{one}"),
    ("/other/1", "/other/{two}"),
    ("/docs", "/docs"),
    ("/openapi.json", "/openapi.json"),
    ("/opaque/a/b", "/opaque/{path}"),
    ("/starlette/1/items/3", "/starlette/{s}/items/{item_id}"),
    ("/starlette/1/tenants/acme/things/3", "/starlette/{s}/tenants/{tenant}/things/{thing}"),
    ("/sub/x/in/nested/items/3", "/sub/{name}/in/nested/items/{item_id}"),
    ("/sub/x/in/plain/3", "/sub/{name}/in/plain/{x}"),
    ("/sub/x/direct/3", "/sub/{name}/direct/{d}"),
    ("/sub/x/plain", "/sub/{name}/plain"),
    ("/sub/x/docs", "/sub/{name}/docs"),
    ("/api/v1/mounted/m/2", "/api/v1/mounted/m/{n}"),
    ("/nothing", "unmatched"),
    ("/api/v1/nothing", "unmatched"),
    ("/sub/x/nothing", "unmatched"),
]


@pytest.mark.parametrize("turned", [False, True])
def test_fastapis_templates_are_whole(turned):
    app, templates = fastapi_app(), Templates()
    for _ in range(2):
        for path, template in FASTAPI[::-1] if turned else FASTAPI:
            assert (path, templates.find(asked(app, path))) == (path, template)


def test_fastapi_behind_a_proxy():
    app = FastAPI()
    app.root_path = "/proxy"  # as the deprecated argument and `fastapi run --root-path` set it
    app.mount("/sub/{name}", fastapi_app())
    app.add_route("/plain/{x}", plain)
    templates = Templates()
    assert templates.find(asked(app, "/proxy/sub/x/items/3")) == "/sub/{name}/items/{item_id}"
    assert templates.find(asked(app, "/proxy/plain/3")) == "/plain/{x}"


def test_a_route_of_any_other_framework_is_its_path():
    class Theirs:
        path = "/theirs/{x}"

    assert Templates().find({"route": Theirs(), "path": "/theirs/3"}) == "/theirs/{x}"
    assert Templates().find({"route": object(), "path": "/theirs/3"}) == "unmatched"
    assert Templates().find({"endpoint": plain, "path": "/theirs/3"}) == "unmatched"
    assert Templates().find({}) == "unmatched"


def test_what_is_at_hand_is_bounded(monkeypatch):
    monkeypatch.setattr(routes, "_BOUND", 10)
    app, templates = fastapi_app(), Templates()
    for number in range(50):
        assert templates.find(asked(app, f"/same/{number}")) == "/same/{one}"
    assert len(templates._known) <= 10


def test_a_route_that_raises_is_counted_and_unmatched():
    class Broken:
        @property
        def path(self):
            raise RuntimeError("secret")

    before = counts.snapshot().get("guarded_errors", {}).get("http_route", 0)
    assert Templates().find({"route": Broken(), "path": "/x"}) == "unmatched"
    assert counts.snapshot()["guarded_errors"]["http_route"] == before + 1
