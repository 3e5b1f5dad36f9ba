import json

from hypothesis import given, settings
from hypothesis import strategies as st

from tellmeter.wire.json_array import JsonObjects


def cut(body, sizes):
    at = number = 0
    while at < len(body):
        size = sizes[number % len(sizes)]
        yield body[at : at + size]
        at += size
        number += 1


def found(body, sizes=(1 << 20,), limit=1 << 20):
    objects = JsonObjects(limit)
    return [one for piece in cut(body, sizes) for one in objects.feed(piece)]


TEXT = st.one_of(
    st.text(st.characters(exclude_categories=("Cs",)), max_size=8),
    st.sampled_from(['"', "\\", '\\"', "{", "}", "[", "]", '"}]', "},{", "\n"]),
)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-9, 9), TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXT, inner, max_size=3)),
    max_leaves=8,
)
SIZES = st.lists(st.integers(1, 40), min_size=1, max_size=8)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.dictionaries(TEXT, VALUES, max_size=4), max_size=5),
    SIZES,
    st.sampled_from([None, 2]),
    st.booleans(),
    st.sampled_from([b"", b"\n\n", b" \r\n"]),
)
def test_every_object_of_an_array_is_found_however_it_is_cut(objects, sizes, indent, ascii_only, around):
    body = around + json.dumps(objects, indent=indent, ensure_ascii=ascii_only).encode() + around
    assert [json.loads(one) for one in found(body, sizes)] == objects


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.one_of(st.binary(max_size=6), st.sampled_from([b"{", b"}", b"[", b"]", b'"', b"\\", b","])), max_size=30
    ),
    SIZES,
    st.integers(1, 30),
)
def test_cuts_change_nothing_whatever_the_bytes_are(pieces, sizes, limit):
    body = b"".join(pieces)
    assert found(body, sizes, limit) == found(body, limit=limit)


def test_an_object_is_there_with_its_last_byte():
    objects = JsonObjects()
    assert list(objects.feed(b'[{"a": [{}, "]}\\"')) == []
    assert list(objects.feed(b'}"]}')) == [b'{"a": [{}, "]}\\"}"]}']
    assert list(objects.feed(b',\n{"b": 1')) == []
    assert list(objects.feed(b"}]")) == [b'{"b": 1}']


def test_a_single_object_and_what_stands_between():
    assert found(b'{"error": {"code": 400}}\n') == [b'{"error": {"code": 400}}']
    assert found(b'[1, "{", ["x"], {}, null, {"a": 1}]') == [b"{}", b'{"a": 1}']
    assert found(b"") == []


def test_a_large_object_is_told_once_and_not_kept():
    body = b'[{"a":"' + b"x" * 100 + b'"},{"b":1}]'
    assert found(body, limit=20) == found(body, (7,), limit=20) == [None, b'{"b":1}']
    objects = JsonObjects(20)
    held = [list(objects.feed(b'{"a":"')), list(objects.feed(b"x" * 50)), list(objects.feed(b"x" * 50))]
    assert held == [[], [None], []]
    assert not objects._kept
    assert list(objects.feed(b'"}{"b":1}')) == [b'{"b":1}']
