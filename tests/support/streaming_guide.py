"""The blocks of docs/streaming.md, run in a process of their own against answers whose bytes are known."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tellmeter.simulator.server import SimulatorServer
from tellmeter.simulator.traffic import Traffic
from tellmeter.testing import FaultServer
from tests.support.exchanges import Recorded, load, need_exchanges
from tests.support.replay_server import recorded

PAGE = Path(__file__).parents[2] / "docs" / "streaming.md"
RECORDINGS = {
    "/chat/completions": ("openai", "chat.completions"),
    "/responses": ("openai", "responses"),
    "/messages": ("anthropic", "messages"),
}
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
# What a program has around the blocks: the last report of every stream, and the lines of the page's own log.
_BEFORE = """
import json, logging, os, urllib.request
import tellmeter
collector = tellmeter.get_metrics_collector()
finals, lines, told = [], [], {}
for name in ("stream.complete", "stream.error"):
    tellmeter.on(name, finals.append)
class Lines(logging.Handler):
    def emit(self, record):
        lines.append({"level": record.levelname, "message": record.getMessage(), **vars(record)})
logging.getLogger("app.streams").addHandler(Lines())
logging.getLogger("app.streams").setLevel(logging.INFO)
def faults(*script):
    # What happens to the simulator's next requests.
    url = os.environ["ANTHROPIC_BASE_URL"] + "/__faults"
    urllib.request.urlopen(urllib.request.Request(url, json.dumps(script).encode(), method="POST")).close()
def values(report):
    found = {name: getattr(report, name) for name in report.__struct_fields__}
    return {**found, "raw_chunks": report.raw_chunks and [chunk.decode() for chunk in report.raw_chunks]}
"""
_AFTER = """
tellmeter.get_metrics_collector().flush_sync()
print("\\n=====" + json.dumps({"finals": [values(one) for one in finals], "lines": lines, **told}, default=str))
"""


@dataclass
class Backend:
    """Where the blocks' calls go. `bodies` are those of its answers, in the order in which they were begun."""

    kind: str
    url: str
    bodies: list[bytes] = field(default_factory=list)

    def environment(self) -> dict[str, str]:
        """What a program is given, so that its SDKs and engines come here."""
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("TELLMETER_")}
        urls = {"OPENAI_BASE_URL": f"{self.url}/v1", "ANTHROPIC_BASE_URL": self.url}
        return {**inherited, **urls, "OPENAI_API_KEY": "none", "ANTHROPIC_API_KEY": "none"}


@dataclass
class Ran:
    """What a program printed, the last report of each of its streams, its log, and what it told otherwise."""

    printed: str
    finals: list[dict[str, Any]]
    lines: list[dict[str, Any]]
    told: dict[str, Any]


@contextmanager
def simulated() -> Iterator[Backend]:
    """The simulator, its answers noted on their way out."""
    server = SimulatorServer(Traffic(speed=0))
    backend = Backend("simulator", "")
    app: Any = server.app

    async def noted(scope: Any, receive: Any, send: Any) -> None:
        number = len(backend.bodies)
        if not scope["path"].startswith("/__"):  # the simulator's own
            backend.bodies.append(b"")

        async def sent(message: Any) -> None:
            if number < len(backend.bodies):
                backend.bodies[number] += message.get("body", b"")
            await send(message)

        await app(scope, receive, sent)

    server.app = noted  # type: ignore[assignment]
    with server:
        backend.url = server.url
        yield backend


@contextmanager
def replayed() -> Iterator[Backend]:
    """A server that answers each request with the next recording of its path."""
    backend = Backend("recordings", "")
    left = {path: iter(streams(*pair)) for path, pair in RECORDINGS.items()}

    def answer(request: Any) -> Any:
        path = next(path for path in left if request.path.endswith(path))
        exchange = next(left[path])
        backend.bodies.append(exchange.body)
        return recorded(exchange)

    with FaultServer(answer) as server:
        backend.url = server.url
        yield backend


def streams(provider: str, api: str) -> list[Recorded]:
    """The recorded streams that went well."""
    need_exchanges()
    found = load(provider, api)
    return [one for one in found if one.is_stream and one.status == 200 and one.expected["stream_error"] is None]


def sections() -> dict[str, list[tuple[str, str]]]:
    """Heading -> kinds and texts of the blocks below it; the page's own title is the first."""
    parts = re.split(r"^(?=##+ )", PAGE.read_text("utf-8"), flags=re.MULTILINE)
    return {part.partition("\n")[0].lstrip("# "): _BLOCK.findall(part) for part in parts}


def python(heading: str) -> list[str]:
    """The Python blocks of a section."""
    return [text for kind, text in sections()[heading] if kind == "python"]


def run(backend: Backend, blocks: list[str], after: str = "") -> Ran:
    """Run blocks one after the other, then `after`."""
    each = [f"exec(compile({block!r}, 'page', 'exec'), globals())" for block in blocks]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-"],
        input="\n".join([_BEFORE, *each, after, _AFTER]),
        env=backend.environment(),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    printed, _, found = done.stdout.rpartition("\n=====")
    told = json.loads(found)
    return Ran(printed, told.pop("finals"), told.pop("lines"), told)


def events(body: bytes) -> list[str]:
    """The data of the events of a recorded body, counted with nothing of ours: no pings, no `[DONE]`."""
    found = []
    for event in re.split(r"\r?\n\r?\n", body.decode()):
        fields = dict(line.partition(":")[::2] for line in event.splitlines())
        data = fields.get("data", "").strip()
        if data and data != "[DONE]" and json.loads(data).get("type") != "ping":
            found.append(data)
    return found


def chat_text(body: bytes) -> str:
    """What a chat completion's stream says."""
    choices = [choice for data in events(body) for choice in json.loads(data)["choices"]]
    return "".join(choice["delta"].get("content") or "" for choice in choices)
