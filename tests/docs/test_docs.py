"""What the README and docs/ show is run: Python blocks of a page one after the other, `tellmeter` commands as written.

Where a block awaits, an event loop of the page runs it. The SDKs talk to the simulator. A comment on the line before a
block steers it:
- `<!-- file: app.py -->`  the block is also written to that file, for the commands below it;
- `<!-- not run: why -->`  a console block that cannot run here. Python blocks have no such way out.
"""

import os
import re
import shlex
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tellmeter.simulator.server import SimulatorServer
from tellmeter.simulator.traffic import Traffic

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(?P<kind>\w*)[^\n]*\n(?P<text>.*?)^```[ \t]*$", re.MULTILINE | re.DOTALL)
COMMENT = re.compile(r"<!-- (?P<word>file|not run): (?P<value>[^\n]+) -->\s*\Z")


@dataclass
class Block:
    page: Path
    line: int
    kind: str
    text: str
    file: str | None = None
    not_run: str | None = None


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text("utf-8")
    for found in BLOCK.finditer(text):
        block = Block(page, text.count("\n", 0, found.start("text")), found["kind"], found["text"])
        if comment := COMMENT.search(text, 0, found.start()):
            setattr(block, comment["word"].replace(" ", "_"), comment["value"])
        yield block


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def commands(block: Block) -> list[str]:
    """The commands of a console block: lines with a prompt; lines without one are output."""
    return [line[2:] for line in block.text.splitlines() if line.startswith("$ ")]


@pytest.fixture(scope="module")
def simulator():
    with SimulatorServer(Traffic(speed=0)) as server:
        yield server


@pytest.fixture
def environment(simulator, tmp_path):
    scripts = sysconfig.get_path("scripts")
    return {
        **{key: value for key, value in os.environ.items() if not key.startswith("TELLMETER_")},
        "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}",
        "XDG_DATA_HOME": str(tmp_path / "data"),
        "HOME": str(tmp_path),
        "OPENAI_BASE_URL": simulator.openai_url,
        "OPENAI_API_KEY": "none",
        "ANTHROPIC_BASE_URL": simulator.url,
        "ANTHROPIC_API_KEY": "none",
        "AWS_ENDPOINT_URL_BEDROCK_RUNTIME": simulator.url,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "none",
        "AWS_SECRET_ACCESS_KEY": "none",
    }


PYTHON_PAGES = [page for page in PAGES if any(block.kind == "python" for block in blocks(page))]


@pytest.mark.parametrize("page", PYTHON_PAGES, ids=name)
def test_python_blocks_run(page, environment, tmp_path):
    program = []
    for block in blocks(page):
        if block.kind == "python":
            assert block.not_run is None, f"{name(page)}:{block.line}: a Python block must run"
            program.append(_execution(block))
            if block.file:
                (tmp_path / block.file).write_text(block.text, "utf-8")
    run = subprocess.run(
        [sys.executable, "-W", "error", "-"],
        input="\n".join([_RUNNER, *program, "_runner.close()"]),
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 0, run.stderr


_RUNNER = """
_runner = __import__("asyncio").Runner()
def _run(text, page):
    import ast
    waiting = eval(compile(text, page, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), globals())
    if waiting is not None:
        _runner.run(waiting)
"""


def _execution(block: Block) -> str:
    padded = "\n" * block.line + block.text  # keeps the page's line numbers in tracebacks
    return f"_run({padded!r}, {name(block.page)!r})"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_console_blocks_run(page, environment, tmp_path):
    for block in blocks(page):
        if block.file:
            (tmp_path / block.file).write_text(block.text, "utf-8")
        if block.kind != "console" or block.not_run:
            continue
        assert commands(block), f"{name(page)}:{block.line}: a console block has lines that start with '$ '"
        for command in commands(block):
            words = shlex.split(command)
            assert words[0] == "tellmeter", f"{name(page)}:{block.line}: {command}: mark the block 'not run: why'"
            run = subprocess.run(
                command,
                shell=True,
                cwd=tmp_path,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert run.returncode == 0, f"{name(page)}:{block.line}: {command}\n{run.stdout}{run.stderr}"
            assert "no LLM call" not in run.stderr


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_block_says_what_it_is(page):
    nameless = [f"{name(page)}:{block.line}" for block in blocks(page) if not block.kind]
    assert not nameless


@pytest.mark.parametrize("page", sorted({*PAGES, *ROOT.glob("*.md")}), ids=name)
def test_links_to_files_lead_somewhere(page):
    targets = re.findall(r"\]\((?!https?:|mailto:|#)([^)#\s]+)", page.read_text("utf-8"))
    missing = [target for target in targets if not (page.parent / target).exists()]
    assert not missing
