"""What the tests of decorators share: a watcher that keeps what it sees, and what is drawn to be raised."""

import asyncio


class Boom(BaseException):
    """An exception that is no Exception."""


ERRORS = [
    ValueError,
    KeyError,
    Boom,
    KeyboardInterrupt,
    SystemExit,
    GeneratorExit,
    asyncio.CancelledError,
    StopIteration,
    StopAsyncIteration,
    RecursionError,
]


class Watcher:
    """Opens observations, and keeps what they see: ("open", args, kwargs), ("item", value), ("end", outcome, result, error)."""

    def __init__(self, *, fails=()):
        self.seen = []
        self.fails = fails

    def see(self, *what):
        self.seen.append(what)
        if what[0] in self.fails:
            raise self.fails[what[0]]

    def open(self, function, args, kwargs):
        self.see("open", args, kwargs)
        return Seen(self)

    def outcomes(self):
        return [what[1] for what in self.seen if what[0] == "end"]


class Seen:
    def __init__(self, watcher):
        self.watcher = watcher

    def item(self, value):
        self.watcher.see("item", value)

    def end(self, outcome, result, error):
        self.watcher.see("end", outcome, result, error)


def step(awaitable):
    """Run what never really waits, as an event loop would."""
    waiting = awaitable.__await__()
    while True:
        try:
            waiting.send(None)
        except StopIteration as stop:
            return stop.value


def told(error):
    """An exception as its catcher sees it."""
    return type(error), error.args, type(error.__cause__), type(error.__context__), error.__suppress_context__
