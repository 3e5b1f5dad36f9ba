import signal

import pytest

from tellmeter.cli.signals import stopped_by_signals


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT"])
def test_each_ends_the_block_as_ctrl_c_does_and_means_afterwards_what_it_meant(name):
    number = getattr(signal, name)
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt), stopped_by_signals():
        signal.raise_signal(number)
        pytest.fail("the block went on")
    assert signal.getsignal(number) is before


def test_an_ignored_interrupt_ends_it_too():
    former = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with pytest.raises(KeyboardInterrupt), stopped_by_signals():
            signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, former)
