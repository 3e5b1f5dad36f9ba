"""What users need to test their own metering: sinks that know the truth, servers that fail, time that stands still.

`SinkContract` needs pytest, the rest does not.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .clock import FakeClock
    from .contract import SinkContract
    from .fault_server import FaultServer
    from .faults import Answer, Dribble, Fault, Garbage, HalfBody, Hang, Reset, TooBig
    from .llm_calls import LLMCalls, recorded_calls
    from .oracle import OracleSink

_WHERE = {
    "Answer": "faults",
    "Dribble": "faults",
    "FakeClock": "clock",
    "Fault": "faults",
    "FaultServer": "fault_server",
    "Garbage": "faults",
    "HalfBody": "faults",
    "Hang": "faults",
    "LLMCalls": "llm_calls",
    "OracleSink": "oracle",
    "Reset": "faults",
    "SinkContract": "contract",
    "TooBig": "faults",
    "recorded_calls": "llm_calls",
}
__all__ = [
    "Answer",
    "Dribble",
    "FakeClock",
    "Fault",
    "FaultServer",
    "Garbage",
    "HalfBody",
    "Hang",
    "LLMCalls",
    "OracleSink",
    "Reset",
    "SinkContract",
    "TooBig",
    "recorded_calls",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_WHERE[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__
