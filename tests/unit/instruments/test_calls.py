from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from tellmeter import InMemoryMetricsSink, configure, meter_call
from tellmeter import process as process_module


@pytest.fixture
def sink(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemoryMetricsSink]:
    monkeypatch.setattr(process_module, "_process_collector", None)
    made = InMemoryMetricsSink()
    configure(sinks=[made])
    yield made


def test_a_block_is_one_call_of_the_processs_collector(sink: InMemoryMetricsSink) -> None:
    with meter_call(provider="vllm", model="qwen3", operation="embeddings", request_id="r") as call:
        call.input_tokens = 12
    (record,) = asyncio.run(sink.get_metrics())
    assert (record.provider, record.model, record.operation, record.request_id) == ("vllm", "qwen3", "embeddings", "r")
    assert record.input_tokens == 12


def test_a_stream_of_ones_own_has_its_first_token(sink: InMemoryMetricsSink) -> None:
    async def main() -> None:
        async with meter_call(model="qwen3", method="stream") as call:
            call.first_token()

    asyncio.run(main())
    (record,) = asyncio.run(sink.get_metrics())
    assert record.method == "stream" and record.ttft_ms is not None
