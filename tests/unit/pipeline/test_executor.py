from __future__ import annotations

import threading

import pytest

from tellmeter.pipeline.executor import LastingExecutor


def test_it_works_on_threads_while_there_are_any() -> None:
    with LastingExecutor(1) as executor:
        assert executor.submit(threading.current_thread).result() is not threading.current_thread()


def test_it_works_in_the_calling_thread_when_python_gives_no_more() -> None:
    executor = LastingExecutor(1)
    executor.shutdown()  # then it refuses as it does when the interpreter is ending
    assert executor.submit(threading.current_thread).result() is threading.current_thread()
    with pytest.raises(ZeroDivisionError):
        executor.submit(lambda: 1 // 0).result()
