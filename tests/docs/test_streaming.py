"""docs/streaming.md: what its blocks do, with the simulator and with recorded streams in the provider's place.

Bytes and chunks of every report are held against a count over the bytes that the server sent.
"""

import itertools
import json
import re
import statistics
import subprocess

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tellmeter.streams.options import read_options
from tests.support.exchanges import SHARED, need_shared
from tests.support.servers import require
from tests.support.streaming_guide import PAGE, chat_text, events, python, replayed, run, sections, simulated

# Each block of the guide -> the section that has it in Python.
TRANSLATED = {
    "Enabling Metrics": "A client for any endpoint",
    "Handling Metrics": "A client for any endpoint",
    "Client Options": "A client for any endpoint",
    "Runtime Options": "A client for any endpoint",
    "Metrics Structure": "What a report holds",
    "Periodic Progress Updates": "Show progress",
    "Performance Monitoring": "Compare providers",
    "Error Detection": "Notice errors",
    "Detailed Analysis": "Raw chunks",
    "With Telemetry": "Events",
    "With Phoenix LiveView": "A live page",
    "With Prometheus": "Prometheus",
}
KEYS = {
    "stream_id": str,
    "provider": str,
    "start_time": float,
    "current_time": float,
    "duration_ms": float,
    "bytes_received": int,
    "chunks_received": int,
    "bytes_per_second": float,
    "chunks_per_second": float,
    "avg_chunk_size": float,
    "error_count": int,
    "last_error": type(None),
    "status": str,
    "raw_chunks": type(None),
}


@pytest.fixture
def simulator():
    with simulated() as backend:
        yield backend


@pytest.fixture(params=[simulated, replayed], ids=["simulator", "recordings"])
def backend(request):
    with request.param() as found:
        yield found


def agree(final, body, provider="openai"):
    """The last report of a stream that went well has what a count over its bytes gives."""
    for key, kind in KEYS.items():
        assert isinstance(final[key], kind) or (key == "raw_chunks" and final[key]), key
    assert (final["status"], final["event"], final["provider"]) == ("completed", "stream.complete", provider)
    assert (final["error_count"], final["last_error"], final["waiting_for"]) == (0, None, "")
    assert final["bytes_received"] == len(body)
    assert final["chunks_received"] == len(events(body))
    assert final["avg_chunk_size"] == pytest.approx(len(body) / len(events(body)))
    assert final["current_time"] - final["start_time"] == pytest.approx(final["duration_ms"], abs=0.01)
    seconds = final["duration_ms"] / 1000
    assert final["bytes_per_second"] == pytest.approx(len(body) / seconds)
    assert final["chunks_per_second"] == pytest.approx(len(events(body)) / seconds)
    assert 0 < final["time_to_first_chunk_ms"] <= final["time_to_first_token_ms"] <= final["duration_ms"]
    assert final["output_tokens"] > 0


def all_agree(ran, backend, number, provider="openai"):
    assert len(ran.finals) == len(backend.bodies) == number
    for final, body in zip(ran.finals, backend.bodies, strict=True):
        agree(final, body, provider)
    assert len({final["stream_id"] for final in ran.finals}) == number


def engine():
    """The blocks that those of "What to do with reports" need: a handler, the first engine, `ask`."""
    return [*python("A client for any endpoint")[:2], "collector.flush_sync()", *python("What to do with reports")]


# ---------------------------------------------------------------------- the page as a whole


def test_every_block_of_the_guide_is_on_the_page():
    need_shared(SHARED / "seeds")
    (guide,) = (SHARED / "seeds").glob("004_*.txt")
    headings = []
    for part in re.split(r"^(?=##+ )", guide.read_text("utf-8"), flags=re.MULTILINE):
        headings += [part.partition("\n")[0].lstrip("# ")] * len(re.findall(r"^```elixir", part, re.MULTILINE))
    assert headings == list(TRANSLATED)
    found = sections()
    for heading in TRANSLATED.values():
        assert heading == "What a report holds" or python(heading), heading
    assert "What a report holds" in found


