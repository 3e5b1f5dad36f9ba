import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_page_of_the_catalogue_is_what_the_table_says():
    made = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "catalogue.py")], capture_output=True, text=True, check=True
    )
    assert (ROOT / "docs" / "catalogue.md").read_text("utf-8") == made.stdout, "run `make docs`"
