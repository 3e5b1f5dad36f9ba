"""The process's page of metrics where the settings want it: served for Prometheus, or printed."""

from __future__ import annotations

import logging
import sys
import time

from ..errors import ConfigError
from ..registry.page import page
from ..serve.server import HOST, PORT, MetricsServer, start_metrics_server
from ..sinks.otel.timer import ExportTimer
from .settings import TelemetrySettings

logger = logging.getLogger(__name__)


def serve_page(settings: TelemetrySettings) -> MetricsServer:
    """Serve the page at `prometheus_host:prometheus_port`; for this machine alone where nothing protects it.

    The guide listens on 0.0.0.0, which without a token is open to everybody.

    Raises:
        ConfigError: the port is taken, or the address is not ours.
    """
    host = settings.prometheus_host or HOST
    port = PORT if settings.prometheus_port is None else settings.prometheus_port
    token = None if settings.prometheus_token is None else settings.prometheus_token.reveal()
    try:
        return start_metrics_server(host, port, token=token)
    except ConfigError as error:
        if token is not None or host == HOST:
            raise
        server = start_metrics_server(HOST, port)
        logger.warning("the page for Prometheus is at %s alone: %s (PROMETHEUS_TOKEN)", server.url, error)
        return server


class ConsolePage:
    """Prints the page on stdout, once per interval and at the end. A forked child prints its own."""

    def __init__(self, interval_seconds: float) -> None:
        self._interval = interval_seconds
        self.after_fork()

    def after_fork(self) -> None:
        """Begin: the thread of the parent is not in the child."""
        self._timer = ExportTimer(self._print, self._interval)
        self._timer.start()

    def flush(self, seconds: float) -> bool:
        """Print it now; whether that was over within `seconds`."""
        return self._timer.flush(seconds)

    def close(self, seconds: float) -> None:
        """Print it a last time and end."""
        deadline = time.monotonic() + seconds
        self._timer.stop(deadline if self.flush(seconds) else 0.0)

    @staticmethod
    def _print() -> None:
        # One write: other threads print, too.
        sys.stdout.write(b"".join(page()).decode())
        sys.stdout.flush()