def test_the_table_of_fields_is_complete():
    from tellmeter import StreamReport

    text = PAGE.read_text("utf-8")
    table = text[text.index("## What a report holds") : text.index("## When reports come")]
    named = [name for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)]
    assert sorted(named) == sorted(StreamReport.__struct_fields__)
    assert set(KEYS) <= {*named}


def test_the_guides_names_are_options():
    text = PAGE.read_text("utf-8")
    table = text[text.index("| what | `StreamEngine(...)` |") : text.index("## What to do with reports")]
    values = {"whether to watch": False, "whom to tell": print, "how often": 500, "the bytes": True}
    rows = re.findall(r"^\| (\w+ .*) \|$", table, re.MULTILINE)[1:]
    assert len(rows) == len(values)
    for row in rows:
        cells = row.split(" | ")
        value = values[cells[0]]
        said = [read_options({name.strip("`"): value}) for name in cells[1:3]]
        said += [read_options({name: value}) for name in re.findall(r"stream_options\((\w+)=\)", cells[3])]
        assert len(said) == 3 and len({repr(one) for one in said}) == 1, cells


# ---------------------------------------------------------------------- block by block


def test_one_line_has_streams_told(backend):
    ran = run(backend, python("Streams"))
    all_agree(ran, backend, 1)
    last = ran.printed.splitlines()[-1]
    assert last.startswith(f"completed: {len(events(backend.bodies[0]))} chunks, ")


def test_the_engine_gives_chunks_and_metrics(backend):
    ran = run(backend, python("A client for any endpoint"))
    all_agree(ran, backend, 2)
    first, second = ran.finals
    said = re.sub(r"Streaming metrics: StreamReport\(.*?tags=\{\}\)", "", ran.printed)  # in between, from its thread
    assert chat_text(backend.bodies[0]).replace("\n", "") in said.replace("\n", "")
    assert f"completed: {first['output_tokens']} tokens" in ran.printed
    sent = [line for line in ran.lines if line["status"] == "completed"]
    names = ("bytes_received", "chunks_received", "duration_ms", "provider", "stream_id", "status")
    assert [{name: line[name] for name in names} for line in sent] == [{name: first[name] for name in names}]
    # The second stream's reports go to its own function, with its own options.
    after = ran.printed.partition(f"completed: {first['output_tokens']} tokens")[2].split("\n")
    assert f"completed {second['chunks_received']}" in after and "completed" not in after


def test_progress_is_shown_while_it_runs(simulator):
    ran = run(simulator, [*engine(), "faults('slow;seconds=0.05')", *python("Show progress")])
    all_agree(ran, simulator, 2)
    shown = [int(number) for number in re.findall(r"^Progress: (\d+) chunks received$", ran.printed, re.MULTILINE)]
    assert min(shown) < max(shown) <= ran.finals[1]["chunks_received"]


def test_a_slow_provider_is_noticed(backend):
    asks = ""
    if backend.kind == "simulator":
        asks = "faults('slow;seconds=0.5')\nslow = StreamEngine('openai', 'k', BASE_URL, "
        asks += "metrics_callback=monitor.handle_metrics)\nasyncio.run(ask(slow, max_tokens=4))"
    kept = "collector.flush_sync()\ntold['kept'] = {name: len(reports) for name, reports in monitor.reports.items()}\n"
    kept += "told['statuses'] = [report.status for report in monitor.reports['openai']]"
    ran = run(backend, [*engine(), *python("Compare providers")], f"{asks}\n{kept}")
    all_agree(ran, backend, 3 if asks else 2)
    assert list(ran.told["kept"]) == ["openai"]
    assert ran.told["statuses"].count("completed") == (2 if asks else 1)
    if asks:
        warned = {line["message"] for line in ran.lines if line["level"] == "WARNING"}
        assert warned == {"Slow streaming detected for openai"}


