"""The shape of the tree: mirrored tests, small files, nothing that ties it to one machine, a cheap import."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "tellmeter"
MOST_LINES = 400

# Source files without a test at the same path under tests/unit/, with the reason.
WITHOUT_MIRROR = {
    "cli/_site/sitecustomize.py": "runs at the start of other processes: tests/real/test_run.py",
    "usage.py": "plain values without behaviour",
    "wire/answer.py": "plain values without behaviour",
}
# Files that may be longer, with the reason.
LONGER: dict[str, str] = {}
# What pip and uv name registries by; written apart, so that this file does not name one.
REGISTRIES = re.compile(r"\b(py" r"pi|python" r"hosted|npm" r"js|deb" r"ian)\.(org|com)\b")
MACHINE_PATHS = re.compile("/" r"(work|root|home/\w+|tmp/v)/|" + re.escape(f"{ROOT}/"))


def sources():
    return sorted(path for path in SOURCE.rglob("*.py") if path.read_text("utf-8").strip())


def texts():
    """Every text file that belongs to the project: what git tracks or would track, without recorded traffic."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in sorted(filter(None, listed.stdout.decode().split("\0"))):
        path = ROOT / name
        if path.is_file() and b"\0" not in (content := path.read_bytes()):
            yield name, content.decode("utf-8", "replace")


def test_every_source_file_has_a_test_at_the_same_path():
    missing = []
    for path in sources():
        inside = path.relative_to(SOURCE)
        if path.name == "__init__.py":
            mirror = ROOT / "tests" / "unit" / inside.parent / "test_init.py"
            if len(path.read_text("utf-8").splitlines()) < 30:
                continue  # it says what the package is
        else:
            mirror = ROOT / "tests" / "unit" / inside.parent / f"test_{path.name.lstrip('_')}"
        if not mirror.exists() and str(inside) not in WITHOUT_MIRROR:
            missing.append(str(inside))
    assert not missing


def test_reasons_are_not_outlived():
    assert [name for name in {**WITHOUT_MIRROR, **LONGER} if not (SOURCE / name).exists()] == []


def test_no_source_file_is_long():
    long = {}
    for path in sources():
        lines = len(path.read_text("utf-8").splitlines())
        if lines > MOST_LINES and str(path.relative_to(SOURCE)) not in LONGER:
            long[str(path.relative_to(SOURCE))] = lines
    assert long == {}


@pytest.mark.parametrize(("pattern", "what"), [(REGISTRIES, "registry"), (MACHINE_PATHS, "path of one machine")])
def test_no_file_names_a(pattern, what):
    named = [
        f"{name}:{number}: {line.strip()[:80]}"
        for name, text in texts()
        if not name.endswith(".jsonl")
        for number, line in enumerate(text.splitlines(), 1)
        if pattern.search(line)
    ]
    assert named == []


@pytest.mark.security(11)
def test_locks_have_a_hash_for_every_package():
    for lock in (ROOT / "requirements").glob("*.txt"):
        entries = re.split(r"\n(?=\S)", lock.read_text("utf-8").strip())
        assert entries, lock
        assert [entry.splitlines()[0] for entry in entries if "--hash=sha256:" not in entry] == []


def run_python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()


def test_importing_tellmeter_imports_neither_asyncio_nor_an_optional_package():
    loaded = set(run_python("import sys, tellmeter; print(*sys.modules)"))
    core = {"tellmeter", "msgspec", "wrapt"}
    allowed = set(sys.stdlib_module_names) | core
    before = set(run_python("import sys; print(*sys.modules)"))  # what .pth files of this environment bring in
    assert "asyncio" not in loaded
    assert {name.partition(".")[0] for name in loaded - before} - allowed == set()


def test_importing_tellmeter_starts_no_thread_and_touches_nothing():
    code = """
import sys, threading, socket, signal
before = sys.meta_path[:], threading.active_count(), signal.getsignal(signal.SIGTERM)
import tellmeter
print(before == (sys.meta_path[:], threading.active_count(), signal.getsignal(signal.SIGTERM)))
"""
    assert run_python(code) == ["True"]
