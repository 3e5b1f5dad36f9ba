"""Whatever is thrown at it, a decorated function does what the bare one does."""

import asyncio
import functools
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tellmeter import MetricsRegistry
from tellmeter.instruments.activity import monitor_resource, track_active
from tellmeter.instruments.caches import cache_metrics
from tellmeter.instruments.counting import count_calls
from tellmeter.instruments.durations import measure_latency, time_operation, track_duration
from tellmeter.instruments.error_counts import track_errors
from tellmeter.instruments.tracking import track_metrics
from tellmeter.instruments.wrapping import wrapped
from tests.support.decorated import ERRORS, Watcher, step, told
from tests.support.hostile import BROKEN, VALUES, Liar


@pytest.fixture(autouse=True, scope="module")
def quiet():
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


hostile_values = st.sampled_from([getattr(one, "values", one)[0] for one in VALUES])
names = st.sampled_from(
    ["a", "b.c", "b_c", "le", "__name__", "status", "error_type", "function", "resource", "cache", "", "é", 3, None]
)
labels = st.one_of(
    st.none(),
    st.dictionaries(names, hostile_values, max_size=3),
    st.sampled_from([[], "text", 7, object()]),
    st.builds(Liar, st.sampled_from(BROKEN)),
)


class Extractor:
    def __init__(self, result, error):
        self.result = result
        self.error = error

    def __call__(self, *args, **kwargs):
        if self.error is not None:
            raise self.error
        return self.result


not_the_users = [error for error in ERRORS if error is not KeyboardInterrupt]
extractors = st.one_of(
    st.none(), st.just(3), st.builds(Extractor, labels, st.one_of(st.none(), st.sampled_from(not_the_users)))
)
registries = st.builds(MetricsRegistry, max_series=st.integers(1, 3), strict=st.booleans())
metric_names = st.sampled_from(
    ["some", "a.b", "error_count", "request_duration", "active_requests", "", "\ud800", "9", "llm_requests_total"]
)


failing = st.sampled_from([{}, {"open": ValueError()}, {"item": ValueError()}, {"end": SystemExit()}])
flags = st.booleans()
buckets = st.sampled_from([None, [1, 2], [2, 1], "x", [None]])


@st.composite
def one_decorator(draw):
    name, constant = draw(metric_names), draw(labels)
    given = {"label_extractor": draw(extractors), "registry": draw(registries)}
    makers = [
        lambda: track_metrics(
            draw(st.one_of(st.none(), metric_names)), constant, draw(flags), draw(flags), draw(flags), **given
        ),
        lambda: track_duration(name, constant, **given),
        lambda: time_operation(name, constant, **given),
        lambda: measure_latency(name, constant, draw(buckets), **given),
        lambda: count_calls(name, constant, **given),
        lambda: track_errors(name, constant, draw(flags), **given),
        lambda: monitor_resource(draw(hostile_values), name, draw(flags), draw(flags), **given),
        lambda: cache_metrics(draw(hostile_values), draw(flags), **given),
        lambda: track_active(name, constant, **given),
        lambda: functools.partial(wrapped, open_observation=Watcher(fails=draw(failing)).open),
    ]
    return draw(st.sampled_from(makers))()


@st.composite
def decorators(draw):
    made = draw(st.lists(one_decorator(), min_size=1, max_size=4))

    def decorate(function):
        for decorator in made:
            function = decorator(function)
        return function

    return decorate


class Odd:
    @property
    def from_cache(self):
        raise RuntimeError


RESULTS = [None, (1, True), (1, False), (1, "yes"), Odd(), object(), {"usage": None}]
errors = st.sampled_from(ERRORS)
arguments = st.sampled_from(
    [((), {}), ((1, "x"), {}), ((), {"labels": 1, "function": 2, "self": 3}), (([],), {"args": 1, "kwargs": 2})]
)


def done(function, /, *args, **kwargs):
    try:
        return "returned", function(*args, **kwargs)
    except BaseException as error:
        return "raised", told(error)


