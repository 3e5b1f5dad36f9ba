"""Which route answered a request: its template, as Starlette and FastAPI know it after routing.

They leave the route in the scope, but only the innermost one, with its path below what it is mounted at. Where that is
not the whole template, the routes are asked again, with the `matches()` that the framework asks itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ..guard import note

UNMATCHED = "unmatched"
_BOUND = 4096  # routes at hand; raw paths may be part of a key

Scope = Mapping[str, Any]


class Templates:
    """The templates of the routes that answered so far."""

    def __init__(self) -> None:
        # The routes are kept beside their templates, so that no other object has their id meanwhile.
        self._known: dict[tuple[Any, ...], tuple[str, tuple[Any, ...]]] = {}

    def find(self, scope: Scope) -> str:
        """The template of the route that answered, as `/items/{item_id}`; "unmatched" where none did. Never raises.

        `scope`: the one that the application was given, after it answered.
        """
        try:
            route, endpoint = scope.get("route"), scope.get("endpoint")
            if route is None and endpoint is None:
                return UNMATCHED
            context = _context(scope, route)
            # FastAPI leaves no plain route: two of them may share an endpoint, and only the path tells them apart.
            own = endpoint is not None and (
                getattr(route, "endpoint", None) is endpoint or getattr(route, "app", None) is endpoint
            )
            key = (id(route), id(endpoint), id(context), scope.get("root_path"), None if own else scope.get("path"))
            found = self._known.get(key)
            if found is None:
                if len(self._known) >= _BOUND:
                    self._known.clear()
                found = self._known[key] = (_template(scope, route, context), (route, endpoint, context))
            return found[0]
        except Exception as error:
            note("http_route", error)
            return UNMATCHED


def _template(scope: Scope, route: Any, context: Any) -> str:
    root = scope.get("root_path") or ""
    top = scope.get("app_root_path", root)
    if route is not None and root == top and not _is_mount(route):
        return _path(context or route) or UNMATCHED
    routes = getattr(scope.get("router"), "routes", ())
    # As the scope was before any routing; `matches()` may write into it.
    asked = {key: value for key, value in scope.items() if key not in _OF_ROUTING}
    return _search(routes, {**asked, "root_path": top}, scope, context or route) or UNMATCHED


_OF_ROUTING = frozenset({"route", "endpoint", "path_params", "router", "fastapi", "app_root_path"})


def _search(routes: Iterable[Any], asked: dict[str, Any], scope: Scope, last: Any) -> str | None:
    """The template of the route among `routes` that the framework chooses: the first full match, else the first one.

    `last`: the route that the framework left in the scope, which is below a mount that shows no routes.
    """
    partial = None
    for route in _flat(routes):
        match, child = route.matches(asked)
        if not match.value:
            continue
        below = {**asked, **child}
        if _is_mount(route):
            return _below(route, below, scope, last)
        if match.name == "FULL":
            return _path(route)
        if partial is None:
            partial = _path(route)
    return partial


def _below(mount: Any, asked: dict[str, Any], scope: Scope, last: Any) -> str | None:
    whole = _path(mount) or ""  # a host has none
    prefix = whole.removesuffix("/{path}")
    routes = getattr(mount, "routes", None)
    if routes:
        found = _search(routes, asked, scope, last)
        return None if found is None else prefix + found
    if last is not None and not _is_mount(last) and asked.get("root_path") == scope.get("root_path"):
        return prefix + (_path(last) or "")
    return whole or None


def _flat(routes: Iterable[Any]) -> Iterator[Any]:
    """The routes, those of FastAPI's included routers among them with their whole paths."""
    for route in routes:
        contexts = getattr(route, "effective_route_contexts", None)
        if contexts is None:
            yield route
        else:
            for context in contexts():
                yield getattr(context, "starlette_route", None) or context


def _context(scope: Scope, route: Any) -> Any:
    """What FastAPI knows of a route of an included router: its path with the prefixes. None for any other."""
    known = scope.get("fastapi")
    context = known.get("effective_route_context") if isinstance(known, dict) else None
    return context if context is not None and getattr(context, "original_route", None) is route else None


def _is_mount(route: Any) -> bool:
    """Whether an application of its own is below: a mount or a host."""
    return hasattr(route, "routes") and hasattr(route, "app")


def _path(route: Any) -> str | None:
    for name in ("path_format", "path"):
        path = getattr(route, name, None)
        if isinstance(path, str) and path:
            return path
    return None
