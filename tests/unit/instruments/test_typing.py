import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_type_checkers_see_of_decorated_functions_what_they_see_of_bare_ones(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path), "tests/typing/decorators.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
