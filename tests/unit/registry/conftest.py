import pytest

from tellmeter import counts


@pytest.fixture(autouse=True)
def own_counts(monkeypatch):
    """Each test begins with nothing counted, and leaves nothing behind: the names of a process are bounded."""
    monkeypatch.setattr(counts, "_counters", {})
