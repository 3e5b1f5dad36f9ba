"""How many tokens a stream has brought, as long as its provider has not said so."""

from __future__ import annotations

BYTES_PER_TOKEN = 4
r"""OpenAI's rule of thumb for English ("What are tokens and how to count them?"). In UTF-8 it suits Chinese and
Japanese too: 3 bytes a character, which is about a token. As `\u4f60`, 6 bytes, it finds twice as many.
"""
BYTES_PER_EVENT = 6
"""Up to which an event is one token: streams that send a token an event have 4.5 to 5.5 bytes in each."""
TOOL_CALL_TOKENS = 16
"""What a call costs beside its arguments: its name and the frame around it. Recorded calls without arguments took 12 to
20 tokens at OpenAI and xAI, 40 at Anthropic.
"""


def estimated_tokens(content_events: int, text_size: int, tool_calls: int = 0) -> int:
    """Output tokens by the events that carried content, the bytes of their text, and the calls of tools among them.

    Many providers send a token an event; others pack twenty into one, and there the bytes tell. From 6 to 8 bytes an
    event the one turns into the other, so that nothing jumps. What the model makes and does not send is not in it:
    reasoning that is hidden or summed up.

    Measured over 265 recorded streams (tests/exchanges/test_estimates.py), estimate / stated tokens, median, and the
    factor that 9 of 10 are within: 0.92, 2.1 (by events alone 0.50, 12); OpenAI's chat 1.00, 1.4 (0.95, 4.4); Anthropic
    0.67, 3.0 (0.18, 24), whose thinking is summed up.
    """
    beyond = text_size - BYTES_PER_EVENT * content_events
    tokens = content_events
    if beyond > 0:
        tokens = min(content_events + beyond // 2, round(text_size / BYTES_PER_TOKEN))
    return tokens + TOOL_CALL_TOKENS * tool_calls
