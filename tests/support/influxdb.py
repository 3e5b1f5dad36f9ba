"""Real servers that take InfluxDB's line protocol, each on loopback with its data in a folder of its own."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import msgspec

from tellmeter.records import AgentMetrics, StreamMetrics

from .ports import free_port
from .servers import require

PASSWORD = "hunter2-canary"


class _Server:
    """Started with `start()`, which `stop()` undoes and may be called again; `close()` ends it for good."""

    def __init__(self, ready: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="tellmeter-influxdb-"))
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.command: list[str] = []
        self._ready = ready
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self.command, stdout=log, stderr=log, cwd=self.folder, start_new_session=True
            )
        deadline = time.monotonic() + 30
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                said = (self.folder / "log").read_text("utf-8", "replace")
                self.close()
                raise RuntimeError(said)
            time.sleep(0.02)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(self.url + self._ready, timeout=5):
                return True
        except OSError:
            return False

    def stop(self) -> None:
        """Kill it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(30)
            self._process = None

    def close(self) -> None:
        """End it and delete its data."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


class InfluxDB(_Server):
    """InfluxDB 1.6. With `auth` it asks for a user: `admin`, or one without rights, `guest`, both with `PASSWORD`."""

    def __init__(self, *, auth: bool = False, max_body_bytes: int = 25_000_000) -> None:
        super().__init__("/ping")
        self.auth = auth
        self.command = [require("influxd"), "-config", "influx.conf"]
        (self.folder / "influx.conf").write_text(
            f"""reporting-disabled = true
bind-address = "127.0.0.1:{free_port()}"
[meta]
  dir = "data/meta"
[data]
  dir = "data/data"
  wal-dir = "data/wal"
[http]
  bind-address = "127.0.0.1:{self.port}"
  auth-enabled = {str(auth).lower()}
  log-enabled = false
  max-body-size = {max_body_bytes}
  max-row-limit = 0
""",
            "utf-8",
        )

    def make_users(self) -> None:
        """Those of `auth`."""
        self.query(f"CREATE USER admin WITH PASSWORD '{PASSWORD}' WITH ALL PRIVILEGES")
        self.query(f"CREATE USER guest WITH PASSWORD '{PASSWORD}'")

    def query(self, text: str, database: str = "") -> list[dict[str, Any]]:
        """The rows of InfluxQL, as column -> value, of all series; times are nanoseconds."""
        data = urllib.parse.urlencode({"q": text, "db": database, "epoch": "ns"}).encode()
        user = urllib.parse.urlencode({"u": "admin", "p": PASSWORD}) if self.auth else ""
        try:
            with urllib.request.urlopen(f"{self.url}/query?{user}", data, timeout=60) as answer:
                found = json.load(answer)
        except urllib.error.HTTPError as error:
            raise RuntimeError(error.read().decode()) from None
        rows = []
        for result in found["results"]:
            if "error" in result:
                raise RuntimeError(result["error"])
            for series in result.get("series", ()):
                tags = series.get("tags", {})
                rows += [{**tags, **dict(zip(series["columns"], row, strict=True))} for row in series["values"]]
        return rows

    def records(self, database: str, measurement: str = "llm_request") -> list[AgentMetrics]:
        """What is in a measurement, as records."""
        return [record_of(row) for row in self.query(f'SELECT * FROM "{measurement}"', database)]


def totals(server: InfluxDB, database: str = "calls", measurement: str = "llm_request") -> dict[str, float]:
    """Calls, tokens, dollars and errors over everything that was written there."""
    name = f'"{measurement}"'
    fields = 'count("id"), sum("total_tokens"), sum("cost_usd")'
    (sums,) = server.query(f"SELECT {fields} FROM {name}", database) or [{}]
    failed = "\"status\" = 'error' OR \"status\" = 'timeout' OR \"status\" = 'rejected'"
    (errors,) = server.query(f'SELECT count("id") FROM {name} WHERE {failed}', database) or [{}]
    return {
        "calls": sums.get("count", 0),
        "tokens": sums.get("sum", 0),
        "dollars": sums.get("sum_1") or 0.0,
        "errors": errors.get("count", 0),
    }


def record_of(row: dict[str, Any]) -> AgentMetrics:
    """The record of a point: the columns of its tags and fields together. What is None was not there."""
    given = {name: value for name, value in row.items() if value is not None}
    stream = {
        name: given.get(name if name.startswith("stream_") else f"stream_{name}")
        for name in StreamMetrics.__struct_fields__
    }
    fields = {name: given[name] for name in AgentMetrics.__struct_fields__ if name in given and name != "stream"}
    fields |= {name: json.loads(given[name]) for name in ("tags", "tools_used") if name in given}
    fields["timestamp"] = given["unix_seconds"]
    for name in ("provider", "model", "operation", "method"):
        fields.setdefault(name, "")
    if stream["status"] is not None:
        texts = {name: stream[name] or "" for name in ("stream_id", "provider", "model")}
        fields["stream"] = {name: value for name, value in {**stream, **texts}.items() if value is not None}
    # JSON has no whole floats of its own: InfluxDB writes 1.0 as 1.
    return msgspec.convert(fields, AgentMetrics)


class VictoriaMetrics(_Server):
    """VictoriaMetrics, which takes the APIs of InfluxDB 1 and 2, and keeps numbers only."""

    def __init__(self) -> None:
        super().__init__("/health")
        self.command = [
            require("victoria-metrics"),
            f"-storageDataPath={self.folder / 'data'}",
            f"-httpListenAddr=127.0.0.1:{self.port}",
            "-retentionPeriod=100y",
            "-search.latencyOffset=0s",
            "-loggerLevel=ERROR",
        ]

    def samples(self, match: str) -> dict[tuple[tuple[str, str], ...], list[tuple[int, float]]]:
        """Series that match -> their samples (milliseconds, value), in order."""
        with urllib.request.urlopen(f"{self.url}/internal/force_flush", timeout=30):
            pass
        data = urllib.parse.urlencode({"match[]": match, "start": "0"}).encode()
        with urllib.request.urlopen(f"{self.url}/api/v1/export", data, timeout=60) as answer:
            # It reads texts as numbers where it can, and infinity is no JSON.
            lines = [json.loads(line.replace(b"+Inf", b"Infinity")) for line in answer]
        found: dict[tuple[tuple[str, str], ...], list[tuple[int, float]]] = {}
        for line in lines:
            samples = found.setdefault(tuple(sorted(line["metric"].items())), [])
            samples += zip(line["timestamps"], line["values"], strict=True)
        return {labels: sorted(samples) for labels, samples in found.items()}
