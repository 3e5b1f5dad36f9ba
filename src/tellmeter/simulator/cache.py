"""The simulated prompt cache: which beginnings of prompts were seen before."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence

from .words import CHARS_PER_TOKEN, count

BLOCK_TOKENS = 128  # OpenAI caches in steps of this many tokens


class PromptCache:
    """Remembers prompts by hashes of their beginnings, never by their text.

    `minimum` is the shortest beginning in tokens that is cached. At most `most` beginnings are kept, the latest.
    """

    def __init__(self, minimum: int, most: int = 100_000) -> None:
        self._minimum = minimum
        self._block = min(BLOCK_TOKENS, minimum)
        self._most = most
        self._known: OrderedDict[bytes, None] = OrderedDict()

    def read(self, model: str, prompt: str) -> int:
        """OpenAI's way: the longest known beginning in whole blocks, in tokens. Remembers the prompt."""
        size = self._block * CHARS_PER_TOKEN
        cached, known = 0, True
        chain = hashlib.blake2b(model.encode(), digest_size=12)
        for end in range(size, len(prompt) + 1, size):
            chain.update(prompt[end - size : end].encode("utf-8", "replace"))
            known = self._seen(chain.digest()) and known
            if known:
                cached = end // CHARS_PER_TOKEN
        return cached if cached >= self._minimum else 0

    def read_marked(self, model: str, prompt: str, marks: Sequence[int]) -> tuple[int, int]:
        """Anthropic's way: (tokens read, tokens written), where `marks` (offsets in characters) are what to cache."""
        read = last = start = 0
        chain = hashlib.blake2b(f"marked {model}".encode(), digest_size=12)
        for mark in sorted(marks):
            chain.update(prompt[start:mark].encode("utf-8", "replace"))
            start = mark
            tokens = count(prompt[:mark])
            if tokens < self._minimum:
                continue
            last = tokens
            if self._seen(chain.digest()):
                read = tokens
        return read, last - read

    def _seen(self, key: bytes) -> bool:
        if key in self._known:
            self._known.move_to_end(key)
            return True
        self._known[key] = None
        if len(self._known) > self._most:
            self._known.popitem(last=False)
        return False
