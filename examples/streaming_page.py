"""A page that shows the stream of an answer while it runs: its chunks, its pace, its bytes.

    pip install tellmeter starlette uvicorn openai
    uvicorn --app-dir examples streaming_page:app

Whoever reaches the page asks the model on your bill: it is for this machine, as uvicorn serves it by default.
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator

import openai
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response, StreamingResponse
from starlette.routing import Route

import tellmeter

log = logging.getLogger("app.streams")
tellmeter.instrument()
client = openai.AsyncOpenAI()

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>Streaming status</title>
<form><input name="question" value="Count to a hundred." size="60" aria-label="Question"> <button>Ask</button></form>
<div class="streaming-status">
  <h3>Streaming status: <span id="status">-</span></h3>
  <p>Chunks: <span id="chunks">0</span></p>
  <p>Speed: <span id="speed">0</span> chunks/s</p>
  <p>Data: <span id="data">0 B</span></p>
  <p>Waits for: <span id="waits">-</span></p>
</div>
<script>
  let source;
  document.querySelector("form").onsubmit = event => {
    event.preventDefault();
    source?.close();
    source = new EventSource("live?" + new URLSearchParams(new FormData(event.target)));
    source.addEventListener("report", message => {
      for (const [id, text] of Object.entries(JSON.parse(message.data)))
        document.getElementById(id).textContent = text;
    });
    source.addEventListener("end", () => source.close());
  };
</script>
</html>
"""


async def live(question: str) -> AsyncIterator[tellmeter.StreamReport]:
    """The reports of one answer's stream, to the last one."""
    reports: asyncio.Queue[tellmeter.StreamReport | None] = asyncio.Queue()

    async def answer() -> None:
        try:
            with tellmeter.stream_options(callback=reports.put, interval=250):
                stream = await client.responses.create(model="gpt-4.1-mini", input=question, stream=True)
            async for _ in stream:
                pass
        except Exception as error:  # its text may quote the question
            log.error("The answer failed: %s", type(error).__name__)
        asyncio.get_running_loop().call_later(2, reports.put_nowait, None)  # where no stream ever began

    task = asyncio.create_task(answer())
    try:
        while (report := await reports.get()) is not None:
            yield report
            if report.event in ("stream.complete", "stream.error"):
                break
    finally:
        task.cancel()  # the browser has gone


async def status_events(question: str) -> AsyncIterator[str]:
    """Server-sent events: texts by their places on the page; an end, or the browser would ask anew."""
    async for report in live(question):
        shown = {
            "status": "stalled" if report.stalled else report.status,
            "chunks": report.chunks_received,
            "speed": round(report.chunks_per_second, 1),
            "data": format_bytes(report.bytes_received),
            "waits": report.waiting_for or "-",
        }
        yield f"event: report\ndata: {json.dumps(shown)}\n\n"
    yield "event: end\ndata:\n\n"


def format_bytes(number: int) -> str:
    """`1.5 kB`."""
    return f"{number} B" if number < 1000 else f"{number / 1000:.1f} kB"


async def page(request: Request) -> Response:
    """The page itself."""
    return HTMLResponse(PAGE)


async def events(request: Request) -> Response:
    """Begin an answer, and tell of its stream."""
    if request.headers.get("sec-fetch-site", "same-origin") != "same-origin":
        raise HTTPException(403)  # another site's page must not spend your money
    question = request.query_params.get("question", "Hello.")
    return StreamingResponse(status_events(question), media_type="text/event-stream")


app = Starlette(routes=[Route("/", page), Route("/live", events)])
