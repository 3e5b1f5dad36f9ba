"""`python -m tellmeter.simulator`: the simulator as a process of its own."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Sequence

from ..errors import TellmeterError
from .faults import parse_script
from .server import SimulatorServer
from .traffic import Traffic


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT; prints one line with the URL when connections are accepted. Returns 0."""
    parser = argparse.ArgumentParser(
        prog="python -m tellmeter.simulator",
        description="Speaks the formats of OpenAI, Anthropic, Gemini and Bedrock on 127.0.0.1.",
    )
    parser.add_argument("--port", type=int, default=0, help="default: a free one")
    parser.add_argument("--seed", type=int, default=0, help="everything random follows from it (default: 0)")
    parser.add_argument("--speed", type=float, default=1.0, help="factor on all waiting; 0 does not wait (default: 1)")
    parser.add_argument("--error-rate", type=float, default=0.0, help="share of requests that fail (default: 0)")
    parser.add_argument("--faults", default="", help="for the next requests: '500,429;retry-after=1,reset;after=5'")
    parser.add_argument("--exchanges", metavar="DIR", help="answer with the recordings in DIR/*.jsonl")
    parser.add_argument("--pause", type=float, default=0.0, help="seconds between the events of a recorded stream")
    given = parser.parse_args(arguments)
    # Raised out of the wait below, which also ends by Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        traffic = Traffic(seed=given.seed, speed=given.speed, error_rate=given.error_rate)
        server = SimulatorServer(
            traffic, faults=parse_script(given.faults), exchanges=given.exchanges, pause=given.pause, port=given.port
        )
        with server:
            try:
                print(f"simulator ready at {server.url}", flush=True)  # noqa: T201 - what it is to say
                threading.Event().wait()
            except KeyboardInterrupt:
                for number in (signal.SIGINT, signal.SIGTERM):  # already ending
                    signal.signal(number, signal.SIG_IGN)
    except (TellmeterError, OSError) as error:
        print(f"tellmeter.simulator: {error}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
