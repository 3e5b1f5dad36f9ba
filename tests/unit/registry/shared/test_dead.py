"""The sum of all processes is exact at every moment, whoever dies between whichever two steps."""

import contextlib
import math
import os
import shutil
import tempfile

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tellmeter import counts
from tellmeter.registry.definition import MetricDefinition, MetricType
from tellmeter.registry.registry import MetricsRegistry
from tellmeter.registry.shared import dead, trouble
from tellmeter.registry.shared.dead import DEAD, fold, read_others
from tellmeter.registry.shared.folder import Folder
from tellmeter.registry.shared.merging import merge
from tellmeter.registry.shared.processes import Member


class Crash(BaseException):
    pass


class Stepwise(Folder):
    """A folder in which something happens before each step of who uses it."""

    def __init__(self, path, before):
        super().__init__(path)
        self._before = before
        for step in ("write", "remove", "set_aside", "read", "processes", "alive", "strays"):
            setattr(self, step, self._stepwise(getattr(self, step)))

    def _stepwise(self, act):
        def stepwise(*arguments):
            self._before()
            return act(*arguments)

        return stepwise


class Process:
    """A process with a registry of its own. `written` is what the others are to see of it."""

    def __init__(self, path):
        self.registry = MetricsRegistry()
        self.member = Member(self.registry, path)
        self.counted = self.written = {}

    def count(self, label, number):
        self.registry.register_metric(MetricDefinition("alive", MetricType.GAUGE))
        self.registry.register_metric(MetricDefinition("largest", MetricType.GAUGE, gauge_mode="max"))
        self.registry.increment("c", number, {"label": label})
        self.registry.observe("h", number)
        self.registry.set_gauge("alive", 1)
        self.registry.set_gauge("largest", number)
        series = {
            ("c", label): self.registry.counter("c").labels(label),
            ("h", ""): self.registry.histogram("h").labels(),
        }
        self.counted = {
            **self.counted,
            **{key: one.read() if key[0] == "c" else one.read()[1] for key, one in series.items()},
            ("alive", ""): 1.0,
            ("largest", ""): number,
        }

    def write(self):
        self.member.write()
        self.written = self.counted

    def kill(self):
        if self.member._entered is not None:
            os.close(self.member._entered)
            self.member._entered = None


def shown(metrics):
    return {
        (metric.exposed.removesuffix("_total"), "".join(series.values)): (
            series.read()[1] if metric.type is MetricType.HISTOGRAM else series.read()
        )
        for metric in metrics
        for series in metric.shown()
    }


class Service(RuleBasedStateMachine):
    """Processes that come, count, write, are killed, and are added up by others that are killed amidst it."""

    def __init__(self):
        super().__init__()
        self.path = tempfile.mkdtemp()
        self.processes = []
        self.dead = []
        self.last = {}

    def teardown(self):
        for process in self.processes:
            process.kill()
        shutil.rmtree(self.path)

    def expected(self, asked=None):
        live = [process.counted if process is asked else process.written for process in self.processes]
        gone = [process.written for process in self.dead]
        found = {}
        for key in {key for one in live + gone for key in one}:
            values = [one[key] for one in live + ([] if key[0] == "alive" else gone) if key in one]
            if values:
                found[key] = max(values) if key[0] == "largest" else math.fsum(values)
        return found

    def seen(self):
        """What somebody sees who has counted nothing."""
        return shown(merge(read_others(Folder(self.path), "").snapshots))

    @initialize()
    def two_come(self):
        self.a_process_comes()
        self.a_process_comes()

    @rule()
    def a_process_comes(self):
        if len(self.processes) < 5:
            self.processes.append(Process(self.path))

    @rule(data=st.data(), label=st.sampled_from("xy"), number=st.floats(0, 1e6) | st.sampled_from([0.1, 0.2, 0.3]))
    def one_counts(self, data, label, number):
        data.draw(st.sampled_from(self.processes)).count(label, number)

    @rule(data=st.data())
    def one_writes(self, data):
        data.draw(st.sampled_from(self.processes)).write()

    @rule(data=st.data(), last_words=st.booleans())
    def one_ends(self, data, last_words):
        process = data.draw(st.sampled_from(self.processes))
        self.processes.remove(process)
        self.dead.append(process)
        if last_words:
            process.write()
        process.kill()
        if len(self.processes) < 2:
            self.a_process_comes()

    @rule(data=st.data())
    def one_is_asked(self, data):
        process = data.draw(st.sampled_from(self.processes))
        assert shown(process.member.metrics()) == self.expected(asked=process)
        process.written = process.counted
        assert not self.left_over(), "whoever is asked adds up the dead"

    @rule(steps=st.integers(0, 25))
    def one_dies_adding_up(self, steps):
        left = [steps]

        def before():
            assert self.seen() == self.expected()  # whatever step this is
            if not left[0]:
                raise Crash
            left[0] -= 1

        with contextlib.suppress(Crash):
            fold(Stepwise(self.path, before), max_series=100)

    @rule(steps=st.integers(0, 12))
    def one_is_added_up_while_somebody_reads(self, steps):
        left = [steps]

        def before():
            if not left[0]:
                fold(Folder(self.path), max_series=100)
            left[0] -= 1

        found = read_others(Stepwise(self.path, before), "").snapshots
        assert shown(merge(found)) == self.expected()

    def left_over(self):
        live = {process.member._name for process in self.processes}
        ours = {".lock", ".snap", ".tmp", ".new"}
        return [
            file
            for file in os.listdir(self.path)
            if os.path.splitext(file)[1] in ours and file.partition(".")[0] not in (*live, "dead", "fold")
        ]

    @invariant()
    def everybody_sees_the_exact_sum_and_it_never_falls(self):
        found = self.seen()
        assert found == self.expected()
        for key, value in self.last.items():
            if key[0] in ("c", "h"):
                assert found[key] >= value
        self.last = found


