"""Programs of others that take spans over OTLP and give them back: rotel, which prints them, and Arize Phoenix."""

from __future__ import annotations

import json
import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterable
from datetime import datetime
from typing import Any, NamedTuple

from .otlp import Rotel, _Agent
from .servers import require_python

_VALUE = re.compile(r"(\w+)\((.*)\)")
_READ: dict[str, Any] = {"Int": int, "Double": float, "Bool": lambda text: text == "true", "Str": str}


class Kept(NamedTuple):
    """A span as a store has it: `kind` in its own words, `start` and `end` in Unix seconds."""

    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    status: str
    start: float
    end: float
    attributes: dict[str, Any]


class SpanRotel(Rotel):
    """rotel, which prints spans instead of metrics."""

    def _command(self) -> list[str]:
        return ["traces" if word == "metrics" else word for word in super()._command()]

    def spans(self) -> list[Kept]:
        """Those that it has printed whole."""
        printed = (self.folder / "log").read_text("utf-8", "replace")
        return [_printed(text) for text in re.split(r"^Span #\d+\n", printed, flags=re.MULTILINE)[1:]]


def _printed(text: str) -> Kept:
    head, _, rest = text.partition("Attributes:\n")
    told = {name.strip(): value for name, _, value in (line.partition(":") for line in head.split("\n"))}
    told = {name: value.strip() for name, value in told.items()}
    # The span's own come first; events, links and the next resource follow.
    own = re.match(r"(?:     -> .*\n)*", rest)
    pairs = (line.removeprefix("     -> ").partition(": ") for line in (own[0] if own else "").splitlines())
    return Kept(
        told["Name"],
        told["Kind"].removeprefix("SPAN_KIND_"),
        told["Trace ID"],
        told["ID"],
        told["Parent ID"],
        told["Status code"].removeprefix("STATUS_CODE_"),
        int(told["Start time"]) / 1e9,
        int(told["End time"]) / 1e9,
        {name: _value(shown) for name, _, shown in pairs},
    )


def _value(shown: str) -> Any:
    found = _VALUE.fullmatch(shown)
    assert found, shown
    kind, text = found.groups()
    return [_value(one) for one in text.split(", ") if one] if kind == "Slice" else _READ[kind](text)


class Phoenix(_Agent):
    """Arize Phoenix, which makes LLM spans of the GenAI conventions' attributes."""

    seconds = 200.0  # it starts by 20 s of work

    def _command(self) -> list[str]:
        settings = {
            "PHOENIX_HOST": "127.0.0.1",
            "PHOENIX_PORT": self.port,
            "PHOENIX_GRPC_PORT": self.grpc_port,
            "PHOENIX_WORKING_DIR": self.folder,
            "PHOENIX_SQL_DATABASE_URL": "sqlite:///:memory:",
            "PHOENIX_TELEMETRY_ENABLED": "false",
            "PHOENIX_ALLOW_EXTERNAL_RESOURCES": "false",
        }
        program = require_python("bin/phoenix", ".venv-phoenix")
        return ["env", *(f"{name}={value}" for name, value in settings.items()), program, "serve"]

    def spans(self, project: str) -> list[Kept]:
        """Those of a project, by its API; none as long as there is no such project."""
        try:
            with urllib.request.urlopen(f"{self.url}/v1/projects/{project}/spans?limit=1000", timeout=30) as answer:
                return [_read(one) for one in json.load(answer)["data"]]
        except urllib.error.HTTPError as error:
            assert error.code == 404, error
            return []


def _read(span: dict[str, Any]) -> Kept:
    return Kept(
        span["name"],
        span["span_kind"],
        span["context"]["trace_id"],
        span["context"]["span_id"],
        span["parent_id"] or "",
        span["status_code"],
        datetime.fromisoformat(span["start_time"]).timestamp(),
        datetime.fromisoformat(span["end_time"]).timestamp(),
        span["attributes"],
    )


def arrived(spans: Any, names: Iterable[str]) -> dict[str, Kept]:
    """name -> span, once all of the names are there: stores take their time."""
    wanted = sorted(names)
    deadline = time.monotonic() + 60
    while True:
        found = spans()
        if sorted(one.name for one in found) == wanted:
            return {one.name: one for one in found}
        assert time.monotonic() < deadline, (wanted, [one.name for one in found])
        time.sleep(0.1)
