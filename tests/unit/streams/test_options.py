from __future__ import annotations

import asyncio
import contextvars

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tellmeter import ConfigError, MetricsConfig, StreamOptions, stream_options
from tellmeter.context import options_in_force
from tellmeter.streams.options import merged, of_config, read_options


def show(report: object) -> None: ...


def test_all_names_of_the_streaming_guide_are_understood() -> None:
    of_a_client = {
        "enable_metrics": True,
        "metrics_callback": show,
        "metrics_interval": 1000,
        "include_raw_chunks": False,
    }
    of_a_call = {"enabled": True, "callback": show, "interval": 500, "include_raw_data": True}
    assert read_options(of_a_client) == StreamOptions(
        enabled=True, callback=show, interval_ms=1000, include_raw_chunks=False
    )
    assert read_options(of_a_call) == StreamOptions(
        enabled=True, callback=show, interval_ms=500, include_raw_chunks=True
    )
    assert read_options(None) == read_options({"callback": None}) == StreamOptions()


@pytest.mark.parametrize(
    ("given_options", "told"),
    [
        ({"intervall": 1}, "no 'intervall'"),
        ({"callback": 3}, "callback = 3"),
        ({"interval": "fast"}, "interval = 'fast'"),
        ({"interval": 0.5}, "interval = 0.5"),
        ({"interval": -1}, "from 1 to 3,600,000"),
        ({"stall_after_ms": float("nan")}, "stall_after_ms = nan"),
        ({"stall_after_ms": float("inf")}, "stall_after_ms = inf"),
        ({"enabled": 1}, "True or False"),
        ({"include_raw_data": "yes"}, "include_raw_data = 'yes'"),
        ({"interval": True}, "interval = True"),
    ],
)
def test_what_cannot_be_is_one_error_that_names_it(given_options: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        read_options(given_options)
    with pytest.raises(ConfigError, match=told):
        stream_options(**given_options)


OPTIONS = st.builds(
    StreamOptions,
    enabled=st.sampled_from([None, True, False]),
    interval_ms=st.sampled_from([None, 0, 1.0, 500]),
    include_raw_chunks=st.sampled_from([None, True, False]),
    stall_after_ms=st.sampled_from([None, 0, 10_000.0]),
)


@given(st.lists(st.one_of(st.none(), OPTIONS), max_size=4))
def test_the_later_place_counts_where_it_says_something(layers: list[StreamOptions | None]) -> None:
    found = merged(*layers)
    for name in StreamOptions.__struct_fields__:
        said = [value for one in layers if one is not None and (value := getattr(one, name)) is not None]
        assert getattr(found, name) == (said[-1] if said else None)


def test_the_process_says_something_of_everything_but_a_callback() -> None:
    assert of_config(MetricsConfig()) == StreamOptions(
        enabled=True, callback=None, interval_ms=1000.0, include_raw_chunks=False, stall_after_ms=10_000.0
    )
    config = MetricsConfig(
        enable_streaming_metrics=False,
        stream_callback=show,
        stream_interval_ms=250,
        include_raw_chunks=True,
        stall_after_ms=0,
    )
    assert of_config(config) == StreamOptions(
        enabled=False, callback=show, interval_ms=250, include_raw_chunks=True, stall_after_ms=0
    )


def test_blocks_nest_and_end() -> None:
    with stream_options(interval=500, callback=show):
        with stream_options(interval=100):
            assert options_in_force.get() == StreamOptions(interval_ms=100, callback=show)
        assert options_in_force.get() == StreamOptions(interval_ms=500, callback=show)
    assert options_in_force.get() is None


def test_blocks_follow_tasks_and_copied_contexts() -> None:
    async def main() -> object:
        async with stream_options(enabled=False):
            return await asyncio.create_task(inner())

    async def inner() -> object:
        return options_in_force.get()

    assert asyncio.run(main()) == StreamOptions(enabled=False)
    with stream_options(interval=7):
        copied = contextvars.copy_context()
    assert copied.run(options_in_force.get) == StreamOptions(interval_ms=7)
