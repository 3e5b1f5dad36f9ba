"""A real Prometheus that scrapes what a test names, every 0.2 s."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from .ports import free_port

T = TypeVar("T")


class Prometheus:
    """Started on loopback with its data in `folder`; ended by `close()`."""

    def __init__(self, folder: Path, target: str, *, headers: str = "", rules: str = "") -> None:
        self.port = free_port()
        config = folder / "prometheus.yml"
        (folder / "rules.yml").write_text(rules or "groups: []\n", "utf-8")
        config.write_text(
            "global: {scrape_interval: 200ms, evaluation_interval: 200ms}\n"
            "rule_files: [rules.yml]\n"
            "scrape_configs:\n"
            f"- {{job_name: app, static_configs: [{{targets: ['{target}']}}]{headers}}}\n",
            "utf-8",
        )
        self._process = subprocess.Popen(
            [
                shutil.which("prometheus") or "prometheus",
                f"--config.file={config}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{self.port}",
                "--enable-feature=exemplar-storage",
                "--log.level=error",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def get(self, path: str, **arguments: str) -> Any:
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(arguments)}"
        with urllib.request.urlopen(url, timeout=5) as answer:
            return json.load(answer)["data"]

    def query(self, expression: str) -> dict[tuple[tuple[str, str], ...], float]:
        """The instant vector of an expression: labels -> value."""
        return {
            tuple(sorted(one["metric"].items())): float(one["value"][1])
            for one in self.get("query", query=expression)["result"]
        }

    def value(self, expression: str) -> float | None:
        """The only value of an expression."""
        found = list(self.query(expression).values())
        assert len(found) <= 1, found
        return found[0] if found else None

    def until(self, ask: Callable[[], T], right: Callable[[T], bool], seconds: float = 30.0) -> T:
        """What `ask()` gives once it is right; an AssertionError with the last one after `seconds`."""
        deadline = time.monotonic() + seconds
        last: Any = None
        while time.monotonic() < deadline:
            try:
                last = ask()
                if right(last):
                    return last
            except OSError as error:  # it is not up yet
                last = error
            time.sleep(0.05)
        raise AssertionError(f"not right in {seconds} s: {last!r}")

    def scraped(self) -> None:
        """Wait for the next scrape."""
        before = self._last_scrape()
        self.until(self._last_scrape, lambda now: now != before)

    def evaluated(self) -> None:
        """Wait for the next scrape, and until every rule was evaluated after it."""
        self.scraped()
        before = self._evaluations()
        self.until(self._evaluations, lambda now: all(now[name] != last for name, last in before.items()))

    def _last_scrape(self) -> str:
        (target,) = self.get("targets")["activeTargets"]
        return str(target["lastScrape"])

    def _evaluations(self) -> dict[str, str]:
        return {group["name"]: group["lastEvaluation"] for group in self.get("rules")["groups"]}

    def close(self) -> None:
        self._process.kill()
        self._process.wait(10)