def dead_service(path, number):
    """A folder with what so many dead processes counted, one of them added up already."""
    for dying in range(number):
        process = Process(path)
        process.count("x", 0.1)
        process.write()
        process.kill()
        if dying == 0:
            fold(Folder(path), max_series=100)
    return math.fsum([0.1] * number)


def test_whoever_adds_up_may_die_before_every_step(tmp_path):
    for steps in range(60):
        path = str(tmp_path / str(steps))
        whole = dead_service(path, 4)
        left = [steps]

        def before(path=path, whole=whole, left=left):
            assert seen(path) == whole
            if not left[0]:
                raise Crash
            left[0] -= 1

        with contextlib.suppress(Crash):
            fold(Stepwise(path, before), max_series=100)
        # It has an heir, who is watched at every step as well, and to whom one more is left.
        process = Process(path)
        process.count("x", 0.1)
        process.write()
        process.kill()
        whole = math.fsum([0.1] * 5)
        fold(Stepwise(path, lambda path=path, whole=whole: seen(path) == whole or pytest.fail("lost")), max_series=100)
        assert files(path) == [".snap"]
    assert left[0] > 0, "more steps than there are"


def test_they_may_be_added_up_before_every_step_of_whoever_reads(tmp_path):
    for steps in range(40):
        path = str(tmp_path / str(steps))
        whole = dead_service(path, 4)
        left = [steps]

        def before(path=path, left=left):
            if not left[0]:
                fold(Folder(path), max_series=100)
            left[0] -= 1

        assert shown(merge(read_others(Stepwise(path, before), "").snapshots))["c", "x"] == whole
    assert left[0] > 0


def test_files_that_cannot_be_removed_do_not_count_twice(tmp_path, monkeypatch):
    path = str(tmp_path)
    whole = dead_service(path, 3)
    with monkeypatch.context() as patch:
        patch.setattr(Folder, "remove", lambda folder, file: False)
        for number in (4, 5):
            fold(Folder(path), max_series=100)
            process = Process(path)
            process.count("x", 0.1)
            process.write()
            process.kill()
            assert seen(path) == (whole := math.fsum([0.1] * number))
    fold(Folder(path), max_series=100)
    assert seen(path) == whole
    assert files(path) == [".snap"]


TestService = Service.TestCase
TestService.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)


# ---------------------------------------------------------------------- files that nobody can read


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.setattr(trouble, "_noticed", set())
    return str(tmp_path)


def ended(path, number):
    process = Process(path)
    process.count("x", number)
    process.write()
    process.kill()
    return f"{path}/{process.member._name}"


def seen(path):
    return shown(merge(read_others(Folder(path), "").snapshots)).get(("c", "x"))


def files(path):
    return sorted(os.path.splitext(file)[1] for file in os.listdir(path))


