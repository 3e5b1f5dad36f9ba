"""Turn: what one attempt of the LLMClient holds while it is under way, and what its end says of the provider."""

from __future__ import annotations

from ..errors import ProviderError
from .calls import ClientCall
from .reliability.breaker import Permit
from .reliability.limiter import Limiter

# What says that a provider, or the way to it, is in trouble. Whoever answers anything else is there.
_FAULTS = frozenset({"server_error", "overloaded", "network", "timeout"})


class Turn:
    """One attempt: its place in the limit of concurrent ones, and its permit of the breaker, until it is settled."""

    def __init__(self, call: ClientCall, limiter: Limiter | None, permit: Permit | None) -> None:
        self._call: ClientCall | None = call
        self._limiter = limiter
        self._permit = permit

    def __del__(self) -> None:
        """An event loop that was closed under a stream lets nobody close it: its place must not be lost with it."""
        call = self._call
        if call is not None:
            self.over(GeneratorExit())
            call.end("abandoned")

    def over(self, error: BaseException | None = None) -> None:
        """It came to an end, with the error as it was explained, if there was one. Later calls do nothing."""
        limiter, permit = self._limiter, self._permit
        self._call = self._limiter = self._permit = None
        if limiter is not None:
            limiter.release()
        if permit is None:
            return
        if error is None:
            permit.succeeded()
        elif isinstance(error, ProviderError) and getattr(error, "limit", "") != "total":
            if error.category in _FAULTS:
                permit.failed()
            elif error.status_code is not None and error.category != "rate_limit":
                permit.succeeded()
        permit.released()
