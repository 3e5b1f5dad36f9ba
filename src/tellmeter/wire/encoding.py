"""Content codings of streamed bodies: what the HTTP library decodes for the application, decoded here for the meter."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable

Decode = Callable[[bytes], bytes]


def decoder_of(coding: str) -> Decode | None:
    """A decoder for a Content-Encoding; None for `identity` and for "" . An unknown coding raises `LookupError`.

    Brotli and Zstandard come from the packages that the HTTP library itself uses: it asks for them only where they are.
    """
    coding = coding.strip().lower()
    if coding in ("", "identity"):
        return None
    if coding in ("gzip", "x-gzip"):
        return zlib.decompressobj(zlib.MAX_WBITS | 16).decompress
    if coding == "deflate":
        return _deflate()
    if coding == "br":
        library = sys.modules.get("brotli") or sys.modules.get("brotlicffi")
        if library is not None:
            brotli = library.Decompressor()
            decode: Decode = brotli.decompress if hasattr(brotli, "decompress") else brotli.process
            return decode
    if coding == "zstd":
        library = sys.modules.get("zstandard")
        if library is not None:
            decode_zstd: Decode = library.ZstdDecompressor().decompressobj().decompress
            return decode_zstd
    raise LookupError(coding)


def _deflate() -> Decode:
    """zlib-wrapped as RFC 9110 says, or raw as some servers send it; the first bytes tell."""
    state: list[Decode] = []

    def decode(data: bytes) -> bytes:
        if state:
            return state[0](data)
        state.append(zlib.decompressobj().decompress)
        try:
            return state[0](data)
        except zlib.error:
            state[0] = zlib.decompressobj(-zlib.MAX_WBITS).decompress
            return state[0](data)

    return decode
