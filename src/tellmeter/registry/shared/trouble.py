"""What is wrong with the files that processes share: counted as `snapshot_errors`, logged once, never raised."""

from __future__ import annotations

import logging
from collections.abc import Hashable

from ...counts import count

logger = logging.getLogger(__name__)

_MOST = 10_000
_noticed: set[Hashable] = set()
_logged: set[str] = set()


def trouble(kind: str, message: str, *arguments: object, about: Hashable = None) -> None:
    """Count `kind`, and log the first of it. `about`: what is the matter; the same thing is counted once."""
    if about is not None:
        if (kind, about) in _noticed:
            return
        if len(_noticed) < _MOST:
            _noticed.add((kind, about))
    count("snapshot_errors", kind)
    if kind not in _logged:
        _logged.add(kind)
        logger.warning(message, *arguments)
