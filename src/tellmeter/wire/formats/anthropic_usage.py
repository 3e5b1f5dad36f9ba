"""Token counts as Anthropic states them, at its own API and under Amazon Bedrock."""

from __future__ import annotations

import msgspec

from ...usage import Usage


class Written(msgspec.Struct, gc=False):
    """What was written to the cache, by how long it stays."""

    ephemeral_5m_input_tokens: int | None = None
    ephemeral_1h_input_tokens: int | None = None


class Made(msgspec.Struct, gc=False):
    """Parts of the output."""

    thinking_tokens: int | None = None


class AnthropicUsage(msgspec.Struct, gc=False):
    """The `usage` object; families at Bedrock that state input and output alone fit in."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_creation: Written | None = None
    output_tokens_details: Made | None = None
    service_tier: str | None = None

    def merge(self, stated: AnthropicUsage) -> bool:
        """Take over the fields that are stated; whether there were any."""
        changed = False
        for field in AnthropicUsage.__struct_fields__:
            value = getattr(stated, field)
            if value is not None:
                setattr(self, field, value)
                changed = True
        return changed


def usage_of(stated: AnthropicUsage | None) -> Usage | None:
    """Tokens as they are billed: the input holds what was read from or written to the cache. None without any."""
    if stated is None or (stated.input_tokens is None and stated.output_tokens is None):
        return None
    read = stated.cache_read_input_tokens or 0
    written = stated.cache_creation or Written()
    hour = written.ephemeral_1h_input_tokens or 0
    write = stated.cache_creation_input_tokens
    if write is None:
        write = hour + (written.ephemeral_5m_input_tokens or 0)
    made = stated.output_tokens_details or Made()
    return Usage(
        input_tokens=(stated.input_tokens or 0) + read + write,
        output_tokens=stated.output_tokens or 0,
        cached_tokens=read,
        cache_write_tokens=write,
        cache_write_1h_tokens=hour,
        reasoning_tokens=made.thinking_tokens or 0,
    )
