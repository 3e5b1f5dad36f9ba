"""instrument() and uninstrument(): the only place that changes anything of other libraries, and changes it back."""

from __future__ import annotations

import sys
import threading
import weakref
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from ..call import Target
from ..errors import ConfigError
from ..guard import note
from ..process import get_metrics_collector
from ..streams.options import StreamOptions, read_options
from . import stainless
from .calls import begin
from .exchange import Exchange
from .http import Send, metered_async_send, metered_send, module_of

HTTP_MODULES = ("httpx", "httpx2")

_lock = threading.RLock()
_metering_all = False
_target: Target | None = None  # where the calls go; the process's collector without one
_patched: dict[tuple[type, str], Any] = {}  # (class, method) -> our wrapper, which knows what it wraps
# id of an HTTP client -> that client, metered alone
_single: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()
_awaited: set[str] = set()  # modules that are hooked when they are imported


def instrument(
    client: Any = None, *, collector: Target | None = None, stream_options: Mapping[str, Any] | None = None
) -> None:
    """Meter every LLM call that this program makes through httpx or httpx2, whatever SDK is on top.

    Calling it again changes nothing. Libraries that are not imported yet are hooked when they are; none is imported
    for it.

    Args:
        client: meter only this one: an SDK's client (`OpenAI()`, `AsyncAnthropic()`), or an httpx or httpx2 client.
        collector: where the calls go; the process's collector (`configure()`) without one.
        stream_options: how the streams of this client are watched, as `{"callback": show, "interval": 500}`.

    Raises:
        ConfigError: a `client` in which no HTTP client is found; stream options without a client, or wrong ones.
    """
    global _metering_all, _target
    if stream_options is not None and client is None:
        raise ConfigError("instrument(stream_options=...) needs a client; for the process, set MetricsConfig's")
    with _lock:
        if client is not None:
            _instrument_one(_http_client(client), collector, read_options(stream_options) if stream_options else None)
        elif not _metering_all:
            _metering_all, _target = True, collector
            for name in HTTP_MODULES:
                _when_imported(name, _hook_http)
        for name in stainless.MODULES:
            _when_imported(name, _hook_stainless)


def uninstrument(client: Any = None) -> None:
    """Undo `instrument()`: for one client, or for everything. Calls in progress still end in their record."""
    global _metering_all, _target
    with _lock:
        if client is not None:
            _forget_one(_http_client(client))
            return
        _metering_all, _target = False, None
        for one in list(_single.values()):
            _forget_one(one)
        for (owner, name), wrapper in list(_patched.items()):
            # Whoever wrapped it after us stays; our wrapper then lets everything pass.
            if vars(owner).get(name) is wrapper:
                setattr(owner, name, wrapper.__wrapped__)  # type: ignore[union-attr]
                del _patched[(owner, name)]


def status() -> dict[str, str]:
    """What is hooked, by module: `hooked`, `waits for import` or `not hooked`."""
    active = _metering_all or bool(_single)
    hooked = {owner.__module__.partition(".")[0] for owner, _ in _patched} if active else set()
    found = {}
    for name in (*HTTP_MODULES, *stainless.MODULES):
        top = name.partition(".")[0]
        found[top] = "hooked" if top in hooked else "waits for import" if name in _awaited else "not hooked"
    return found


def _when_imported(name: str, hook: Callable[[ModuleType], None]) -> None:
    """Call `hook(module)` now if the module is there, else when it is imported; not at all once uninstrumented."""
    module = sys.modules.get(name)
    if module is not None and not _is_loading(module):
        _guarded_hook(hook, module)
        return
    if name in _awaited:
        return
    _awaited.add(name)
    import wrapt

    def imported(module: ModuleType) -> None:
        _awaited.discard(name)
        with _lock:
            if _metering_all or (_single and name in stainless.MODULES):
                _guarded_hook(hook, module)

    wrapt.register_post_import_hook(imported, name)


def _is_loading(module: ModuleType) -> bool:
    return bool(getattr(getattr(module, "__spec__", None), "_initializing", False))


def _guarded_hook(hook: Callable[[ModuleType], None], module: ModuleType) -> None:
    """An SDK that changed its shape must not break the program that imports it."""
    try:
        hook(module)
    except Exception as error:
        note("hook", error)


def _hook_http(module: ModuleType) -> None:
    _patch(module.Client, "send", lambda original: metered_send(original, module, _begin))
    _patch(module.AsyncClient, "send", lambda original: metered_async_send(original, module, _begin))


def _hook_stainless(module: ModuleType) -> None:
    _patch(module.SyncAPIClient, "request", stainless.joined_request)
    _patch(module.AsyncAPIClient, "request", stainless.joined_async_request)


def _patch(owner: type, name: str, wrapper_of: Callable[[Send], Send]) -> None:
    former = _patched.get((owner, name))
    if former is not None and vars(owner)[name] is not former.__wrapped__:
        return  # ours, or somebody's around ours
    made: Any = wrapper_of(vars(owner)[name])
    setattr(owner, name, made)
    _patched[(owner, name)] = made


def _current() -> Target | None:
    if _target is not None or not _metering_all:
        return _target
    return get_metrics_collector()


def _begin(request: Any) -> Exchange | None:
    return begin(_current, request)


def _instrument_one(client: Any, collector: Target | None, options: StreamOptions | None) -> None:
    if id(client) in _single:
        return
    module = module_of(client)
    assert module is not None
    wrapper_of = metered_send if isinstance(client, module.Client) else metered_async_send
    client.send = wrapper_of(
        client.send, module, lambda request: begin(lambda: _current_single(client, collector), request, options)
    )
    _single[id(client)] = client


def _current_single(client: Any, collector: Target | None) -> Target | None:
    if id(client) not in _single:
        return None
    return get_metrics_collector() if collector is None else collector


def _forget_one(client: Any) -> None:
    if _single.pop(id(client), None) is not None:
        vars(client).pop("send", None)


# Where SDKs keep their HTTP client: openai, anthropic and the Stainless family; google-genai; mistralai.
_CLIENT_PATHS = ("_client", "_api_client._httpx_client", "sdk_configuration.client", "http_client")


def _http_client(client: Any) -> Any:
    if module_of(client) is not None:
        return client
    for path in _CLIENT_PATHS:
        found = client
        for part in path.split("."):
            found = getattr(found, part, None)
        if found is not None and module_of(found) is not None:
            return found
    raise ConfigError(
        f"instrument() found no HTTP client in a {type(client).__name__}: "
        "give it an SDK's client, or an httpx or httpx2 client"
    )
