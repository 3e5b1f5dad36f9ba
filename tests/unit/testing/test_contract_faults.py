"""What a sink does wrong when its backend fails is caught. That right sinks pass is in test_contract.py."""

import logging
import threading

import pytest

from tellmeter import Delivered, Partial, Rejected, RetryLater
from tellmeter.testing import contract_faults
from tellmeter.testing.contract_faults import FAULTS
from tests.unit.testing.kinds import KEY, Backend, PostContract, PostSink


class HidingFailures(PostSink):
    """As sinks do that catch everything and go on."""

    def outcome(self, status, headers, data):
        return Delivered()

    def failed(self, error):
        return Delivered()


class GivingUp(PostSink):
    def failed(self, error):
        return Rejected("unreachable")

    def outcome(self, status, headers, data):
        return Delivered() if status == 200 else Rejected(f"http_{status}")


class Patient(PostSink):
    """Its timeout is one of each read, or none."""

    def left(self, deadline):
        return 60.0


class Impatient(PostSink):
    """It does not hear when it is told to wait."""

    def outcome(self, status, headers, data):
        outcome = super().outcome(status, headers, data)
        return RetryLater() if isinstance(outcome, RetryLater) else outcome


class AllOrNothing(PostSink):
    """What was taken in part is sent as a whole again."""

    def outcome(self, status, headers, data):
        return RetryLater() if status == 207 else super().outcome(status, headers, data)


class Forgetful(PostSink):
    """What was not taken is forgotten."""

    def outcome(self, status, headers, data):
        return Partial() if status == 207 else super().outcome(status, headers, data)


class Stubborn(PostSink):
    def outcome(self, status, headers, data):
        return super().outcome(status, headers, data) if status == 200 else RetryLater()


class ShowingItsKey(PostSink):
    def __repr__(self):
        return f"PostSink(key={self.key})"


class LoggingItsKey(PostSink):
    def failed(self, error):
        logging.getLogger("my.sink").debug("failed with %s", {"authorization": self.key})
        return super().failed(error)


class NamingItsKey(PostSink):
    def outcome(self, status, headers, data):
        return Rejected(f"{status} {self.key}") if status == 400 else super().outcome(status, headers, data)


class HangingInClose(PostSink):
    def close(self):
        threading.Event().wait(60)


@pytest.fixture
def contract():
    backend = Backend()
    with backend.server:

        def make(sink_class):
            made = type("Broken", (PostContract,), {"make": sink_class})()
            made.backend = backend
            return made

        yield make


RETRIED = "test_what_fails_is_retried_until_it_is_delivered"
DEADLINE = "test_send_returns_by_its_deadline"


@pytest.mark.parametrize(
    ("broken", "test", "kind", "told"),
    [
        (HidingFailures, RETRIED, "down", "20 are said to be delivered by a backend that failed"),
        (HidingFailures, RETRIED, "error", "20 are said to be delivered"),
        (HidingFailures, DEADLINE, "hang", "of a backend that did not answer"),
        (GivingUp, RETRIED, "down", "0 of 20 are delivered"),
        (GivingUp, RETRIED, "unauthorized", "0 of 20 are delivered"),
        (GivingUp, RETRIED, "reset", "0 of 20 are delivered"),
        (GivingUp, DEADLINE, "dribble", "Rejected.* of a backend that did not answer"),
        (Patient, DEADLINE, "hang", "still at it 0.3 s after its deadline"),
        (Patient, DEADLINE, "dribble", "still at it 0.3 s after its deadline"),
        (HangingInClose, DEADLINE, "hang", "close.. did not return"),
        (Impatient, "test_the_backend_says_when_to_come_again", None, "120 were asked for"),
        (GivingUp, "test_a_batch_that_is_too_large_is_split", None, "0 of 50 are delivered"),
        (AllOrNothing, "test_only_what_failed_of_a_batch_is_sent_again", None, "for the second time"),
        (Forgetful, "test_only_what_failed_of_a_batch_is_sent_again", None, "10 of 20 records did not arrive"),
        (Stubborn, "test_what_is_refused_is_counted_and_does_not_stop_the_rest", None, "is sent again"),
        (HidingFailures, "test_what_is_refused_is_counted_and_does_not_stop_the_rest", None, "0 of 20 refused"),
    ],
)
def test_a_broken_sink_is_caught(contract, broken, test, kind, told, monkeypatch):
    monkeypatch.setattr(contract_faults, "_ATTEMPT_SECONDS", 0.3)
    if broken in (Patient, HangingInClose):
        monkeypatch.setattr(contract_faults, "_GRACE_SECONDS", 0.3)
    with pytest.raises(AssertionError, match=told):
        getattr(contract(broken), test)(*([kind] if kind else []))


@pytest.mark.parametrize("broken", [ShowingItsKey, LoggingItsKey, NamingItsKey])
def test_a_key_that_is_told_is_caught_and_not_told_again(contract, broken, caplog):
    with pytest.raises(AssertionError, match="a secret of 10 characters is told") as caught:
        contract(broken).test_no_secret_is_told(caplog)
    assert KEY not in str(caught.value)


def test_every_kind_of_fault_is_skipped_unless_it_is_offered():
    for kind, told in FAULTS.items():
        with pytest.raises(pytest.skip.Exception, match=told):
            contract_faults.Hooks().fault(kind)


def test_a_sink_and_its_backend_must_be_named():
    hooks = contract_faults.Hooks()
    for name in ("make_sink", "read_back"):
        with pytest.raises(NotImplementedError):
            getattr(hooks, name)()
