"""The Grafana dashboards that come with tellmeter: their names, titles and JSON."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files

import msgspec

from ..errors import ConfigError

_FOLDER = f"{__package__}.grafana"


class Head(msgspec.Struct):
    """What a list tells of a dashboard."""

    title: str
    description: str = ""


def dashboards() -> Iterator[tuple[str, Head]]:
    """Name and head of each, by name."""
    for name in names():
        yield name, msgspec.json.decode(dashboard(name), type=Head)


def names() -> list[str]:
    """The names, sorted."""
    return sorted(one.name.removesuffix(".json") for one in files(_FOLDER).iterdir() if one.name.endswith(".json"))


def dashboard(name: str) -> bytes:
    """The JSON of one, as Grafana imports it.

    Raises:
        ConfigError: there is none of that name.
    """
    if name not in names():
        raise ConfigError(f"there is no dashboard {name}; there are {', '.join(names())}")
    return files(_FOLDER).joinpath(f"{name}.json").read_bytes()
