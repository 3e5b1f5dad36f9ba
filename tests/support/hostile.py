"""What nobody should hand to a meter, and somebody will."""

import enum
from collections.abc import Mapping

import pytest


class Colour(str, enum.Enum):  # noqa: UP042 - the older kind, whose str() is its name
    RED = "red"


class Level(enum.StrEnum):
    HIGH = "high"


class Number(enum.IntEnum):
    ONE = 1


class Text(str):
    __slots__ = ()

    def __str__(self):
        return "something else"


class Raising:
    def __str__(self):
        raise RuntimeError("prompt")

    __hash__ = None

    def __eq__(self, other):
        raise RuntimeError("prompt")


class Spiteful(str):
    """A text whose methods do not work."""

    __slots__ = ()

    def isprintable(self):
        raise RuntimeError

    def __getitem__(self, index):
        raise RuntimeError


class MadeOfSpite:
    def __str__(self):
        return Spiteful("made")


class NoText:
    def __str__(self):
        return 7  # noqa: PLE0307 - as it says


# label value -> its text on the page, where that is cut at LIMIT
LIMIT = 100
VALUES = [
    (None, ""),
    (1, "1"),
    (True, "True"),
    (1.0, "1.0"),
    ("1", "1"),
    (b"x", "b'x'"),
    (Colour.RED, "red"),
    (Level.HIGH, "high"),
    (Number.ONE, "1"),
    (Text("its own"), "its own"),
    (Spiteful("text"), "text"),
    (MadeOfSpite(), "made"),
    (Raising(), ""),
    (NoText(), ""),
    pytest.param(10**5000, "", id="a number that Python refuses to write"),
    ("line\nand\ttab", "line\nand\ttab"),
    ("a\x00b\x1b[31m\x7f\x85\r", "a\ufffdb\ufffd[31m\ufffd\ufffd\ufffd"),
    ("\ud800x\udfff", "\ufffdx\ufffd"),
    ("été 😀 \u2028", "été 😀 \u2028"),
    ("x" * 5000, "x" * LIMIT),
]


class Liar(Mapping):
    """A mapping of which one method raises."""

    def __init__(self, broken):
        self.broken = broken

    def do(self, method, answer):
        if method == self.broken:
            raise RuntimeError("prompt")
        return answer

    def __getitem__(self, name):
        return self.do("getitem", "x")

    def __iter__(self):
        return self.do("iter", iter("a"))

    def __len__(self):
        return self.do("len", 1)

    def __contains__(self, name):
        return self.do("contains", True)

    @property
    def __class__(self):
        return self.do("class", type(self))


BROKEN = ["getitem", "iter", "len", "contains", "class"]
