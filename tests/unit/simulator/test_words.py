"""What simulated models say: counted text, and JSON that fits."""

import random
from typing import Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tellmeter.simulator.words import count, cut, grouped, instance, instance_json, pieces


class Item(msgspec.Struct):
    name: str
    price: float
    many: int
    kind: Literal["lamp", "kettle"]


class Basket(msgspec.Struct):
    items: list[Item]
    paid: bool
    note: str | None
    first: Item


class Node(msgspec.Struct):
    value: int
    below: "Node | None"


@given(st.integers(0, 500), st.integers())
def test_text_has_as_many_pieces_as_asked(many, seed):
    said = pieces(random.Random(seed), many)
    assert len(said) == many
    assert all(said)


@given(st.text())
def test_cut_text_joins_again_and_has_as_many_pieces_as_counted(text):
    assert "".join(cut(text)) == text
    assert len(cut(text)) == count(text)


@given(st.lists(st.text(min_size=1)), st.integers(1, 9), st.integers())
def test_groups_joined_are_all_pieces(said, most, seed):
    groups = grouped(said, most, random.Random(seed))
    assert [piece for group in groups for piece in group] == said
    assert all(1 <= len(group) <= most for group in groups)


@pytest.mark.parametrize("kind", [Item, Basket, list[Item], dict[str, int], bool, Literal["a", "b"]])
@pytest.mark.parametrize("seed", range(20))
def test_json_fits_the_schema(kind, seed):
    schema = msgspec.json.schema(kind)
    assert msgspec.json.decode(instance_json(schema, random.Random(seed)), type=kind) is not None


def test_a_schema_that_refers_to_itself_ends():
    reply = instance_json(msgspec.json.schema(Node), random.Random(1))
    assert isinstance(msgspec.json.decode(reply, type=Node), Node)
    endless = {"$defs": {"N": {"properties": {"n": {"$ref": "#/$defs/N"}}, "required": ["n"]}}, "$ref": "#/$defs/N"}
    assert isinstance(instance(endless, random.Random(1)), dict)


@pytest.mark.parametrize(
    ("schema", "fits"),
    [
        ({"type": "integer", "minimum": 5, "maximum": 7}, lambda v: 5 <= v <= 7),
        ({"type": "integer", "exclusiveMinimum": 5, "exclusiveMaximum": 7}, lambda v: v == 6),
        ({"type": "integer", "multipleOf": 10, "minimum": 1, "maximum": 25}, lambda v: v in {10, 20}),
        ({"type": "number", "minimum": 0, "maximum": 1}, lambda v: 0 <= v <= 1),
        ({"type": "array", "items": {"type": "string"}, "minItems": 3}, lambda v: len(v) >= 3),
        ({"type": "array", "items": {"type": "string"}, "maxItems": 0}, lambda v: v == []),
        ({"type": "string", "minLength": 40, "maxLength": 41}, lambda v: 40 <= len(v) <= 41),
        ({"type": "string", "format": "date"}, lambda v: len(v) == 10),
        ({"type": ["string", "null"]}, lambda v: isinstance(v, str)),
        ({"type": "null"}, lambda v: v is None),
        ({"type": "INTEGER", "minimum": 5, "maximum": 7}, lambda v: 5 <= v <= 7),
        ({"const": 3}, lambda v: v == 3),
        ({"oneOf": [{"type": "boolean"}]}, lambda v: isinstance(v, bool)),
        (
            {"allOf": [{"properties": {"a": {"const": 1}}}, {"properties": {"b": {"const": 2}}}]},
            {"a": 1, "b": 2}.__eq__,
        ),
        ({"properties": {"a": {"type": "string"}}}, lambda v: isinstance(v["a"], str)),
        (True, lambda v: isinstance(v, str)),
    ],
)
@pytest.mark.parametrize("seed", range(5))
def test_limits_are_kept(schema, fits, seed):
    assert fits(instance(schema, random.Random(seed)))
