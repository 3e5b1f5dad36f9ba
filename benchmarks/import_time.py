"""`import tellmeter`, `instrument()` and the first call, beside peers' imports, in fresh processes.

    python benchmarks/import_time.py [--runs 7]

Medians of wall milliseconds inside the process (interpreter start excluded), and the modules that came along.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys

PROBE = """
import json, sys, time
{before}
known = set(sys.modules)
started = time.perf_counter()
{code}
took = (time.perf_counter() - started) * 1000
print(json.dumps([took, len(set(sys.modules) - known), sorted({{m.partition(".")[0] for m in set(sys.modules) - known}})]))
"""
FIRST_CALL = """
class T(httpx2.BaseTransport):
    def handle_request(self, request):
        return httpx2.Response(200, json={"id": "1", "object": "chat.completion", "created": 1, "model": "gpt-4o-mini",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": "x"}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}})
openai.OpenAI(api_key="k", max_retries=0, http_client=httpx2.Client(transport=T())).chat.completions.create(
    model="gpt-4o-mini", messages=[{"role": "user", "content": "hi"}])
"""
CASES = {
    "import tellmeter": ("", "import tellmeter"),
    "import tellmeter, configure(), instrument()": (
        "",
        "import tellmeter; tellmeter.configure(sinks=['memory:']); tellmeter.instrument()",
    ),
    "first call, plain SDK": ("import openai, httpx2", FIRST_CALL),
    "instrument() and first call": (
        "import openai, httpx2",
        "import tellmeter; tellmeter.configure(sinks=['memory:']); tellmeter.instrument()" + FIRST_CALL,
    ),
    "import prometheus_client": ("", "import prometheus_client"),
    "import opentelemetry.sdk.metrics": ("", "import opentelemetry.sdk.metrics"),
}


def probe(before: str, code: str) -> tuple[float, int, list[str]]:
    done = subprocess.run(
        [sys.executable, "-c", PROBE.format(before=before, code=code)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(done.stderr.splitlines()[-1])
    return tuple(json.loads(done.stdout))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=7)
    options = parser.parse_args()
    medians = {}
    for name, (before, code) in CASES.items():
        try:
            runs = [probe(before, code) for _ in range(options.runs)]
        except RuntimeError as error:
            print(f"{name:46} {error}")
            continue
        medians[name] = statistics.median(run[0] for run in runs)
        print(f"{name:46} {medians[name]:8.1f} ms  {runs[0][1]:5} modules")
    if "import prometheus_client" in medians:
        ratio = medians["import prometheus_client"] / medians["import tellmeter"]
        print(f"\nimport prometheus_client takes {ratio:.2f}x of import tellmeter")
    added = medians["instrument() and first call"] - medians["first call, plain SDK"]
    print(f"cold start adds {added:.1f} ms to the plain SDK's first call")


if __name__ == "__main__":
    main()
