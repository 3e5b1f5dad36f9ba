import asyncio
import threading

import pytest

from tellmeter.instruments.tracking import track_metrics
from tests.support.metrics import values_of


def counted(registry, name, **labels):
    return registry.get_metric_stats(name, labels).get("count", 0)


def test_calls_durations_and_errors(registry, own_counts):
    @track_metrics(
        name="custom_operation",
        labels={"component": "processor"},
        track_duration=True,
        track_calls=True,
        track_errors=True,
        registry=registry,
    )
    async def process_data(data):
        await asyncio.sleep(data.get("seconds", 0))
        return data["x"]

    async def main():
        assert await process_data({"x": 1}) == 1
        with pytest.raises(KeyError):
            await process_data({})
        task = asyncio.create_task(process_data({"seconds": 60}))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert values_of(registry, "custom_operation_calls") == {"component=processor": 3}
    assert values_of(registry, "custom_operation_errors") == {"component=processor,error_type=KeyError": 1}
    for status in ("success", "error", "cancelled"):
        assert counted(registry, "custom_operation_duration_seconds", component="processor", status=status) == 1
    assert own_counts() == {}


def test_the_function_gives_the_name(own_process):
    @track_metrics
    def work():
        return 1

    @track_metrics()
    def more():
        return 2

    assert (work(), more()) == (1, 2)
    names = [family.name for family in own_process._process_registry.families()]
    assert [name.rpartition("test_tracking_")[2] for name in names] == [
        "work_calls_total",
        "work_duration_seconds",
        "more_calls_total",
        "more_duration_seconds",
    ]


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ({"track_calls": False}, {"op_duration_seconds", "op_errors_total"}),
        ({"track_duration": False}, {"op_calls_total", "op_errors_total"}),
        ({"track_errors": False}, {"op_calls_total", "op_duration_seconds"}),
        ({"track_errors": False, "track_duration": False}, {"op_calls_total"}),
        (
            {"call_metric": "a_total", "duration_metric": "b_seconds", "error_metric": "c_total"},
            {"a_total", "b_seconds", "c_total"},
        ),
    ],
)
def test_each_may_be_left_out_or_named(given, names, registry):
    call = track_metrics("op", registry=registry, **given)(lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        call()
    assert {family.name for family in registry.families()} == names


def test_one_extraction_serves_all_three(registry, own_counts):
    asked = []

    def extractor(request):
        asked.append(request)
        return {"method": request}

    @track_metrics("op", labels={"endpoint": "process"}, label_extractor=extractor, registry=registry)
    def endpoint(request):
        raise ValueError

    with pytest.raises(ValueError):
        endpoint("GET")
    assert asked == ["GET"]
    assert values_of(registry, "op_calls") == {"endpoint=process,method=GET": 1}
    assert values_of(registry, "op_errors") == {"endpoint=process,error_type=ValueError,method=GET": 1}
    assert counted(registry, "op_duration_seconds", endpoint="process", method="GET", status="error") == 1
    assert own_counts() == {}


def test_a_generator_broken_off_is_cancelled(registry):
    @track_metrics("op", registry=registry)
    async def stream():
        yield 1
        yield 2

    async def main():
        made = stream()
        async for _ in made:
            break
        await made.aclose()

    asyncio.run(main())
    assert counted(registry, "op_duration_seconds", status="cancelled") == 1
    assert values_of(registry, "op_calls") == {"": 1}


def test_a_block_counts_too(registry):
    with track_metrics("op", registry=registry):
        pass
    assert counted(registry, "op_duration_seconds", status="success") == 1


def test_threads_lose_nothing(registry):
    call = track_metrics("op", label_extractor=lambda number: {"even": number % 2 == 0}, registry=registry)(
        lambda number: number
    )
    threads = [threading.Thread(target=lambda: [call(number) for number in range(1000)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert values_of(registry, "op_calls") == {"even=True": 4000, "even=False": 4000}
    assert counted(registry, "op_duration_seconds", status="success") == 8000


def test_fastapi_reads_the_signature(registry):
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its test client names another package
        from fastapi import FastAPI
        from fastapi.testclient import TestClient

    app = FastAPI()

    @app.get("/items/{number}")
    @track_metrics("op", label_extractor=lambda number, text="": {"text": text}, registry=registry)
    async def read(number: int, text: str = "none"):
        return {"number": number, "text": text}

    client = TestClient(app)
    assert client.get("/items/5?text=x").json() == {"number": 5, "text": "x"}
    assert client.get("/items/no").status_code == 422
    assert values_of(registry, "op_calls") == {"text=x": 1}
