import json
import subprocess
import sys

import pytest

PROGRAM = """
import multiprocessing, os, sys
from tellmeter.workers import at_worker_end
def last(): print("last", flush=True)
def sooner(): print("sooner", flush=True)
at_worker_end(last, -200)
at_worker_end(sooner, -100)
at_worker_end(sooner, -100)
def work(): print("work", flush=True)
if __name__ == "__main__":
    for _ in range(2):
        worker = multiprocessing.get_context(sys.argv[1]).Process(target=work)
        worker.start(); worker.join()
"""


CHECK = """
import json, sys
from tellmeter.workers import at_worker_end
at_worker_end(print, 0)
print(json.dumps([name for name in sys.modules if name.startswith("multiprocessing")]))
"""


@pytest.mark.parametrize("method", ["fork", "forkserver"])
@pytest.mark.parametrize("late", [True, False], ids=["multiprocessing-imported-later", "before"])
def test_a_worker_calls_each_once_in_their_order_and_its_parent_none(tmp_path, method, late):
    program = PROGRAM
    if late:
        program = program.replace("import multiprocessing, os, sys", "import os, sys").replace(
            "def work()", "import multiprocessing\ndef work()"
        )
    script = tmp_path / "program.py"
    script.write_text(program)
    run = subprocess.run([sys.executable, str(script), method], capture_output=True, text=True, timeout=60, check=True)
    assert run.stdout.split() == ["work", "sooner", "last"] * 2, run.stderr


def test_nothing_is_imported_for_it():
    run = subprocess.run([sys.executable, "-c", CHECK], capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(run.stdout) == []
