from __future__ import annotations

import subprocess
import sys

import pytest

from tellmeter import ConfigError, call
from tellmeter.telemetry.llm_spans import trace_llm_calls
from tests.support.traced import traced


def run(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)


def test_another_mode_is_refused_and_changes_nothing() -> None:
    with traced():
        before = call.new_span
        with pytest.raises(ConfigError, match="it must be finished, live, off"):
            trace_llm_calls(mode="fast")
        assert before is not None and call.new_span is before


def test_off_makes_no_more_spans_and_a_call_in_progress_keeps_its_own() -> None:
    with traced() as seen:
        with seen.collector.track_request("openai", "first"):
            trace_llm_calls(mode="off")
        with seen.collector.track_request("openai", "second"):
            pass
        assert [span.name for span in seen.spans()] == ["chat first"]


def test_the_way_is_changed_by_calling_it_again() -> None:
    with traced("live") as seen:
        trace_llm_calls()
        with seen.collector.track_request("openai", "m"):
            pass
        assert [span.name for span in seen.spans()] == ["chat m"]


def test_tellmeter_alone_loads_no_opentelemetry() -> None:
    done = run(
        "import sys, tellmeter.telemetry.llm_spans\n"
        "from tellmeter import meter_call\n"
        "with meter_call(model='m'): pass\n"
        "print({'opentelemetry.trace', 'opentelemetry.sdk.trace'} & set(sys.modules))"
    )
    assert done.stdout.strip() == "set()", done


def test_without_opentelemetry_calls_are_metered_and_one_line_says_what_to_install() -> None:
    done = run(
        "import sys; sys.modules['opentelemetry'] = None\n"
        "import tellmeter\n"
        "from tellmeter.telemetry.llm_spans import trace_llm_calls\n"
        "trace_llm_calls(mode='live')\n"
        "with tellmeter.meter_call(model='m'): pass\n"
        "collector = tellmeter.get_metrics_collector(); collector.flush_sync()\n"
        "print(collector.stats().recorded)"
    )
    assert done.stdout.strip() == "1", done
    assert done.stderr.strip() == "LLM calls get no spans without OpenTelemetry: pip install 'tellmeter[otel]'"


def test_the_last_calls_have_their_spans_before_the_provider_shuts_down_at_the_exit() -> None:
    done = run(
        "import tellmeter\n"
        "tellmeter.get_metrics_collector()\n"  # whose exit would come after the provider's
        "from opentelemetry import trace\n"
        "from opentelemetry.sdk.trace import TracerProvider\n"
        "from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter\n"
        "provider = TracerProvider()\n"
        "provider.add_span_processor(BatchSpanProcessor(ConsoleSpanExporter(formatter=lambda span: span.name + '|')))\n"
        "trace.set_tracer_provider(provider)\n"
        "from tellmeter.telemetry.llm_spans import trace_llm_calls\n"
        "trace_llm_calls()\n"
        "with tellmeter.meter_call(model='ended'): pass\n"
        "open_call = tellmeter.get_metrics_collector().track_request('openai', 'open')\n"
    )
    assert sorted(filter(None, done.stdout.split("|"))) == ["chat ended", "chat open"], done
    assert done.stderr == ""
