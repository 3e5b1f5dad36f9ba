"""Every fault that is to be survived, and every rule of security, has a test that says so by its marker, or a reason."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]

FAULTS = {
    1: "a sink is down for ten minutes",
    2: "a sink hangs, or dribbles",
    3: "413: batches are too large",
    4: "429 and 503 with Retry-After",
    5: "500, 502, 504, 408, reset, half a body",
    6: "400, 401, 403, 404",
    7: "a batch is taken in part",
    8: "kill -9",
    9: "power cut",
    10: "disk full, read-only, I/O errors",
    11: "damaged or foreign spool files",
    12: "forks: gunicorn, multiprocessing, os.fork with locks held",
    13: "event loops that are closed, many loops, gevent",
    14: "the end of the interpreter",
    15: "SIGTERM",
    16: "code of the user's that raises",
    17: "code of the user's that is slow",
    18: "NaN, infinity and other numbers that are none",
    19: "100,000 values of one label",
    20: "texts that would break a format",
    21: "a wall clock that jumps",
    22: "a million records at once",
    23: "a thousand streams at once",
    24: "calls that are cancelled, time out or are left",
    25: "ten times more than a sink takes",
    26: "recording while recording",
    27: "flush and shutdown from anywhere, at any time",
    28: "TLS, proxies and names that cannot be resolved",
    29: "free-threaded builds and subinterpreters",
    30: "running for a day",
}
RULES = {
    1: "no prompt and no answer is kept",
    2: "exceptions are classes, never messages",
    3: "keys and passwords show themselves to nobody",
    4: "labels come from a list, and are bounded",
    5: "what is served is for this machine, or for who has the secret",
    6: "the dashboard's content security policy",
    7: "requests go where the program says, and nowhere else",
    8: "certificates are checked",
    9: "texts are parameters of SQL, and escaped elsewhere",
    10: "files are ours alone; nothing is unpickled",
    11: "dependencies are pinned by their hashes",
    12: "prices are data of the package",
}
# What no test shows, with the reason.
FAULTS_WITHOUT = {
    29: "there is no free-threaded interpreter where these tests run",
}
RULES_WITHOUT = {
    6: "there is no dashboard of our own yet, only Grafana's",
    12: "prices come with genai-prices, and nothing here fetches any",
}


def marked(marker: str) -> dict[int, list[str]]:
    """Number -> tests with `@pytest.mark.<marker>(number, ...)`, on themselves, their class or their file."""
    found: dict[int, list[str]] = defaultdict(list)
    for path in TESTS.rglob("test_*.py"):
        text = path.read_text("utf-8")
        for node in ast.walk(ast.parse(text)) if f"mark.{marker}(" in text else ():
            places: list[ast.expr] = []
            name = path.stem
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                places, name = node.decorator_list, f"{path.stem}::{node.name}"
            elif isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "pytestmark":
                places = [node.value]
            for call in (call for place in places for call in ast.walk(place) if isinstance(call, ast.Call)):
                if ast.unparse(call.func) == f"pytest.mark.{marker}":
                    for argument in call.args:
                        found[ast.literal_eval(argument)].append(name)
    return found


@pytest.mark.parametrize(
    ("marker", "wanted", "without"),
    [("fault", FAULTS, FAULTS_WITHOUT), ("security", RULES, RULES_WITHOUT)],
    ids=["fault", "security"],
)
def test_each_has_a_test_or_a_reason(marker: str, wanted: dict[int, str], without: dict[int, str]) -> None:
    found = marked(marker)
    assert not [f"{number}: {wanted[number]}" for number in wanted if number not in found and number not in without]
    assert not set(found) - set(wanted)  # a number that nobody knows
    assert not set(without) & set(found)  # a reason that is outlived