def spoil(file, how):
    with open(file, "r+b") as opened:
        if how == "half":
            opened.truncate(os.path.getsize(file) // 2)
        elif how == "empty":
            opened.truncate(0)
        elif how == "foreign":
            opened.truncate(0)
            opened.write(b"not ours")
        else:
            opened.seek(40)
            opened.write(b"\xff\xff\xff")


@pytest.mark.parametrize("how", ["half", "empty", "foreign", "bits"])
def test_an_unreadable_file_is_left_out_counted_once_and_moved_aside_with_its_process(path, how):
    ended(path, 1)
    spoil(f"{ended(path, 2)}.snap", how)
    for _ in range(3):
        assert seen(path) == 1
    assert counts.snapshot()["snapshot_errors"] == {"unreadable": 1}
    fold(Folder(path), max_series=10)
    assert files(path) == [".corrupt", ".snap"]
    assert seen(path) == 1


def test_an_unreadable_file_of_a_living_process_stays_until_it_is_written_again(path):
    process = Process(path)
    process.count("x", 1)
    process.write()
    spoil(f"{path}/{process.member._name}.snap", "half")
    fold(Folder(path), max_series=10)
    assert seen(path) is None
    process.count("x", 2)
    process.write()
    assert seen(path) == 3
    process.kill()


def another_version(file):
    with open(file, "r+b") as opened:
        opened.seek(8)
        opened.write(b"\x02")


def test_files_of_another_version_are_left_to_those_who_can_read_them(path):
    another_version(f"{ended(path, 2)}.snap")
    ended(path, 1)
    fold(Folder(path), max_series=10)
    assert seen(path) == 1
    assert counts.snapshot()["snapshot_errors"] == {"unreadable": 1}
    assert files(path) == [".lock", ".snap", ".snap"]


def test_nothing_is_added_to_the_dead_of_another_version(path):
    ended(path, 1)
    fold(Folder(path), max_series=10)
    another_version(f"{path}/{DEAD}")
    before = Folder(path).read(DEAD)
    ended(path, 2)
    fold(Folder(path), max_series=10)
    assert Folder(path).read(DEAD) == before
    assert seen(path) == 2


def test_where_the_dead_cannot_be_read_others_still_are(path):
    ended(path, 1)
    fold(Folder(path), max_series=10)
    spoil(f"{path}/{DEAD}", "bits")
    ended(path, 2)
    assert seen(path) == 2
    fold(Folder(path), max_series=10)
    assert seen(path) == 2
    assert files(path) == [".corrupt", ".snap"]
    assert counts.snapshot()["snapshot_errors"] == {"unreadable": 1}


@pytest.mark.parametrize("file", [DEAD, "7-0123456789abcdef.snap"])
def test_a_link_is_not_followed(path, tmp_path, file):
    ended(path, 1)
    (tmp_path / "elsewhere").mkdir()
    other = ended(str(tmp_path / "elsewhere"), 100)
    os.symlink(f"{other}.snap", f"{path}/{file}")
    open(f"{path}/7-0123456789abcdef.lock", "w").close()
    assert seen(path) == 1
    fold(Folder(path), max_series=10)
    assert seen(path) == 1
    assert os.path.getsize(f"{other}.snap")


def test_a_process_that_never_wrote_leaves_nothing(path):
    os.close(Folder(path).enter("7-0123456789abcdef"))
    fold(Folder(path), max_series=10)
    assert files(path) == []


def test_many_dead_are_added_up_in_portions(path, monkeypatch):
    monkeypatch.setattr(dead, "_AT_ONCE", 3)
    for _ in range(7):
        ended(path, 1)
    for left in (8, 2, 0):
        fold(Folder(path), max_series=10)
        assert len(os.listdir(path)) == left + 1
        assert seen(path) == 7


def test_reading_again_and_again_ends(path):
    def before():
        os.replace(shutil.copy(f"{path}/{DEAD}", f"{path}/copy"), f"{path}/{DEAD}")

    ended(path, 1)
    fold(Folder(path), max_series=10)
    assert shown(merge(read_others(Stepwise(path, before), "").snapshots))["c", "x"] == 1


def test_the_dead_are_told_apart(path):
    ended(path, 1)
    living = Process(path)
    living.count("x", 5)
    living.write()
    found = read_others(Folder(path), "")
    assert (sorted(alive for _, alive in found.snapshots), found.dead) == ([False, True], 1)
    assert read_others(Folder(path), living.member._name).snapshots[0][1] is False
    living.kill()
