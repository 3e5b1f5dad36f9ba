"""One thing for each event loop."""

import asyncio
import gc
import weakref

from tellmeter.client.per_loop import PerLoop


class Thing:
    def __init__(self):
        self.loop = asyncio.get_running_loop()


async def of(made, thing=None):
    return made.get() if thing is None else made.add(thing)


def test_each_loop_has_its_own():
    made, one, other = PerLoop(), asyncio.new_event_loop(), asyncio.new_event_loop()
    assert one.run_until_complete(of(made)) is None
    assert one.run_until_complete(of(made, "a")) == "a"
    assert other.run_until_complete(of(made)) is None
    assert other.run_until_complete(of(made, "b")) == "b"
    assert one.run_until_complete(of(made)) == "a"
    assert made.pop_all() == {one: "a", other: "b"}
    assert one.run_until_complete(of(made)) is None and made.pop_all() == {}
    one.close()
    other.close()


def test_who_comes_second_on_a_loop_gets_what_was_first():
    async def main():
        made = PerLoop()
        return made.add("first"), made.add("second"), made.get()

    assert asyncio.run(main()) == ("first", "first", "first")


def test_what_is_taken_is_there_no_more():
    async def main():
        made = PerLoop()
        made.add("x")
        return made.pop(), made.pop(), made.get()

    assert asyncio.run(main()) == ("x", None, None)


def test_what_closed_loops_had_is_let_go_when_the_next_one_asks():
    made, seen = PerLoop(), []

    async def main():
        thing = Thing()
        seen.append(weakref.ref(thing))
        made.add(thing)

    for _ in range(3):
        asyncio.run(main())
        gc.collect()
    assert [thing() is None for thing in seen] == [True, True, False]
    assert len(made.pop_all()) == 1
