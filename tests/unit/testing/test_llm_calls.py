import asyncio
import threading

import pytest

import tellmeter
from tellmeter import AgentMetrics, ConfigError, InMemoryMetricsSink, MetricsConfig, MetricsRegistry, meter_call
from tellmeter import process as process_module
from tellmeter.simulator import SimulatorServer, Traffic
from tellmeter.testing import LLMCalls, recorded_calls
from tellmeter.wire import hooks

openai = pytest.importorskip("openai")
HELLO = [{"role": "user", "content": "hello"}]


@pytest.fixture(autouse=True)
def own_process_collector(monkeypatch):
    monkeypatch.setattr(process_module, "_process_collector", None)
    monkeypatch.delenv("TELLMETER_SINKS", raising=False)


@pytest.fixture(scope="module")
def server():
    with SimulatorServer(Traffic(seed=1, speed=0)) as running:
        yield running


@pytest.fixture
def client(server):
    with openai.OpenAI(base_url=server.openai_url, api_key="any", max_retries=0) as made:
        yield made


def ask(client, model="gpt-4o-mini", **more):
    return client.chat.completions.create(model=model, messages=HELLO, **more)


def call(model="m", **fields):
    with meter_call(model=model, provider="ollama") as made:
        for name, value in fields.items():
            setattr(made, name, value)


def made(**fields):
    return AgentMetrics(**{"model": "m", **fields})


@pytest.mark.sdk
def test_calls_of_the_real_sdk_are_seen(client):
    with recorded_calls() as calls:
        first = ask(client)
        with tellmeter.tags(feature="chat"):
            list(ask(client, stream=True, stream_options={"include_usage": True}))
        with pytest.raises(openai.RateLimitError):
            ask(client, "gpt-4o", extra_headers={"x-simulate": "429"})
        assert len(calls) == 3
        assert calls.models == {"gpt-4o-mini": 2, "gpt-4o": 1}
        assert calls.errors == {"RateLimitError": 1}
        assert calls.count(model="gpt-4o-mini", provider="openai", status="success") == 2
        assert calls.filter(tags={"feature": "chat"})[0].method == "stream"
        assert calls[0].input_tokens == first.usage.prompt_tokens
        assert 0 < calls.cost_usd < 1
    ask(client)
    assert len(calls) == 3  # afterwards it stays as it was


@pytest.mark.sdk
def test_async_calls_are_seen(server):
    async def program():
        async with openai.AsyncOpenAI(base_url=server.openai_url, api_key="any") as client:
            await asyncio.gather(*(ask(client) for _ in range(5)))
            return len(calls)

    with recorded_calls() as calls:
        assert asyncio.run(program()) == 5


@pytest.mark.sdk
@pytest.mark.parametrize("metered", ["not", "all", "to-a-collector"])
def test_what_was_instrumented_before_is_so_again(client, metered):
    sink = InMemoryMetricsSink()
    own = tellmeter.MetricsCollector(sinks=[sink], registry=MetricsRegistry())
    former = tellmeter.configure(sinks=[InMemoryMetricsSink()])
    try:
        if metered != "not":
            tellmeter.instrument(collector=own if metered == "to-a-collector" else None)
        with recorded_calls() as calls:
            ask(client)
            assert len(calls) == 1
            tellmeter.uninstrument()  # whatever the program does
        ask(client)
        former.flush_sync()
        own.flush_sync()
        assert (former.stats().recorded, own.stats().recorded) == {"not": (0, 0), "all": (1, 0)}.get(metered, (0, 1))
        assert tellmeter.get_metrics_collector() is former
    finally:
        tellmeter.uninstrument()


@pytest.mark.sdk
def test_clients_that_were_metered_alone_stay_so(client):
    former = tellmeter.configure(sinks=[InMemoryMetricsSink()])
    try:
        tellmeter.instrument(client)
        with recorded_calls() as calls:
            ask(client)
            assert len(calls) == 1
        ask(client)
        former.flush_sync()
        assert former.stats().recorded == 1
        assert not hooks._metering_all
    finally:
        tellmeter.uninstrument()


def test_a_program_that_configures_itself_is_seen_whatever_it_keeps():
    sink = InMemoryMetricsSink()
    with recorded_calls() as calls:
        call()
        collector = tellmeter.configure(
            MetricsConfig(
                request_sampling_rate=0.0,
                filters=[lambda record: False],
                prices={"mine": {"input": 1e6}},
                tags={"a": "b"},
            ),
            sinks=[sink],
        )
        call("mine", input_tokens=2)
        assert tellmeter.get_metrics_collector() is collector
        assert [record.model for record in calls] == ["m", "mine"]
        assert calls.cost_usd == 2.0 and calls[1].tags == {"a": "b"}
        assert asyncio.run(sink.get_metrics()) == []
    call()
    assert len(calls) == 2 and collector.stats().recorded == 1


