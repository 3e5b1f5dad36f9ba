"""SAY: context managers and decorators for one's own code."""
