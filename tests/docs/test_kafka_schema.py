import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_schema_is_what_the_code_says():
    made = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "kafka_schema.py")], capture_output=True, text=True, check=True
    )
    told = "run `python tools/kafka_schema.py > docs/kafka.schema.json`"
    assert (ROOT / "docs" / "kafka.schema.json").read_text("utf-8") == made.stdout, told
