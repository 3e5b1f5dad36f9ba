"""What the simulated models say: seeded text in pieces of one token each, and JSON that fits a schema."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

CHARS_PER_TOKEN = 4  # close to what every tokenizer makes of English

_WORDS = str.split(
    "the a our your this that order parcel return refund size colour shop stock price delivery basket gift card "
    "warranty store today tomorrow morning week item shirt lamp kettle bicycle backpack is was will can arrives ships "
    "costs includes fits comes with without for from before after about and but because so very quite blue green "
    "light small large cheaper faster please thanks note choose check compare"
)
_DEEPEST = 6  # a schema may refer to itself


def pieces(rng: random.Random, count: int) -> list[str]:
    """`count` pieces of text, one token each; joined they are sentences."""
    made: list[str] = []
    starts = True
    while len(made) < count:
        word = rng.choice(_WORDS)
        if starts:
            made.append(word.capitalize() if not made else f" {word.capitalize()}")
        else:
            made.append(f" {word}")
        starts = len(made) < count and not starts and rng.random() < 0.1
        if starts:
            made.append(".")
    return made


def cut(text: str, size: int = CHARS_PER_TOKEN) -> list[str]:
    """`text` in pieces of one token each."""
    return [text[start : start + size] for start in range(0, len(text), size)]


def grouped(said: list[str], most: int, rng: random.Random) -> list[list[str]]:
    """Pieces in groups of one to `most`, as they come over the wire."""
    groups = []
    start = 0
    while start < len(said):
        groups.append(said[start : start + rng.randint(1, most)])
        start += len(groups[-1])
    return groups


def count(text: str) -> int:
    """About how many tokens `text` has."""
    return -(-len(text) // CHARS_PER_TOKEN)


def instance_json(schema: Mapping[str, Any], rng: random.Random) -> str:
    """JSON text of a value that fits `schema`."""
    return msgspec.json.encode(instance(schema, rng)).decode()


def instance(schema: Any, rng: random.Random, root: Any = None, depth: int = 0) -> Any:
    """A value that fits a JSON schema, as far as structured outputs and tools use the language."""
    root = schema if root is None else root
    if depth > 4 * _DEEPEST:
        return None  # nothing finite fits
    if not isinstance(schema, Mapping):
        return "yes"
    if "$ref" in schema:
        return instance(_resolve(root, str(schema["$ref"])), rng, root, depth + 1)
    for key in ("const", "default"):
        if key in schema:
            return schema[key]
    if schema.get("enum"):
        return rng.choice(schema["enum"])
    for key in ("anyOf", "oneOf"):
        if schema.get(key):
            # The last alternative is where optional values put null: the way out of a schema that refers to itself.
            return instance(schema[key][-1 if depth > _DEEPEST else 0], rng, root, depth + 1)
    if schema.get("allOf"):
        parts = [instance(part, rng, root, depth + 1) for part in schema["allOf"]]
        return {k: v for part in parts for k, v in part.items()} if isinstance(parts[0], dict) else parts[0]
    kind = schema.get("type", "object" if "properties" in schema else "string")
    if isinstance(kind, Sequence) and not isinstance(kind, str):
        kind = kind[-1 if depth > _DEEPEST else 0]
    make = _MAKERS.get(str(kind).lower())  # Google writes types in capitals
    return make(schema, rng, root, depth) if make is not None else None


def _object(schema: Mapping[str, Any], rng: random.Random, root: Any, depth: int) -> dict[str, Any]:
    properties = schema.get("properties") or {}
    names = list(properties) if depth <= _DEEPEST else [n for n in schema.get("required", ()) if n in properties]
    return {name: instance(properties[name], rng, root, depth + 1) for name in names}


def _array(schema: Mapping[str, Any], rng: random.Random, root: Any, depth: int) -> list[Any]:
    least = schema.get("minItems", 0)
    size = least if depth > _DEEPEST else max(least, min(schema.get("maxItems", 2), rng.randint(1, 2)))
    return [instance(schema.get("items", {"type": "string"}), rng, root, depth + 1) for _ in range(size)]


def _number(schema: Mapping[str, Any], rng: random.Random, root: Any, depth: int) -> float:
    low, high = _range(schema)
    return round(rng.uniform(low, high), 2) if high - low >= 0.1 else low


def _integer(schema: Mapping[str, Any], rng: random.Random, root: Any, depth: int) -> int:
    low, high = _range(schema)
    step = int(schema.get("multipleOf", 1))
    first = -(-int(low) // step)
    return step * rng.randint(first, max(first, int(high) // step))


def _range(schema: Mapping[str, Any]) -> tuple[float, float]:
    low = schema.get("minimum", schema.get("exclusiveMinimum", -1) + 1)
    high = schema.get("maximum", schema.get("exclusiveMaximum", low + 100) - (1 if "exclusiveMaximum" in schema else 0))
    return low, high


# A real value for each format that pydantic and its like send.
_FORMATS = {
    "date": "2026-03-14",
    "date-time": "2026-03-14T09:30:00Z",
    "time": "09:30:00Z",
    "email": "ada@example.com",
    "uri": "https://example.com/lamp",
    "uuid": "8c0f3f0e-4d0c-4b1f-9a55-0d9b8f7c2a11",
}


def _string(schema: Mapping[str, Any], rng: random.Random, root: Any, depth: int) -> str:
    if (ready := _FORMATS.get(schema.get("format", ""))) is not None:
        return ready
    text = "".join(pieces(rng, rng.randint(1, 4)))
    text = text.ljust(schema.get("minLength", 0), ".")
    return text[: schema.get("maxLength", len(text))]


_MAKERS: dict[str, Callable[[Mapping[str, Any], random.Random, Any, int], Any]] = {
    "object": _object,
    "array": _array,
    "string": _string,
    "number": _number,
    "integer": _integer,
    "boolean": lambda schema, rng, root, depth: rng.random() < 0.5,
    "null": lambda schema, rng, root, depth: None,
}


def _resolve(root: Any, reference: str) -> Any:
    """`#/$defs/Item` in `root`; what cannot be found is any value."""
    found = root
    for step in reference.removeprefix("#").strip("/").split("/"):
        if step and isinstance(found, Mapping):
            found = found.get(step.replace("~1", "/").replace("~0", "~"), {})
    return found
