"""What is known of one stream of the engine: its name, its status, and the call that meters it."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import msgspec

from ..call import STREAM_STATUS, Target, status_of
from ..context import options_in_force
from ..errors import StreamEngineError
from ..failures import error_class
from ..guard import note
from ..records import AgentMetrics, StreamMetrics, uuid7
from ..streams.callbacks import tell
from ..streams.events import handlers_of
from ..streams.options import StreamOptions, merged, of_config
from ..streams.report import StreamReport
from ..wire.answer import Format
from ..wire.calls import WireCall
from ..wire.exchange import Exchange

RECORD_SECONDS = 5.0
"""How long `metrics` waits for the record of a stream that ended, which is made on another thread."""


class EngineStream:
    """One stream, from its request to its end; a context manager that ends with its block, by its exception if any.

    Args:
        target: the collector; None where nothing is to be metered.
        provider: the engine's word, "" where it has none: the host and the model tell.
        model: what the request asks for, "" where it does not say.
        client_options, call_options: the engine's options, and those of this stream.
    """

    def __init__(
        self,
        target: Target | None,
        wire_format: Format,
        *,
        provider: str,
        model: str,
        client_options: StreamOptions,
        call_options: StreamOptions,
    ) -> None:
        self.stream_id = f"stream_{uuid7()}"
        self.status = "pending"
        self._target = target
        self._format = wire_format
        self._provider = provider
        self._client_options = client_options
        self._call_options = call_options
        self._reported = StreamOptions()  # what the last report goes by
        if target is not None:
            self._reported = merged(of_config(target.config), client_options, options_in_force.get(), call_options)
        self._call: WireCall | None = None
        self._exchange: Exchange | None = None
        self._over = False
        self._untold = False  # whether nobody else makes the last report
        self._loop = asyncio.get_running_loop()
        self._told = asyncio.Event()
        self._wall = time.time()
        self._started = time.perf_counter()
        # Until more is known, and where nothing is metered, this is all.
        self._metrics = StreamMetrics(
            stream_id=self.stream_id, provider=provider or "unknown", model=model, start_time=self._wall * 1000.0
        )

    # ------------------------------------------------------------------ while it runs

    @property
    def metered(self) -> bool:
        """Whether a record comes of it."""
        return self._target is not None

    def attempt(self, request: Any) -> Exchange | None:
        """The attempt that a request begins."""
        if self._target is None:
            return None
        if self._call is None:
            call = WireCall(self._target, self._format, scoped=True, options=self._client_options)
            call.stream_id = self.stream_id
            call.call_options = self._call_options
            call.known_provider = self._provider
            call.finished = self._recorded
            self._call = call
        self._exchange = self._call.attempt(request)
        return self._exchange

    def opened(self) -> None:
        """An answer begins."""
        self.status = "streaming"

    def completed(self) -> None:
        """The stream said that it is over."""
        if self._exchange is not None:
            self._exchange.ended("completed")

    def __enter__(self) -> EngineStream:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self.end(error)

    # ------------------------------------------------------------------ its end

    def end(self, error: BaseException | None = None) -> None:
        """The stream is over; the first word counts. Never raises."""
        if self._over:
            return
        self._over = True
        self.status = self._status_of(error)
        failed = self.status == "error"
        call, exchange = self._call, self._exchange
        seen = failed and exchange is not None and _saw(exchange)
        self._metrics = self._ended(self._name(error, seen) if failed and error is not None else None)
        if call is None:
            self._settle(self._metrics)
            return
        try:
            running = call.running
            if running is not None and exchange is not None and exchange.meter is None:
                running.over, call.running = True, None  # of an earlier attempt, whose stream came to nothing
            self._untold = call.running is None
            if self.status != "cancelled" and (seen or not failed):
                call.scope_closed()
            call.end(error=error)  # where nothing that was seen on the wire has ended it
        except Exception as own:
            note("stream_engine", own)
            self._settle(self._metrics)

    def _name(self, error: BaseException, seen: bool) -> str:
        """What the record has as its `error_class`; the exception is told, too."""
        if not isinstance(error, StreamEngineError):
            return type(error).__name__
        status = error.status_code or 200
        if error.__cause__ is None and (status >= 400 or seen):
            error.error_class = error_class(status, self._format.name)
        return error.error_class

    def _status_of(self, error: BaseException | None) -> str:
        if error is None:
            return "completed"
        if isinstance(error, GeneratorExit):
            read = self._exchange is not None and self._exchange.ending == "completed"
            return "completed" if read else "closed_early"
        return STREAM_STATUS[status_of(error)]

    def _ended(self, last_error: str | None) -> StreamMetrics:
        duration = (time.perf_counter() - self._started) * 1000.0
        return msgspec.structs.replace(
            self._metrics,
            current_time=self._wall * 1000.0 + duration,
            duration_ms=duration,
            status=self.status,
            last_error=last_error,
            error_count=int(last_error is not None),
        )

    # ------------------------------------------------------------------ once the record is made

    def _recorded(self, record: AgentMetrics | None) -> None:
        """On the router thread, which no failure here may reach."""
        try:
            metrics = self._metrics
            if record is not None:
                metrics = record.stream or msgspec.structs.replace(
                    metrics, provider=record.provider, model=record.model
                )
            if self._untold:
                self._report(metrics, record)
            self._call = self._exchange = None
            self._settle(metrics)
        except Exception as error:
            note("stream_engine", error)

    def _report(self, metrics: StreamMetrics, record: AgentMetrics | None) -> None:
        """The last report of a stream that never began: the meter of a stream tells of all others."""
        if not self._reported.enabled:
            return
        event = "stream.error" if metrics.status == "error" else "stream.complete"
        values = {name: getattr(metrics, name) for name in StreamMetrics.__struct_fields__}
        report = StreamReport(**values, event=event, tags={} if record is None else record.tags)
        own = [] if self._reported.callback is None else [self._reported.callback]
        for callback in (*own, *handlers_of(event)):
            tell(callback, report, self._loop)

    def _settle(self, metrics: StreamMetrics) -> None:
        self._metrics = metrics
        self.status = metrics.status
        try:
            self._loop.call_soon_threadsafe(self._told.set)
        except RuntimeError:  # the loop is closed, and nobody waits in it
            pass

    async def metrics(self) -> StreamMetrics:
        """What was measured; the stream must have ended."""
        try:
            async with asyncio.timeout(RECORD_SECONDS):
                await self._told.wait()
        except TimeoutError:
            pass
        return self._metrics


def _saw(exchange: Exchange) -> bool:
    """Whether what was seen on the wire tells that the stream failed, and how."""
    reader: Any = None if exchange.meter is None else exchange.meter.reader
    return bool(exchange.error) or (exchange.status_code or 0) >= 400 or (reader is not None and reader.answer.failed)
