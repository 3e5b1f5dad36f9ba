import asyncio
import functools

import pytest

from tellmeter import MetricsConfig, configure
from tellmeter.instruments.counting import count_calls
from tellmeter.instruments.durations import time_operation
from tellmeter.instruments.error_counts import track_errors
from tellmeter.instruments.instrument import base_name, function_name
from tellmeter.instruments.tracking import track_metrics
from tests.support.hostile import Liar
from tests.support.metrics import values_of


def named():
    pass


class Thing:
    def __call__(self):
        pass

    def method(self):
        pass


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (named, "named"),
        (functools.partial(functools.partial(named)), "named"),
        (Thing().method, "method"),
        (classmethod(named), "named"),
        (Thing(), "Thing"),
        (lambda: 0, "<lambda>"),
        (len, "len"),
    ],
)
def test_what_a_function_is_called(function, name):
    assert function_name(function) == name


def test_metrics_without_a_name_begin_with_module_and_function():
    def inside():
        pass

    inside.__module__ = "app.api.v1"
    assert base_name(inside) == "app_api_v1_inside"
    inside.__module__ = "__main__"
    assert base_name(inside) == "inside"
    inside.__module__, inside.__name__ = None, "été"
    assert base_name(inside) == "t"
    inside.__name__ = "é"
    assert base_name(inside) == "function"
    assert base_name(len) == "builtins_len"
    assert base_name(None) is None


def test_an_extractor_gets_exactly_the_calls_arguments(registry):
    got = []

    def extractor(*args, **kwargs):
        got.append((args, kwargs))
        kwargs["more"] = 1
        return {"x": "y"}

    class Service:
        @count_calls("c_total", label_extractor=extractor, registry=registry)
        def method(self, *args, **kwargs):
            return args, kwargs

    service = Service()
    assert service.method(1, two=2) == ((1,), {"two": 2})
    assert got == [((service, 1), {"two": 2, "more": 1})]


def test_what_an_extractor_finds_wins_over_constant_labels(registry, own_counts):
    call = count_calls("c_total", {"a": "x", "b": "y"}, lambda a: {"a": a}, registry=registry)(lambda a: a)
    call("z")
    call(5)
    assert values_of(registry, "c") == {"a=z,b=y": 1, "a=5,b=y": 1}
    assert own_counts() == {}


async def slow():
    return {}


@pytest.mark.parametrize("result", [None, [], "text", 3, [("a", "b")], "iter", "class"])
def test_what_is_no_dict_is_counted_and_the_call_is_too(result, registry, own_counts):
    result = Liar(result) if result in ("iter", "class") else result
    call = count_calls("c_total", {"a": "x"}, lambda: result, registry=registry)(lambda: 7)
    assert call() == 7
    assert values_of(registry, "c") == {"a=x": 1}
    assert own_counts()["guarded_errors"] == {"label_extractor": 1}


def test_an_extractor_cannot_be_a_coroutine_function(registry, own_counts):
    assert count_calls("c_total", None, slow, registry=registry)(lambda: 7)() == 7
    assert own_counts()["guarded_errors"] == {"label_extractor": 1}


@pytest.mark.parametrize("labels", [[], "text", 3, "iter", "class", "getitem"])
def test_labels_that_are_no_mapping_are_counted(labels, registry, own_counts):
    labels = Liar(labels) if labels in ("iter", "class", "getitem") else labels
    assert count_calls("c_total", labels, registry=registry)(lambda: 7)() == 7
    assert values_of(registry, "c") == {"": 1}
    assert own_counts()["guarded_errors"] == {"labels": 1}


def test_labels_are_those_of_the_time_of_decoration(registry):
    labels = {"a": "x"}
    call = count_calls("c_total", labels, registry=registry)(named)
    labels["a"] = "y"
    call()
    assert values_of(registry, "c") == {"a=x": 1}


def test_one_decorator_may_decorate_many(registry):
    track = track_metrics(registry=registry)
    one, other = track(named), track(Thing().method)
    one()
    other()
    assert {family.name.rpartition("_instrument_")[2] for family in registry.families()} == {
        "named_calls_total",
        "named_duration_seconds",
        "method_calls_total",
        "method_duration_seconds",
    }


def test_a_block_has_no_arguments_to_extract_from(registry, own_counts):
    with time_operation("t_seconds", {"a": "x"}, label_extractor=lambda: 1 / 0, registry=registry):
        pass
    assert registry.get_metric_stats("t_seconds", {"a": "x"})["count"] == 1
    assert own_counts() == {}


def test_a_block_without_a_name_records_nothing_and_is_counted(registry, own_counts):
    with track_metrics(registry=registry):
        pass
    assert registry.families() == []
    assert own_counts() == {"metric_errors": {"NoneType:invalid": 2}}


def test_decorators_stack(registry, own_counts):
    @track_metrics("op", registry=registry)
    @time_operation("op_time", registry=registry)
    @track_errors("op_failed_total", registry=registry)
    @count_calls("op_counted_total", registry=registry)
    async def work(fail):
        await asyncio.sleep(0)
        return 1 / fail

    assert asyncio.run(work(1)) == 1
    with pytest.raises(ZeroDivisionError):
        asyncio.run(work(0))
    assert values_of(registry, "op_calls") == values_of(registry, "op_counted") == {"": 2}
    assert values_of(registry, "op_errors") == {"error_type=ZeroDivisionError": 1}
    assert values_of(registry, "op_failed") == {"error_type=ZeroDivisionError,function=work": 1}
    assert registry.get_metric_stats("op_time")["count"] == 2
    assert own_counts() == {}


def test_decorating_makes_neither_registry_nor_collector(own_process):
    from tellmeter import process

    call = track_metrics(named)
    assert own_process._process_registry is None
    call()
    assert len(own_process._process_registry.families()) == 2
    assert process._process_collector is None


def test_nothing_is_recorded_where_the_processs_collector_is_switched_off(own_process, registry):
    call = track_metrics("op", registry=registry)(named)
    configure(MetricsConfig(enabled=False))
    call()
    with time_operation("t_seconds", registry=registry):
        pass
    assert registry.families() == []
    configure(MetricsConfig())
    call()
    assert values_of(registry, "op_calls") == {"": 1}
