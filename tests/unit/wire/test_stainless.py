from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tellmeter.wire import stainless
from tellmeter.wire.exchange import current_scope


class Seen:
    __name__ = "seen"

    def __init__(self) -> None:
        self.scopes: list[Any] = []

    def __call__(self, *given: Any, **more: Any) -> Any:
        self.scopes.append(current_scope.get())
        return "answer"

    async def later(self, *given: Any, **more: Any) -> Any:
        await asyncio.sleep(0)
        return self(*given, **more)


def test_a_scope_is_around_the_request_and_closed_after_it() -> None:
    seen = Seen()
    assert stainless.joined_request(seen)(1, a=2) == "answer"
    (scope,) = seen.scopes
    assert scope is not None and not scope.open
    assert current_scope.get() is None


def test_a_scope_inside_a_scope_is_the_outer_one() -> None:
    seen = Seen()
    stainless.joined_request(lambda: (seen(), stainless.joined_request(seen)()))()
    assert seen.scopes[0] is seen.scopes[1]


def test_an_exception_closes_the_scope_and_goes_on() -> None:
    seen = Seen()

    def fail() -> None:
        seen()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stainless.joined_request(fail)()
    assert not seen.scopes[0].open and current_scope.get() is None


def test_concurrent_async_requests_have_scopes_of_their_own() -> None:
    seen = Seen()

    async def main() -> None:
        requests = [stainless.joined_async_request(seen.later)() for _ in range(5)]
        assert await asyncio.gather(*requests) == ["answer"] * 5

    asyncio.run(main())
    assert len({id(scope) for scope in seen.scopes}) == 5
    assert current_scope.get() is None
