"""A local server that speaks the providers' formats (OpenAI, Anthropic, Gemini, Bedrock), for the demo and for tests.

    with SimulatorServer(Traffic(seed=1, speed=0)) as server:
        client = openai.OpenAI(base_url=server.openai_url, api_key="any")
        client = google.genai.Client(api_key="any", http_options={"base_url": server.url})

Needs uvicorn: `pip install 'tellmeter[demo]'`.
"""

from .app import Simulator
from .exchanges import Exchange, RecordedExchanges, load_exchanges
from .faults import Fault, parse_fault
from .playing import Served
from .server import SimulatorServer
from .traffic import Traffic

__all__ = [
    "Exchange",
    "Fault",
    "RecordedExchanges",
    "Served",
    "Simulator",
    "SimulatorServer",
    "Traffic",
    "load_exchanges",
    "parse_fault",
]
