"""The event loop behind the sync twins."""

import asyncio
import contextvars
import signal
import threading

import pytest

from tellmeter import ConfigError, tags
from tellmeter.client.background import run
from tellmeter.context import tags_in_force
from tests.support.metrics import in_child

WORD = contextvars.ContextVar("word", default="none")


async def word():
    await asyncio.sleep(0)
    return WORD.get()


def test_what_a_coroutine_gives_and_raises_comes_back():
    error = LookupError("canary")

    async def fails():
        await asyncio.sleep(0)
        raise error

    assert run(word()) == "none"
    with pytest.raises(LookupError) as caught:
        run(fails())
    assert caught.value is error


def test_the_callers_context_goes_along_and_stays_its_own():
    async def change():
        WORD.set("changed")
        return dict(tags_in_force.get())

    token = WORD.set("mine")
    with tags(feature="chat"):
        assert (run(word()), run(change()), WORD.get()) == ("mine", {"feature": "chat"}, "mine")
    WORD.reset(token)
    assert (run(word()), run(change())) == ("none", {})


def test_all_threads_share_one_loop_and_do_not_wait_for_each_other():
    met, found = threading.Barrier(4, timeout=30), []

    async def meet():
        await asyncio.to_thread(met.wait)
        return asyncio.get_running_loop()

    threads = [threading.Thread(target=lambda: found.append(run(meet()))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == 4 and len(set(map(id, found))) == 1


def test_a_program_with_a_loop_of_its_own_may_call_it():
    async def main():
        return run(word()), asyncio.get_running_loop() is run(loop())

    async def loop():
        return asyncio.get_running_loop()

    assert asyncio.run(main()) == ("none", False)


def test_a_call_from_a_callback_is_refused_and_does_not_hang():
    begun = []

    async def inner():
        begun.append(True)

    async def outer():
        run(inner())

    with pytest.raises(ConfigError, match="use the async one"):
        run(outer())
    assert not begun
    assert run(word()) == "none"


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="signals to threads are POSIX")
def test_an_interrupt_cancels_what_is_waited_for_and_has_it_over():
    begun, ended = threading.Event(), []
    me = threading.get_ident()

    async def long():
        try:
            begun.set()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.append("cancelled")
            await asyncio.sleep(0.01)
            ended.append("cleaned up")
            raise

    def interrupt():
        begun.wait(30)
        signal.pthread_kill(me, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        run(long())
    assert ended == ["cancelled", "cleaned up"]
    thread.join(30)
    assert run(word()) == "none"


def test_a_child_of_a_fork_has_a_loop_of_its_own():
    assert in_child("""
        import asyncio, json, os
        from tellmeter.client import background

        async def where():
            return os.getpid()

        first = background.run(where())
        read, write = os.pipe()
        background._lock.acquire()  # as if another thread were just about to begin
        child = os.fork()
        if child == 0:
            try:
                os.write(write, json.dumps(background.run(where()) == os.getpid()).encode())
            finally:
                os._exit(0)
        background._lock.release()
        theirs = json.loads(os.read(read, 100))
        os.waitpid(child, 0)
        print(json.dumps([first == os.getpid(), theirs, background.run(where()) == os.getpid()]))
        """) == [True, True, True]


def test_the_loops_thread_keeps_no_process_alive():
    assert (
        in_child("""
        import asyncio, json
        from tellmeter.client.background import run

        async def begin():
            asyncio.get_running_loop().held = asyncio.ensure_future(asyncio.sleep(3600))

        run(begin())
        print(json.dumps("at its end"))
        """)
        == "at its end"
    )
