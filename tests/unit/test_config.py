from __future__ import annotations

import logging
import math
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tellmeter import ConfigError, MetricsConfig
from tellmeter.config import default_store_url

BAD = [
    ("enabled", "yes", "True or False"),
    ("batch_size", 0, "from 1"),
    ("batch_size", 2.5, "whole number"),
    ("batch_size", True, "whole number"),
    ("batch_timeout_seconds", 0, "from 0.001"),
    ("request_sampling_rate", 1.5, "from 0 to 1"),
    ("streaming_sampling_rate", -0.1, "from 0 to 1"),
    ("error_sampling_rate", math.nan, "from 0 to 1"),
    ("error_sampling_rate", None, "a number"),
    ("filters", "abc", "list of filters"),
    ("filters", [object()], "should_collect"),
    ("tags", ["a"], "mapping"),
    ("providers", {"host": 3}, "provider name"),
    ("prices", {"gpt": {"inptu": 3}}, "cache_read"),
    ("prices", {"gpt": {"input": -3}}, "from 0"),
    ("discounts", {"openai": 30}, "from 0 to 1"),
    ("label_tags", "feature", "list of tag names"),
    ("label_tags", ["__x"], "tag's name"),
    ("max_series", 0, "from 1"),
    ("max_queue", 0, "from 1"),
    ("flush_timeout_seconds", math.inf, "from 0"),
]


@pytest.mark.parametrize(("field", "value", "allowed"), BAD)
def test_a_bad_value_is_one_error_that_names_field_value_and_range(field: str, value: Any, allowed: str) -> None:
    with pytest.raises(ConfigError) as caught:
        MetricsConfig(**{field: value})
    message = str(caught.value)
    assert message.startswith(field)
    assert allowed in message
    assert "\n" not in message
    assert isinstance(caught.value, ValueError)


def test_the_setup_guides_fields_have_their_defaults() -> None:
    config = MetricsConfig()
    assert config.enabled and config.batch_size == 100 and config.batch_timeout_seconds == 1.0
    assert config.enable_streaming_metrics and config.enable_reliability_metrics and config.enable_cost_tracking
    assert config.request_sampling_rate == config.streaming_sampling_rate == config.error_sampling_rate == 1.0
    assert list(config.filters) == []


def test_the_environment_fills_it_by_the_guides_names_and_by_ours() -> None:
    config = MetricsConfig.from_env(
        {
            "METRICS_ENABLED": "false",
            "METRICS_BATCH_SIZE": "7",
            "TELLMETER_BATCH_SIZE": "9",
            "METRICS_BATCH_TIMEOUT": "0.5",
            "ENABLE_STREAMING_METRICS": "no",
            "ENABLE_COST_TRACKING": "FALSE",
            "REQUEST_SAMPLING_RATE": "0.25",
            "TELLMETER_TAGS": "env=prod, service = api",
            "TELLMETER_PROVIDERS": "llm.internal:8000=vllm",
            "TELLMETER_DISCOUNTS": "openai=0.1",
            "TELLMETER_LABEL_TAGS": "feature, tenant,",
            "TELLMETER_MAX_SERIES": "50",
            "TELLMETER_SINKS": "sqlite:///x.db",
            "ENABLE_RELIABILITY_METRICS": "  ",
        }
    )
    assert not config.enabled and not config.enable_streaming_metrics and not config.enable_cost_tracking
    assert config.enable_reliability_metrics
    assert (config.batch_size, config.batch_timeout_seconds, config.request_sampling_rate) == (9, 0.5, 0.25)
    assert config.tags == {"env": "prod", "service": "api"}
    assert config.providers == {"llm.internal:8000": "vllm"}
    assert config.discounts == {"openai": 0.1}
    assert config.label_tags == ["feature", "tenant"] and config.max_series == 50


def test_arguments_win_over_the_environment() -> None:
    assert MetricsConfig.from_env({"METRICS_BATCH_SIZE": "7"}, batch_size=3).batch_size == 3


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("METRICS_BATCH_SIZE", "many"),
        ("TELLMETER_BATCH_SIZE", "0"),
        ("METRICS_ENABLED", "perhaps"),
        ("ERROR_SAMPLING_RATE", "2"),
        ("TELLMETER_TAGS", "novalue"),
        ("TELLMETER_DISCOUNTS", "openai=much"),
    ],
)
def test_a_bad_variable_is_named(variable: str, value: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(variable)):
        MetricsConfig.from_env({variable: value})


def test_unknown_variables_of_ours_warn(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "tellmeter"):
        MetricsConfig.from_env({"TELLMETER_BATCHSIZE": "3", "OTHER": "x"})
    assert "TELLMETER_BATCHSIZE" in caplog.text
    assert "OTHER" not in caplog.text


@given(
    st.dictionaries(
        st.sampled_from(MetricsConfig.__struct_fields__), st.one_of(st.integers(), st.floats(), st.text(), st.none())
    )
)
def test_construction_gives_a_config_or_one_config_error(fields: dict[str, Any]) -> None:
    try:
        MetricsConfig(**fields)
    except ConfigError as error:
        assert any(str(error).startswith(name) for name in fields)


def test_the_default_store_is_one_place_for_every_command() -> None:
    assert default_store_url({"TELLMETER_STORE": "sqlite:///mine.db"}) == "sqlite:///mine.db"
    assert default_store_url({"XDG_DATA_HOME": "/data"}) == "sqlite:////data/tellmeter/calls.db"
