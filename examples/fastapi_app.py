"""A FastAPI application that meters its LLM calls and shows them.

    pip install 'tellmeter[http]' fastapi uvicorn openai
    METRICS_TOKEN=... TELLMETER_SINKS=sqlite:///calls.db uvicorn --app-dir examples fastapi_app:app

Whoever reaches the application can read `/metrics` and what is below it: keep it from the public as you keep others.
Records have no prompts and no answers. Only who has `METRICS_TOKEN` can delete; without one, nobody can.
"""

import hmac
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import openai
from fastapi import Body, Depends, FastAPI, HTTPException, Query
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.routing import Route

import tellmeter

recent = tellmeter.InMemoryMetricsSink(max_size=1000)
collector = tellmeter.configure()  # settings and sinks of the environment
collector.add_sink(recent)
tellmeter.instrument()


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """At the end, SIGTERM included, bring what waits to the sinks."""
    yield
    await collector.flush()


app = FastAPI(lifespan=lifespan, routes=[Route("/metrics", tellmeter.get_metrics_app(), methods=["GET"])])
client = openai.AsyncOpenAI()


@app.post("/ask")
async def ask(question: Annotated[str, Body(embed=True)], model: str = "gpt-4o-mini") -> dict[str, str | None]:
    """An LLM call as any other: nothing about metering in it but a tag."""
    with tellmeter.tags(feature="ask"):
        answer = await client.chat.completions.create(model=model, messages=[{"role": "user", "content": question}])
    return {"answer": answer.choices[0].message.content}


@app.get("/metrics/summary")
async def metrics_summary(window_seconds: Annotated[float, Query(gt=0, le=1e9)] = 300) -> dict[str, Any]:
    """All calls of the last so many seconds in one view."""
    summary = await recent.get_summary(window_seconds)
    return {
        "requests": summary.count,
        "avg_latency_ms": summary.avg_latency_ms,
        "p95_latency_ms": summary.p95_latency_ms,
        "error_rate": summary.error_rate,
        "total_tokens": summary.total_tokens,
        "total_cost": summary.total_cost,
        "providers": summary.providers,
        "models": summary.models,
    }


@app.get("/metrics/recent")
async def recent_metrics(limit: Annotated[int, Query(ge=0, le=1000)] = 100) -> list[dict[str, Any]]:
    """The last calls, newest first."""
    return [
        {
            "timestamp": record.timestamp,
            "model": record.model,
            "latency_ms": record.latency_ms,
            "tokens": record.total_tokens,
            "error": record.error_class,
        }
        for record in await recent.get_metrics(limit=limit)
    ]


def operator(sent: Annotated[HTTPAuthorizationCredentials | None, Depends(HTTPBearer(auto_error=False))]) -> None:
    """Let only who has the token pass. It comes in a header that no other site can make a browser send."""
    token = os.environ.get("METRICS_TOKEN", "")
    if not token:
        raise HTTPException(404)
    if sent is None or not hmac.compare_digest(sent.credentials.encode(), token.encode()):
        raise HTTPException(401, headers={"WWW-Authenticate": "Bearer"})


@app.delete("/metrics", dependencies=[Depends(operator)])
async def clear_metrics() -> dict[str, str]:
    """Forget the recent calls; what the other sinks have stays."""
    await recent.clear()
    return {"status": "cleared"}
