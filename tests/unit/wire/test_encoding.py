from __future__ import annotations

import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tellmeter.wire.encoding import decoder_of

ENCODERS = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
    "GZIP ": gzip.compress,
}


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


@given(st.binary(min_size=1, max_size=2000), st.sampled_from(sorted(ENCODERS)), st.integers(1, 50))
def test_what_was_encoded_comes_back_however_it_was_cut(data: bytes, coding: str, cut: int) -> None:
    decode = decoder_of(coding)
    assert decode is not None
    packed = ENCODERS[coding](data)
    assert b"".join(decode(packed[start : start + cut]) for start in range(0, len(packed), cut)) == data


def test_deflate_without_its_wrapper_is_understood() -> None:
    decode = decoder_of("deflate")
    assert decode is not None
    packed = raw_deflate(b"hello" * 100)
    assert decode(packed[:20]) + decode(packed[20:]) == b"hello" * 100


def test_no_coding_needs_no_decoder() -> None:
    assert decoder_of("") is None
    assert decoder_of("identity") is None


def test_an_unknown_coding_is_told() -> None:
    with pytest.raises(LookupError):
        decoder_of("rot13")
