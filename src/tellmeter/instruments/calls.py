"""meter_call: calls that no hook sees."""

from __future__ import annotations

from ..call import Call
from ..collector import get_metrics_collector


def meter_call(
    *,
    model: str,
    provider: str = "",
    operation: str = "chat",
    method: str = "generate",
    request_id: str | None = None,
) -> Call:
    """Meter a block as one LLM call: `with meter_call(provider="ollama", model="llama3") as call: ...`, or `async with`.

    What the block learns is set on `call` (`call.input_tokens = 12`); an exception of the block is recorded by its class
    and goes on. `method="stream"` makes it a stream, whose first token `call.first_token()` notes.
    """
    return get_metrics_collector().track_request(
        provider=provider, model=model, operation=operation, method=method, request_id=request_id
    )
