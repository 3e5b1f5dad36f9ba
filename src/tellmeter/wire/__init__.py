"""SEE: calls of any SDK, seen at its HTTP client. formats/ reads the bytes, one provider format a file."""

from .hooks import instrument, status, uninstrument

__all__ = ["instrument", "status", "uninstrument"]
