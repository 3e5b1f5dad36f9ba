"""meter_call: calls that no hook sees."""

from __future__ import annotations

from ..block_call import BlockCall
from ..process import get_metrics_collector


def meter_call(
    *,
    model: str,
    provider: str = "",
    operation: str = "chat",
    method: str = "generate",
    request_id: str | None = None,
) -> BlockCall:
    """Meter a block of one's own code as one LLM call, with `with` or `async with`.

    What the block learns is set on the call that it gets (`call.input_tokens = 12`); an exception of the block is
    recorded by its class and goes on. `method="stream"` makes it a stream; `call.first_token()` notes the first token.
    Where a hook sees the call inside the block, what the hook sees is recorded in its place.
    """
    return get_metrics_collector().track_request(
        provider=provider, model=model, operation=operation, method=method, request_id=request_id
    )
