from __future__ import annotations

import threading

from tellmeter import counts


def test_counts_from_many_threads_are_exact() -> None:
    def work() -> None:
        for _ in range(10_000):
            counts.count("test_exact", "key")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts.snapshot()["test_exact"] == {"key": 40_000}
    assert counts.total("test_exact") == 40_000


def test_names_are_bounded_and_the_rest_goes_to_one_overflow() -> None:
    for number in range(3000):
        counts.count("test_bounded", str(number))
    snapshot = counts.snapshot()
    assert sum(len(keys) for keys in snapshot.values()) <= 2001
    assert snapshot["overflow"][""] >= 1000
    # Leave room for the other tests of this process.
    for key in [key for key in counts._counters if key[0] in ("test_bounded", "overflow")]:
        del counts._counters[key]