def test_the_settings_and_the_registry_from_before_hold():
    registry = MetricsRegistry()
    former = tellmeter.configure(MetricsConfig(prices={"mine": {"input": 1e6}}), sinks=["memory:"], registry=registry)
    with recorded_calls() as calls:
        call("mine", input_tokens=3)
        assert calls.cost_usd == 3.0
        assert tellmeter.get_metrics_collector().registry is registry
    assert former.stats().recorded == 0


def test_metering_that_was_off_is_on_meanwhile():
    tellmeter.configure(MetricsConfig(enabled=False))
    with recorded_calls() as calls:
        call()
        assert len(calls) == 1
    assert process_module.is_switched_off()


def test_an_exception_puts_everything_back():
    with pytest.raises(ZeroDivisionError), recorded_calls():
        raise ZeroDivisionError
    assert process_module._process_collector is None
    assert process_module._watchers == ()
    assert not hooks._metering_all


def test_one_inside_another():
    with recorded_calls() as outer:
        call("a")
        with recorded_calls() as inner:
            call("b")
            assert inner.models == {"b": 1}
        call("c")
        assert list(outer.models) == ["a", "b", "c"]


def test_a_bad_environment_changes_nothing(monkeypatch):
    monkeypatch.setenv("TELLMETER_BATCH_SIZE", "none")
    with pytest.raises(ConfigError), recorded_calls():
        pass
    assert process_module._watchers == ()


def test_calls_of_many_threads_are_all_seen():
    with recorded_calls() as calls:
        threads = [threading.Thread(target=lambda: [call() for _ in range(50)]) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(calls) == 200


def test_clear_forgets_what_was():
    with recorded_calls() as calls:
        call("a")
        calls.clear()
        call("b")
        assert calls.models == {"b": 1}


def test_sums_and_counts():
    calls = LLMCalls(
        [
            made(input_tokens=10, output_tokens=2, cost_usd=0.5, latency_ms=30.0),
            made(input_tokens=1, latency_ms=70.0, retries=2, status="error", error_class="APIError"),
            made(model="n", provider="p", status="timeout", latency_ms=5.0, cost_usd=0.25),
            made(status="cancelled", error_class="CancelledError"),
        ]
    )
    assert (calls.input_tokens, calls.output_tokens, calls.total_tokens) == (11, 2, 13)
    assert (calls.cost_usd, calls.unpriced, calls.retries, calls.latency_ms) == (0.75, 2, 2, 70.0)
    assert calls.models == {"m": 3, "n": 1}
    assert calls.errors == {"APIError": 1, "timeout": 1}  # what the program itself broke off is no error
    assert len(calls[1:3]) == 2 and isinstance(calls[1:3], LLMCalls)
    assert calls[-1].status == "cancelled"
    assert calls and not LLMCalls()
    assert LLMCalls().latency_ms == LLMCalls().cost_usd == 0


def test_filters():
    calls = LLMCalls([made(tags={"a": "1", "b": "2"}), made(tags={"a": "1"}, latency_ms=9.0), made(provider="p")])
    assert calls.count() == 3
    assert calls.count(tags={"a": "1"}) == 2
    assert calls.count(tags={"a": "1", "b": "2"}) == 1
    assert calls.count(tags={"a": "1", "c": "3"}) == 0
    assert calls.count(provider="p", model="m") == 1
    assert calls.filter(lambda one: one.latency_ms > 5).count(tags={"a": "1"}) == 1
    with pytest.raises(ConfigError, match="modle is no field"):
        calls.count(modle="m")


def test_it_shows_itself_on_a_line_and_as_a_table():
    calls = LLMCalls([made(input_tokens=7, cost_usd=0.01), made(model="n", status="error", error_class="APIError")])
    assert repr(calls) == "<LLMCalls: 2 calls (1 x m, 1 x n), 7 + 0 tokens, 0.01 USD and 1 unpriced, 1 failed>"
    head, first, second, last = str(calls).splitlines()
    assert head.split()[:4] == ["model", "provider", "method", "status"]
    assert first.split() == ["m", "unknown", "generate", "success", "7", "0", "0.010000", "0.0"]
    assert second.split() == ["n", "unknown", "generate", "APIError", "0", "0", "unknown", "0.0"]
    assert last == repr(calls)
    assert "... and 70 more" in str(LLMCalls([made()] * 100))
    assert repr(LLMCalls()) == "<LLMCalls: 0 calls, 0 + 0 tokens, 0 USD>"


@pytest.mark.parametrize(
    ("limits", "told"),
    [
        ({}, []),
        ({"usd": 0.5, "calls": 2, "tokens": 10}, []),
        ({"usd": 0.49}, ["0.5 of 0.49 USD"]),
        ({"calls": 1, "tokens": 9}, ["2 of 1 calls", "10 of 9 tokens"]),
        ({"calls": 0}, ["2 of 0 calls"]),
    ],
)
def test_budgets(limits, told):
    assert LLMCalls([made(cost_usd=0.5, input_tokens=6), made(output_tokens=4)]).over_budget(**limits) == told
