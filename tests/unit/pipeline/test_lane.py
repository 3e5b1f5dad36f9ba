from __future__ import annotations

from tellmeter import AgentMetrics
from tellmeter.pipeline.lane import MemoryLane


def records(number: int) -> list[AgentMetrics]:
    return [AgentMetrics(model="m") for _ in range(number)]


def test_a_memory_sink_that_raises_is_counted_per_record() -> None:
    class Sink:
        def __init__(self) -> None:
            self.kept: list[AgentMetrics] = []

        def write(self, record: AgentMetrics) -> None:
            if record.model == "bad":
                raise ValueError
            self.kept.append(record)

    lane = MemoryLane("memory", Sink())
    lane.put([*records(2), AgentMetrics(model="bad"), *records(1)])
    stats = lane.stats()
    assert (stats.accepted, stats.delivered, stats.dropped) == (4, 3, {"sink_error": 1}) and stats.balanced
