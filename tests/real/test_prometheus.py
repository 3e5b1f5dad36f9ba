"""A real Prometheus (Debian's) scrapes real servers, and answers with the exact sums."""

import os
import signal
import subprocess
import sys
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from tests.support.ports import free_port
from tests.support.prometheus import Prometheus
from tests.support.servers import require

APP = """
import os
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
import tellmeter

tellmeter.configure(sinks=["memory:"])
registry = tellmeter.get_metrics_registry()
served = registry.counter("served", "Requests of this test.", ["worker"])
size = registry.histogram("size", "Sizes of this test.", ["kind"], buckets=[1, 10, 100])

def work(request):
    number = int(request.query_params["n"])
    served.labels(worker=request.query_params.get("w", "")).inc()
    size.labels(kind="a").observe(number % 13, exemplar={"trace_id": f"{number:032x}"})
    with tellmeter.meter_call(provider="openai", model="gpt-4o-mini", operation="chat") as call:
        call.input_tokens, call.output_tokens = number, 1
    return PlainTextResponse(str(os.getpid()))

app = Starlette(routes=[
    Route("/work", work),
    Route("/metrics", tellmeter.get_metrics_app()),
    Mount("/mounted", tellmeter.get_metrics_app()),
])
"""
NUMBER = 500


@contextmanager
def serving(command, folder, port, **environment):
    (folder / "app.py").write_text(APP)
    environ = {key: value for key, value in os.environ.items() if not key.startswith("TELLMETER_")}
    log = (folder / "server.log").open("wb")
    process = subprocess.Popen(
        [sys.executable, "-m", *command],
        cwd=folder,
        env={**environ, **environment},
        stdout=log,
        stderr=log,
        start_new_session=True,
    )
    try:
        yield process
        assert process.poll() is None, (folder / "server.log").read_text()
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)
        log.close()


@contextmanager
def scraped(folder, target):
    require("prometheus")
    server = Prometheus(folder, target)
    try:
        yield server
    finally:
        server.close()


def fetch(port, path, **headers):
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.read().decode()


def work(prometheus, port):
    """Send the requests; the processes that answered them."""
    prometheus.until(lambda: fetch(port, "/metrics"), bool)
    with ThreadPoolExecutor(8) as pool:
        return set(pool.map(lambda number: fetch(port, f"/work?n={number}"), range(NUMBER)))


def check_sums(prometheus):
    tokens = sum(range(NUMBER))
    prometheus.until(lambda: prometheus.value("sum(served_total)"), lambda found: found == NUMBER)
    prometheus.until(lambda: prometheus.value('sum(llm_tokens_total{type="input"})'), lambda found: found == tokens)
    assert prometheus.value("sum(llm_requests_total)") == NUMBER
    assert prometheus.value("sum(llm_request_duration_seconds_count)") == NUMBER
    assert prometheus.value('size_sum{kind="a"}') == sum(number % 13 for number in range(NUMBER))
    below = {dict(labels)["le"]: value for labels, value in prometheus.query("size_bucket").items()}
    assert below == {
        le: sum(number % 13 <= float(le) for number in range(NUMBER)) for le in ("1.0", "10.0", "100.0", "+Inf")
    }
    assert prometheus.value("up") == 1


@pytest.mark.heavy
def test_prometheus_scrapes_uvicorn_and_exemplars_come_back(tmp_path):
    port = free_port()
    command = ["uvicorn", "app:app", "--port", str(port), "--log-level", "warning"]
    with serving(command, tmp_path, port), scraped(tmp_path, f"127.0.0.1:{port}") as prometheus:
        work(prometheus, port)
        check_sums(prometheus)

        def exemplars():
            found = prometheus.get("query_exemplars", query="size_bucket", start="0", end="9999999999")
            return [one for series in found for one in series["exemplars"]]

        noted = prometheus.until(exemplars, bool)
        assert all(int(one["labels"]["trace_id"], 16) % 13 == float(one["value"]) for one in noted)
        assert prometheus.value("count(llm_active_requests)") == 1
        assert prometheus.value("llm_active_requests") == 0


@pytest.mark.heavy
def test_prometheus_scrapes_gunicorn_with_four_workers(tmp_path):
    port = free_port()
    command = [
        "gunicorn", "app:app", "--workers", "4", "--worker-class", "asgi", "--bind", f"127.0.0.1:{port}",
    ]  # fmt: skip
    shared = {"TELLMETER_MULTIPROC_DIR": str(tmp_path / "metrics")}
    with serving(command, tmp_path, port, **shared), scraped(tmp_path, f"127.0.0.1:{port}") as prometheus:
        workers = work(prometheus, port)
        assert len(workers) > 1
        check_sums(prometheus)


@pytest.mark.heavy
def test_promtool_finds_nothing_in_the_page_of_an_application(tmp_path):
    require("promtool")
    port = free_port()
    command = ["uvicorn", "app:app", "--port", str(port), "--log-level", "warning"]
    with serving(command, tmp_path, port), scraped(tmp_path, f"127.0.0.1:{port}") as prometheus:
        work(prometheus, port)
        page = fetch(port, "/mounted/")
    checked = subprocess.run(["promtool", "check", "metrics"], input=page, capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")
