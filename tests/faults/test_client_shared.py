"""What LLMClients share, and what they do not: two of them, many loops, threads, forks, and others who meter."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tellmeter import (
    CircuitBreakerConfig,
    ConfigError,
    InMemoryMetricsSink,
    LLMError,
    MetricsCollector,
    MetricsConfig,
    MetricsRegistry,
    MissingExtra,
    Timeouts,
    instrument,
    uninstrument,
)
from tellmeter.testing import Answer, FaultServer
from tellmeter.testing.contract_kit import poll
from tests.support.client import ASK, CLAUDE, KEY, MODEL, ONCE, Lab, counts_of, has
from tests.support.metrics import in_child

pytestmark = pytest.mark.sdk
WHOLE = (
    b'{"id": "1", "object": "chat.completion", "created": 1, "model": "gpt-4o", "choices": [{"index": 0, "message": '
    b'{"role": "assistant", "content": "Fine."}, "finish_reason": "stop"}], '
    b'"usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}}'
)

# ---------------------------------------------------------------------- two clients


@pytest.mark.asyncio
async def test_two_clients_have_nothing_in_common_but_the_registry() -> None:
    other_sink = InMemoryMetricsSink()
    breaker = CircuitBreakerConfig(failure_threshold=1)
    async with Lab("500", config={"tags": {"who": "one"}}, circuit_breaker=breaker, retry_policy=ONCE) as lab:
        filters = [lambda record: False]
        config = MetricsConfig(filters=filters, tags={"who": "other"})
        other = lab.another(
            sinks=[other_sink],
            metrics_config=config,
            circuit_breaker=breaker,
            max_concurrency=1,
            api_keys={"openai": "k"},
        )
        async with other:
            assert (await lab.generate()).category == "server_error"
            assert (await lab.generate()).category == "circuit_open"
            answer = await other.generate(ASK, model=MODEL)
            assert answer.text and answer.metrics.tags == {"who": "other"}
            assert lab.client._calling.breaker("openai").state == "open"
            assert other._calling.breaker("openai").state == "closed"
            assert lab.client._calling._limiter is None
            assert [record.status for record in lab.records()] == ["error", "rejected"]
            assert {record.tags["who"] for record in lab.records()} == {"one"}
            assert not await other_sink.get_metrics() and other.metrics_collector.stats().dropped == {"filtered": 1}
            assert counts_of(lab.registry, "llm_requests_total", "status") == {"error": 1, "rejected": 1, "success": 1}
            with pytest.raises(AssertionError):  # the registry has the other's call, too
                lab.check()
            lab.server.served.clear()
        lab._check_counts = lambda records: None  # type: ignore[method-assign]


@pytest.mark.asyncio
async def test_a_client_of_its_own_registry_counts_there_alone() -> None:
    async with Lab() as lab:
        mine = MetricsRegistry()
        async with lab.another(registry=mine) as other:
            await other.generate("x", model=MODEL)
            await other.metrics_collector.flush()
        assert counts_of(mine, "llm_requests_total", "status") == {"success": 1}
        assert not lab.counts("llm_requests_total")
        lab.server.served.clear()


# ---------------------------------------------------------------------- loops and threads


def test_one_client_in_one_event_loop_after_another() -> None:
    with Lab("ok", "500", "ok") as lab:
        for _ in range(4):
            assert asyncio.run(lab.generate()).text
            text, error = asyncio.run(lab.stream(CLAUDE))
            assert text and error is None
        assert [record.status for record in lab.records()] == ["success"] * 8


def test_a_stream_that_is_left_to_the_end_of_its_loop() -> None:
    async def leave() -> Any:
        stream = lab.client.stream(ASK, model=MODEL)
        assert await anext(stream)
        return stream

    with Lab("stall;after=6;seconds=60", max_concurrency=1) as lab:
        kept = asyncio.run(leave())
        assert has(lab.record(), status="closed_early")
        assert asyncio.run(lab.generate()).text
        del kept


def test_a_loop_that_ends_without_a_word() -> None:
    """`run_until_complete` and `close`, as programs did before `asyncio.run`: a place is not lost with the loop."""
    result = in_child(
        """
        import asyncio, gc, json
        from tests.support.client import ASK, MODEL, Lab

        async def leave():
            async for _ in (stream := lab.client.stream_with_usage(ASK, model=MODEL)):
                return stream

        lab = Lab("stall;after=6;seconds=60", max_concurrency=1).start()
        loop = asyncio.new_event_loop()
        kept = loop.run_until_complete(leave())
        loop.close()
        del kept
        gc.collect()
        text = asyncio.run(lab.generate()).text
        breaker = lab.client._calling.breaker("openai").stats()
        statuses = [record.status for record in lab.records()]
        lab.check()
        lab.client.close()
        lab._stop()
        print(json.dumps([bool(text), lab.client._calling._limiter.in_use, breaker.calls, breaker.failures, statuses]))
        """
    )
    assert result == [True, 0, 1, 0, ["abandoned", "success"]]


def test_many_threads_at_once() -> None:
    number, failed, ready = 8, [], threading.Barrier(8)

    def work(index: int) -> None:
        try:
            ready.wait(60)
            for _ in range(4):
                if index % 2:
                    assert lab.client.generate_sync(ASK, model=MODEL).text
                else:
                    assert asyncio.run(lab.generate()).text
                assert "".join(lab.client.stream_sync(ASK, model=MODEL))
        except BaseException as error:
            failed.append(error)

    with Lab(max_concurrency=3) as lab:
        threads = [threading.Thread(target=work, args=(index,)) for index in range(number)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(100)
        assert not failed, failed
        records = lab.records()
        assert [record.status for record in records] == ["success"] * number * 8
        assert len({record.request_id for record in records}) == len(records)
        assert sum(record.output_tokens for record in records) == sum(one.output_tokens for one in lab.served)
        assert lab.client._calling._limiter.in_use == 0


@pytest.mark.asyncio
async def test_no_more_requests_at_once_than_wanted() -> None:
    go, lock, now, most = threading.Event(), threading.Lock(), [0], [0]

    def play(request: Any) -> Answer:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        go.wait(60)
        with lock:
            now[0] -= 1
        return Answer(200, WHOLE, {"content-type": "application/json"})

    with FaultServer(play) as server:
        async with Lab(max_concurrency=3, base_urls={"openai": server.url}, unsent=12) as lab:
            tasks = [asyncio.create_task(lab.generate()) for _ in range(12)]
            await asyncio.to_thread(server.wait_for, 3, 60)
            await asyncio.sleep(0.1)  # one more would be there by now, or soon
            assert server.received == 3 and lab.client._calling._limiter.waiting == 9
            assert lab.counts("llm_active_requests", "provider") == {"openai": 12}
            go.set()
            assert {answer.text for answer in await asyncio.gather(*tasks)} == {"Fine."}
            assert most == [3] and server.received == 12
            lab.said.clear()


# ---------------------------------------------------------------------- without an event loop


def test_the_sync_twins_say_the_same() -> None:
    with Lab("500", "ok", "reset;after=6", "ok", "400") as lab:
        answer = lab.client.generate_sync(ASK, model=MODEL)
        assert answer.text and answer.metrics == lab.record() and lab.record().retries == 1
        with lab.client.stream_with_usage_sync(ASK, model=CLAUDE) as response:
            with pytest.raises(LLMError) as caught:
                list(response)
            assert caught.value.category == "network" and response.get_text()
            assert response.get_usage().output_tokens == lab.records()[-1].output_tokens > 0
        texts = lab.client.stream_sync(ASK, model=MODEL)
        assert next(texts)
        texts.close()  # type: ignore[attr-defined]
        assert has(lab.records()[-1], status="closed_early")
        with pytest.raises(LLMError, match="HTTP 400"):
            lab.client.generate_sync(ASK, model=MODEL)
        assert lab.client.embed_sync(["a", "b"], model="text-embedding-3-small").embeddings
        assert lab.client.get_available_models_sync("openai")["openai"]
        assert [record.method for record in lab.records()] == ["generate", "stream", "stream", "generate", "embed"]
        lab.server.served.pop()  # the list of models is no call


@pytest.fixture
def interrupt() -> Iterator[Any]:
    """Has Ctrl-C come to this thread as soon as something is so."""
    threads: list[threading.Thread] = []
    here = threading.get_ident()

    def when(ready: Any) -> None:
        def watch() -> None:
            poll(ready, lambda: "it never was")
            signal.pthread_kill(here, signal.SIGINT)

        threads.append(threading.Thread(target=watch))
        threads[-1].start()

    yield when
    for thread in threads:
        thread.join()


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="no pthread_kill here")
def test_an_interrupt_of_the_waiting_thread(interrupt: Any) -> None:
    with Lab("hang", "stall;after=6;seconds=60", "ok", max_concurrency=1) as lab:
        interrupt(lambda: len(lab.served) == 1)
        with pytest.raises(KeyboardInterrupt):
            lab.client.generate_sync(ASK, model=MODEL)
        poll(lambda: not lab.client.metrics_collector.open_calls, lambda: "the call goes on")
        assert has(lab.record(), status="cancelled", error_category="cancelled")
        interrupt(lambda: len(lab.served) == 2 and lab.served[-1].events == 6)
        with pytest.raises(KeyboardInterrupt):
            list(lab.client.stream_sync(ASK, model=MODEL))
        poll(lambda: not lab.client.metrics_collector.open_calls, lambda: "the stream goes on")
        assert lab.records()[-1].status in ("cancelled", "closed_early")
        assert lab.client.generate_sync(ASK, model=MODEL).text


@pytest.mark.asyncio
async def test_a_sync_call_in_a_running_loop_and_in_a_callback() -> None:
    async with Lab() as lab:
        assert lab.client.generate_sync(ASK, model=MODEL).text  # it holds the loop up, and works
        raised: list[BaseException] = []

        def again(event: Any) -> None:
            try:
                lab.client.generate_sync(ASK, model=MODEL)
            except ConfigError as error:
                raised.append(error)

        with lab.client.stream_with_usage_sync(ASK, model=MODEL, on_start=again) as response:
            assert "".join(response) == response.get_text() != ""
        assert len(raised) == 1 and len(lab.records()) == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("loading", [False, True], ids=["between calls", "while prices are loaded"])
def test_a_fork(loading: bool) -> None:
    result = in_child(
        """
        import asyncio, json, os, sys, threading
        from tellmeter import InMemoryMetricsSink, LLMClient, MetricsConfig, MetricsRegistry
        from tellmeter.client import calling
        from tellmeter.simulator.server import SimulatorServer
        from tellmeter.simulator.traffic import Traffic

        def ask(client, sink):
            answer = client.generate_sync("Hi", model="gpt-4o")
            text = "".join(client.stream_sync("Hi", model="gpt-4o"))
            records = asyncio.run(sink.get_metrics())
            assert answer.text and text and answer.cost_usd
            assert client._calling._loaded.is_set()
            return [record.status for record in records[:2]]

        with SimulatorServer(Traffic(speed=0)) as server:
            sink = InMemoryMetricsSink()
            client = LLMClient("k", metrics_sinks=[sink], registry=MetricsRegistry(), base_urls={"openai": server.openai_url}, max_concurrency=2)
            if sys.argv[1] == "True":
                calling.PRICES_SECONDS = 0.1
                client._calling._ready = client._calling.collector  # by a thread that is not in the child
            else:
                ask(client, sink)
            read, write = os.pipe()
            pid = os.fork()
            if pid == 0:
                try:
                    os.write(write, json.dumps(ask(client, sink)).encode())
                except BaseException as error:
                    os.write(write, json.dumps(repr(error)).encode())
                finally:
                    os._exit(0)
            mine = ask(client, sink)
            theirs = json.loads(os.read(read, 10_000))
            os.waitpid(pid, 0)
            client.close()
        print(json.dumps([mine, theirs]))
        """,
        loading,
    )
    assert result == [["success"] * 2] * 2


# ---------------------------------------------------------------------- what becomes of the record


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("config", "dropped"),
    [
        ({"enabled": False}, {}),
        ({"filters": [lambda record: False]}, {"filtered": 2}),
        ({"request_sampling_rate": 0.0, "streaming_sampling_rate": 0.0}, {"sampled_out": 2}),
        ({"max_queue": 1}, None),
    ],
    ids=["switched off", "filtered", "not in the sample", "queue full"],
)
async def test_the_answer_has_its_numbers_all_the_same(config: dict[str, Any], dropped: Any) -> None:
    async with Lab(config=config) as lab:
        collector = lab.client.metrics_collector
        if dropped is None:
            collector._router.put = lambda *item: False  # type: ignore[method-assign]
            lab._check_counts = lambda records: None  # type: ignore[method-assign]
        answer = await lab.generate()
        response = lab.client.stream_with_usage(ASK, model=MODEL)
        whole = await response.get_response()
        lab.said += [answer.text, whole.text]
        for one, served in zip((answer, whole), lab.served, strict=True):
            assert one.usage.output_tokens == served.output_tokens > 0 and one.cost_usd
            assert one.metrics.cost_usd == one.cost_usd == one.cost_breakdown["total_cost"]
            assert (one.finish_reason, one.provider, one.metrics.status) == ("stop", "openai", "success")
        assert not lab.records()
        if dropped is not None:
            assert collector.stats().dropped == dropped
        if config.get("enabled") is False:
            assert not lab.counts("llm_requests_total") and collector.stats().recorded == 0


def test_a_program_that_meters_everything_counts_no_call_twice() -> None:
    everything = InMemoryMetricsSink()
    collector = MetricsCollector(sinks=[everything], registry=MetricsRegistry())
    with Lab("500", "ok", "stall;after=6;seconds=60") as lab:
        instrument(collector=collector)
        try:

            async def some() -> None:
                await lab.generate()
                await lab.stream(timeouts=Timeouts(between_chunks=0.1))
                await lab.stream(CLAUDE)

            asyncio.run(some())
            lab.said.append(lab.client.generate_sync(ASK, model=MODEL).text)
        finally:
            uninstrument()
            collector.shutdown_sync()
        assert [record.status for record in lab.records()] == ["success", "timeout", "success", "success"]
        assert not asyncio.run(everything.get_metrics()) and collector.stats().recorded == 0


@pytest.mark.asyncio
@pytest.mark.parametrize(("model", "package"), [(MODEL, "openai"), (CLAUDE, "anthropic")])
async def test_an_sdk_that_is_not_there(model: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    async with Lab() as lab:
        for asked in (lab.client.generate(ASK, model=model), lab.stream(model)):
            with pytest.raises(MissingExtra, match=rf"pip install 'tellmeter\[{package}\]'"):
                await asked
        for record in lab.records():
            assert has(record, status="error", error_class="MissingExtra", provider=package, cost_usd=0.0, retries=0)
        assert not lab.served and KEY not in repr(lab.records())
