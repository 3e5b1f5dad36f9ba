import os

import pytest

from tellmeter.registry import registry as module
from tellmeter.registry.page import own_page, page
from tellmeter.registry.registry import MetricsRegistry, get_metrics_registry
from tellmeter.registry.shared import processes
from tellmeter.registry.shared.processes import Member
from tests.support.metrics import read_page


@pytest.fixture(autouse=True)
def process(monkeypatch):
    """A process that has no registry yet, and shares no folder."""
    monkeypatch.delenv("TELLMETER_MULTIPROC_DIR", raising=False)
    monkeypatch.setattr(module, "_process_registry", None)
    monkeypatch.setattr(processes, "_member", None)


@pytest.fixture
def other(tmp_path, monkeypatch, process):
    """Another process, which counted 40 in the folder that the environment names."""
    monkeypatch.setenv("TELLMETER_MULTIPROC_DIR", str(tmp_path))
    member = Member(MetricsRegistry(), str(tmp_path))
    member.registry.counter("c", "Of both.").inc(40)
    member.registry.counter("theirs", "Of the other.").inc(1)
    member.write()
    yield member
    member._leave()
    if processes._member is not None:
        processes._member.stop()


def samples(pieces, *, openmetrics=False):
    found = read_page(b"".join(pieces), openmetrics=openmetrics, created=False)
    return {name: value for family in found.values() for (name, _), value in family.samples.items()}


def test_a_page_is_the_registrys_own_where_no_folder_is_named():
    get_metrics_registry().counter("c").inc(2)
    assert samples(page()) == samples(page(get_metrics_registry())) == {"c_total": 2}
    assert processes._member is None


def test_the_process_registry_is_shown_with_those_of_others(other):
    get_metrics_registry().counter("c", "Of both.").inc(2)
    for pieces in (page(), page(get_metrics_registry())):
        assert samples(pieces) == {"c_total": 42, "theirs_total": 1}
    assert samples(page(openmetrics=True), openmetrics=True) == {"c_total": 42, "theirs_total": 1}
    assert b"".join(page(openmetrics=True)).endswith(b"# EOF\n")


def test_any_other_registry_is_shown_alone(other):
    registry = MetricsRegistry()
    registry.counter("c").inc(3)
    assert samples(page(registry)) == {"c_total": 3}


def test_a_registrys_own_page_is_never_merged(other):
    registry = get_metrics_registry()
    registry.counter("c").inc(2)
    assert samples(own_page(registry)) == {"c_total": 2}
    assert registry.text() == b"".join(own_page(registry))


def test_what_waits_is_shown(other):
    class Waiting:
        def bring(self):
            get_metrics_registry().increment("waited", 5)

    waiting = Waiting()
    get_metrics_registry().refresh_with(waiting.bring)
    assert samples(page())["waited_total"] == 5
    assert samples(own_page(get_metrics_registry()))["waited_total"] == 10


def test_a_folder_that_is_named_later_is_shared_from_then_on(tmp_path, other, monkeypatch):
    monkeypatch.delenv("TELLMETER_MULTIPROC_DIR")
    get_metrics_registry().counter("c", "Of both.").inc(2)
    assert samples(page()) == {"c_total": 2}
    monkeypatch.setenv("TELLMETER_MULTIPROC_DIR", str(tmp_path))
    assert samples(page()) == {"c_total": 42, "theirs_total": 1}
    assert samples(write_of(other)) == {"c_total": 42, "theirs_total": 1}


def write_of(member):
    from tellmeter.registry.text import write

    return write(member.metrics())


def test_who_only_asks_leaves_no_file(other, tmp_path):
    before = sorted(os.listdir(tmp_path))
    assert samples(page()) == {"c_total": 40, "theirs_total": 1}
    assert sorted(os.listdir(tmp_path)) == before


def test_names_of_any_process_are_taken_for_metrics_of_prometheus_client(other):
    client = pytest.importorskip("prometheus_client")
    source = client.CollectorRegistry()
    client.Counter("theirs", "Of prometheus_client.", registry=source).inc(9)
    client.Gauge("level", "Of prometheus_client.", registry=source).set(9)
    get_metrics_registry().add_source(source)
    assert samples(page()) == {"c_total": 40, "theirs_total": 1, "level": 9}


def test_pieces_are_small():
    registry = MetricsRegistry(max_series=5000)
    for number in range(5000):
        registry.increment("c", 1, {"x": str(number)})
    pieces = list(page(registry))
    assert len(pieces) > 5
    assert max(map(len, pieces)) < 2**16
