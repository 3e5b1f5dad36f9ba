"""What became of one batch: the values that steer a lane."""

from __future__ import annotations

import msgspec


class Delivered(msgspec.Struct, frozen=True):
    """The backend has every record of the batch."""


class RetryLater(msgspec.Struct, frozen=True):
    """The backend may take the same batch later; `after` seconds at the earliest, where it said so."""

    after: float | None = None
    reason: str = "unavailable"


class Rejected(msgspec.Struct, frozen=True):
    """The backend will never take this batch. `reason` is a short name, never a message."""

    reason: str = "rejected"


class TooLarge(msgspec.Struct, frozen=True):
    """The backend wants smaller batches."""


class Partial(msgspec.Struct, frozen=True):
    """Some records failed, by their index in the batch; the rest is delivered."""

    retry: tuple[int, ...] = ()
    rejected: tuple[int, ...] = ()
    reason: str = "rejected"


Outcome = Delivered | RetryLater | Rejected | TooLarge | Partial