def test_errors_are_noticed(simulator):
    more = """
async def again(fault):
    faults(fault)
    with tellmeter.stream_options(stall_after_ms=200):
        await ask(StreamEngine("openai", "sk-...", BASE_URL, metrics_callback=notice))
for fault in ("stall;after=3;seconds=0.5", "error-event;after=3", "reset;after=3", "401"):
    asyncio.run(again(fault))
"""
    ran = run(simulator, [*engine(), *python("Notice errors")], more)
    assert [final["status"] for final in ran.finals] == ["completed"] * 3 + ["error"] * 3
    assert [final["error_count"] for final in ran.finals] == [0] * 3 + [1] * 3
    (level, message), *told = [(line["level"], line["message"]) for line in ran.lines if line["level"] != "INFO"]
    assert level == "WARNING" and re.fullmatch(r"Stream completed with \d+ stalls", message)
    classes = [final["last_error"] for final in ran.finals[3:]]
    assert told == [("ERROR", f"Stream failed: {name}") for name in classes]
    assert all(name.isidentifier() for name in classes)


def test_raw_chunks_are_the_bytes_that_came(backend):
    ran = run(backend, [*engine(), *python("Raw chunks")])
    agree(ran.finals[0], backend.bodies[0])
    agree(ran.finals[1], backend.bodies[1], "anthropic")
    assert ran.finals[0]["raw_chunks"] is None
    chunks = ran.finals[1]["raw_chunks"]
    assert "".join(chunks).encode() == backend.bodies[1]
    sizes = [len(chunk.encode()) for chunk in chunks]
    assert ran.printed.splitlines()[-5:] == [
        "Chunk distribution:",
        f"  Count: {len(sizes)}",
        f"  Min: {min(sizes)} bytes",
        f"  Max: {max(sizes)} bytes",
        f"  Std Dev: {statistics.pstdev(sizes):.1f}",
    ]


def test_events_are_emitted_until_they_are_detached(backend):
    more = "asyncio.run(ask(StreamEngine('openai', 'sk-...', BASE_URL)))"
    ran = run(backend, [*engine(), *python("Events")], more)
    all_agree(ran, backend, 3)
    emitted = [line for line in ran.lines if line["message"].startswith("stream.")]
    assert [line["message"] for line in emitted] == ["stream.start", "stream.complete"]
    start, complete = emitted
    final = ran.finals[1]
    assert (start["status"], complete["status"]) == ("streaming", "completed")
    assert start["stream_id"] == complete["stream_id"] == final["stream_id"]
    for name in ("duration_ms", "bytes_received", "chunks_received", "bytes_per_second", "provider", "error_count"):
        assert complete[name] == final[name]


def series(page):
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name.startswith("streaming_")
    }


def test_prometheus_counts_every_ending(backend):
    number = 4 if backend.kind == "simulator" else 40
    more = (
        f"async def many():\n    for _ in range({number}):\n        await ask(StreamEngine('openai', 'k', BASE_URL))\n"
    )
    more += "asyncio.run(many())\n"
    if backend.kind == "simulator":
        more += "faults('reset;after=3')\nasyncio.run(ask(StreamEngine('openai', 'k', BASE_URL)))\n"
    more += "collector.flush_sync()\ntold['page'] = tellmeter.get_metrics_text().decode()"
    ran = run(backend, [*engine(), *python("Prometheus")], more)
    found = series(ran.told["page"])
    told = ran.finals[1:]  # the first stream ended before anybody counted
    for status in {final["status"] for final in told}:
        of_it = [final for final in told if final["status"] == status]
        labels = (("provider", "openai"), ("status", status))
        assert found["streaming_bytes_total", *labels] == sum(final["bytes_received"] for final in of_it)
        assert found["streaming_chunks_total", *labels] == sum(final["chunks_received"] for final in of_it)
        assert found["streaming_duration_seconds_count", *labels] == len(of_it)
        seconds = sum(final["duration_ms"] for final in of_it) / 1000
        assert found["streaming_duration_seconds_sum", *labels] == pytest.approx(seconds)
    completed = [final for final in ran.finals if final["status"] == "completed"]
    assert len(completed) == number + 2
    for final, body in zip(completed, backend.bodies, strict=False):
        assert (final["bytes_received"], final["chunks_received"]) == (len(body), len(events(body)))
    assert len(told) - len(completed) + 1 == (backend.kind == "simulator")


