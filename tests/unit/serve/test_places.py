import subprocess
import sys
import threading

from tellmeter.serve.places import IN_FLIGHT, Places


def test_there_are_so_many_and_no_more():
    places = Places(3)
    taken = [places.take() for _ in range(3)]
    assert None not in taken
    assert places.take() is None
    taken[1].let_go()
    assert places.take() is not None
    assert places.take() is None
    assert IN_FLIGHT == 4


def test_a_shared_place_is_free_when_both_have_let_go():
    places = Places(1)
    place = places.take()
    place.share()
    with place:
        assert places.take() is None
    assert places.take() is None
    place.let_go()
    assert places.take() is not None


def test_threads_never_have_more_and_lose_none():
    places = Places(2)
    now, most, lock = 0, 0, threading.Lock()

    def work():
        nonlocal now, most
        for _ in range(2000):
            place = places.take()
            if place is not None:
                with lock:
                    now += 1
                    most = max(most, now)
                with lock:
                    now -= 1
                place.let_go()

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most <= 2
    assert [places.take() is None for _ in range(3)] == [False, False, True]


FORKED = """
import os
from tellmeter.serve.places import Places
places = Places(1)
before = places.take()
child = os.fork()
if not child:
    first, second = places.take(), places.take()
    before.let_go()
    os._exit(0 if first is not None and second is None and places.take() is None else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), places.take())
"""


def test_a_forked_child_has_all_places():
    run = subprocess.run([sys.executable, "-c", FORKED], capture_output=True, text=True, check=True)
    assert run.stdout == "0 None\n"
