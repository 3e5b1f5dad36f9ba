"""What the callbacks of a stream get."""

import dataclasses

import pytest

from tellmeter.client.response import GenerationResponse, TokenUsage
from tellmeter.client.stream_events import (
    StreamCompleted,
    StreamDelta,
    StreamFailed,
    StreamStarted,
    StreamUsage,
)

WHO = {"provider": "openai", "model": "m", "request_id": "r", "timestamp": 1.5}
RESPONSE = GenerationResponse(
    text="canary",
    model="m",
    provider="openai",
    usage=TokenUsage(),
    cost_usd=None,
    cost_breakdown=None,
    finish_reason="stop",
)
EVENTS = [
    StreamStarted(**WHO),
    StreamDelta(**WHO, delta="canary", chunk_index=0),
    StreamUsage(**WHO, usage=TokenUsage(), cost_usd=0.5, is_estimated=False),
    StreamCompleted(**WHO, total_chunks=1, duration_ms=2.0, final_usage=TokenUsage(), response=RESPONSE),
    StreamFailed(**WHO, error=ValueError("canary"), error_type="ValueError", is_retryable=False),
]


@pytest.mark.security(3)
@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_all_say_whose_they_are_and_no_repr_what_was_said(event):
    assert (event.provider, event.model, event.request_id, event.timestamp) == tuple(WHO.values())
    assert "canary" not in repr(event) and "request_id='r'" in repr(event)
    with pytest.raises(dataclasses.FrozenInstanceError):
        event.model = "other"


def test_a_delta_gives_its_text():
    assert EVENTS[1].get_text() == EVENTS[1].delta == "canary"