def test_the_live_page_gets_all_reports_of_its_stream(simulator):
    more = """
async def watch():
    return [report async for report in live("Count to a hundred.")]
faults("slow;seconds=0.01")
told["reports"] = [values(report) for report in asyncio.run(watch())]
"""
    setup = "import asyncio, logging\nlog = logging.getLogger('app.streams')\ntellmeter.instrument()"
    ran = run(simulator, [setup, *python("A live page")], more)
    all_agree(ran, simulator, 1)
    reports = ran.told["reports"]
    assert reports[-1] == ran.finals[0]
    assert {report["stream_id"] for report in reports} == {ran.finals[0]["stream_id"]}
    seen = [report["chunks_received"] for report in reports]
    assert len(seen) >= 3 and seen == sorted(seen)


# ---------------------------------------------------------------------- what our own sections say


def test_a_narrower_place_wins(backend):
    setup = "from openai import OpenAI\nshow = lambda report: print('shown', report.status)"
    more = "for _ in client.responses.create(model='gpt-4.1-mini', input='Again.', stream=True): pass"
    ran = run(backend, [setup, *python("Options")], more)
    all_agree(ran, backend, 2)  # none of the stream that is not watched
    assert ran.printed.count("shown completed") == 1


def test_it_tells_who_keeps_a_stream_waiting(simulator):
    ran = run(simulator, python("Who keeps it waiting"))
    (final,) = ran.finals
    assert final["provider_wait_ms"] >= 999 and final["consumer_wait_ms"] >= 799
    assert final["stalls"] >= 1 and not final["stalled"]
    lines = ran.printed.strip().splitlines()
    shape = re.compile(r"^(stream\.\w+) +(provider|consumer|) +\d+ ms, stalled: (True|False)$")
    seen = [shape.match(line).groups() for line in lines[:-1]]
    assert ("stream.progress", "consumer", "False") in seen
    assert ("stream.stall", "provider", "True") in seen
    assert seen[-1] == ("stream.complete", "", "False")
    (example,) = (text for kind, text in sections()["Who keeps it waiting"] if kind == "text")
    *printed, summary = example.splitlines()
    assert {shape.match(line).groups() for line in printed} <= {*seen, ("stream.progress", "provider", "False")}
    assert re.sub(r"\d+", "N", summary) == re.sub(r"\d+", "N", lines[-1])


def test_streams_that_no_hook_sees_are_recorded(simulator):
    ran = run(simulator, python("Streams that no hook sees"))
    assert ran.printed.strip() == "You said hello" * 2
    told = [(one["provider"], one["model"], one["chunks_received"], one["bytes_received"]) for one in ran.finals]
    assert told == [("local", "parrot", 3, len("You said hello"))] * 2
    assert [one["status"] for one in ran.finals] == ["completed"] * 2


def test_the_alert_fires_after_three_stalls(tmp_path):
    (rules,) = (text for kind, text in sections()["Stalls"] if kind == "yaml")
    (tmp_path / "rules.yml").write_text(rules)
    labels = {"job": "app", "provider": "openai", "model": "gpt"}
    where = ", ".join(f'{name}="{value}"' for name, value in labels.items())
    cases = []
    for stalls, fires in (("0x10 1x10", False), ("0x10 4x10", True)):
        expected = {
            "exp_labels": {**labels, "severity": "warning"},
            "exp_annotations": {"summary": "openai falls silent in streams of gpt"},
        }
        alert = {"eval_time": "12m", "alertname": "LLMProviderFallsSilent", "exp_alerts": [expected] if fires else []}
        told = [{"series": f"llm_stream_stalls_total{{{where}}}", "values": stalls}]
        cases.append({"interval": "1m", "input_series": told, "alert_rule_test": [alert]})
    (tmp_path / "test.yml").write_text(json.dumps({"rule_files": ["rules.yml"], "tests": cases}))
    command = [require("promtool"), "test", "rules", "test.yml"]
    judged = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert judged.returncode == 0, judged.stdout + judged.stderr


def test_headings_that_are_linked_to_are_there():
    anchors = {re.sub(r"[^\w ]", "", heading.lower()).replace(" ", "-") for heading in sections()}
    linked = set(re.findall(r"\]\(#([\w-]+)\)", PAGE.read_text("utf-8")))
    assert linked and linked <= anchors
    assert len(list(itertools.chain(*sections().values()))) > 15
