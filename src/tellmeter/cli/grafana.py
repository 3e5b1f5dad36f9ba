"""`tellmeter grafana`: the dashboards, to import in Grafana."""

from __future__ import annotations

import sys
from pathlib import Path

from ..errors import ConfigError
from ..serve.dashboards import dashboard, dashboards, names


def grafana(name: str | None = None, folder: str | None = None, *, as_list: bool = False) -> int:
    """Print the dashboard `name`, write it (or all) to `folder`, or say which there are."""
    if as_list or not (name or folder):
        for one, head in dashboards():
            sys.stdout.write(f"{one:12} {head.title}: {head.description}\n")
        return 0
    if folder is None:
        assert name is not None
        sys.stdout.buffer.write(dashboard(name))
        return 0
    chosen = {one: dashboard(one) for one in ([name] if name else names())}
    place = Path(folder)
    if place.exists() and not place.is_dir():
        raise ConfigError(f"--out {folder}: it is no folder")
    place.mkdir(parents=True, exist_ok=True)
    for one, content in chosen.items():
        path = place / f"{one}.json"
        path.write_bytes(content)
        sys.stdout.write(f"{path}\n")
    return 0