@given(decorators(), st.sampled_from(RESULTS), st.one_of(st.none(), errors), arguments)
def test_functions_and_coroutines(decorate, result, error, given):
    seen = []
    raised = None if error is None else error("message")

    def bare(*args, **kwargs):
        seen.append((args, kwargs))
        if raised is not None:
            raise raised
        return result

    async def slow(*args, **kwargs):
        await asyncio.sleep(0)
        return bare(*args, **kwargs)

    args, kwargs = given
    function, coroutine = decorate(bare), decorate(slow)
    for _ in range(2):
        assert done(function, *args, **kwargs) == done(bare, *args, **kwargs)
        assert done(lambda: step(coroutine(*args, **kwargs))) == done(lambda: step(slow(*args, **kwargs)))
    if raised is not None:
        with pytest.raises(error) as caught:
            function(*args, **kwargs)
        assert caught.value is raised
    assert seen[0] == (args, kwargs) and all(one == seen[0] for one in seen)


reactions = st.sampled_from(["raise", "swallow", "return", "replace", "later"])
plans = st.lists(st.tuples(st.integers(0, 9), reactions), max_size=4)
acts = st.lists(
    st.one_of(
        st.just(("next",)),
        st.tuples(st.just("send"), st.sampled_from([None, 1, "x"])),
        st.tuples(st.just("throw"), errors),
        st.just(("close",)),
    ),
    max_size=6,
)
endings = st.one_of(st.none(), errors)


class Body:
    """What a generator does: its plan, an item and what it does about an exception each, and how it ends."""

    def __init__(self, plan, ending):
        self.plan = plan
        self.ending = ending
        self.seen = []

    def react(self, reaction, error):
        self.seen.append(("thrown", told(error)))
        if reaction == "raise":
            raise error
        if reaction == "replace":
            raise LookupError("instead")

    def generator(self, *args):
        late = False
        for item, reaction in self.plan:
            try:
                self.seen.append((yield item))
            except BaseException as error:
                self.react(reaction, error)
                if reaction == "return":
                    return "early"
                late = late or reaction == "later"
            if late:
                raise LookupError("later")  # its context tells whether an exception is still being handled
        if self.ending is not None:
            raise self.ending("message")
        return "end"

    async def async_generator(self, *args):
        late = False
        for item, reaction in self.plan:
            await asyncio.sleep(0)
            try:
                self.seen.append((yield item))
            except BaseException as error:
                self.react(reaction, error)
                if reaction == "return":
                    return
                late = late or reaction == "later"
            if late:
                raise LookupError("later")
        if self.ending is not None:
            raise self.ending("message")


def played(made, acts, names, run):
    """What comes of each act on a generator, and of closing it until it no longer refuses."""
    found = []
    for act, *more in [*acts, *[("close",)] * 6]:
        method = getattr(made, names[act])
        value = [more[0]("message")] if act == "throw" else more
        found.append(done(lambda method=method, value=value: run(method(*value))))
    return found


SYNC = {"next": "__next__", "send": "send", "throw": "throw", "close": "close"}
ASYNC = {"next": "__anext__", "send": "asend", "throw": "athrow", "close": "aclose"}


@given(decorators(), plans, endings, acts)
def test_generators(decorate, plan, ending, acts):
    bare, other = Body(plan, ending), Body(plan, ending)
    expected = played(bare.generator(1), acts, SYNC, lambda value: value)
    assert played(decorate(other.generator)(1), acts, SYNC, lambda value: value) == expected
    assert other.seen == bare.seen


# One that refused to be closed says so again when it is collected, bare or not.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@given(decorators(), plans, endings, acts)
def test_async_generators(decorate, plan, ending, acts):
    bare, other = Body(plan, ending), Body(plan, ending)
    made, decorated = bare.async_generator(1), decorate(other.async_generator)(1)
    expected = played(made, acts, ASYNC, step)
    assert played(decorated, acts, ASYNC, step) == expected
    assert other.seen == bare.seen
