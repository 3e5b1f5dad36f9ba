import pytest

from tellmeter.errors import ConfigError
from tellmeter.sinks.cloudwatch.limits import check_dimension_name, check_namespace, refused_time

NOW = 1_800_000_000.0


@pytest.mark.parametrize("good", ["LLM/Metrics", "a", "My App/1.2_x-#:", "x" * 255, "AWSX/a"])
def test_namespaces_that_may_be_written_to(good):
    assert check_namespace(good) == good


@pytest.mark.parametrize("bad", ["", "AWS/Lambda", ":a", " a", "a\n", "é", "x" * 256, None, 5, "a*b"])
def test_namespaces_that_may_not(bad):
    with pytest.raises(ConfigError, match="namespace"):
        check_namespace(bad)


@pytest.mark.parametrize("good", ["feature", "a b", "~", "x" * 250])
def test_names_of_dimensions(good):
    assert check_dimension_name(good) == good


@pytest.mark.parametrize("bad", ["", " ", ":a", "a\tb", "é", "x" * 251, None, ["a"]])
def test_what_is_no_name_of_a_dimension(bad):
    with pytest.raises(ConfigError, match="dimension"):
        check_dimension_name(bad)


@pytest.mark.parametrize(
    ("seconds", "reason"),
    [
        (0, None),
        (-13.9 * 86_400, None),
        (-14 * 86_400, "too_old"),
        (-NOW, "too_old"),
        (1.9 * 3600, None),
        (2 * 3600, "in_future"),
        (1e300, "in_future"),
    ],
)
def test_times_of_two_weeks_back_and_two_hours_ahead(seconds, reason):
    assert refused_time(NOW + seconds, NOW) == reason
