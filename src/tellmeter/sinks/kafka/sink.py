"""Calls as messages in a Kafka topic, by confluent-kafka (librdkafka)."""

from __future__ import annotations

import functools
import logging
import os
import threading
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Unpack

from ...pipeline.outcome import Outcome, RetryLater
from ...records import AgentMetrics
from ..base import BatchingMetricsSink, LaneOptions
from . import message
from .errors import ADVICE, PAUSE_SECONDS, TIMEOUT, UNREACHABLE, Fate, fate, outcome
from .settings import checked, from_url, revealed

if TYPE_CHECKING:
    from confluent_kafka import KafkaError, Producer

logger = logging.getLogger(__name__)

_LOOK_SECONDS = 0.1  # between two looks at whether waiting makes sense
# A broker that restarts is back soon, and librdkafka then delivers what it has exactly once: a retry could repeat it.
_GRACE_SECONDS = 1.0
_TAKING_BACK_SECONDS = 0.2  # of an attempt: for taking back what was not delivered
_ENDING_SECONDS = 1.0


class KafkaMetricsSink(BatchingMetricsSink):
    """Writes one message per call to a topic: its key is the call's id, its value the call as JSON.

    What is delivered is what all replicas in sync have acknowledged. Delivery is at least once: a message whose
    acknowledgement did not come in time is sent again, with the same key.

    Args:
        bootstrap_servers: host:9092, or several with commas between.
        topic: it is made where the brokers do that by themselves.
        config: settings of librdkafka by their names, as `{"security.protocol": "SASL_SSL", "sasl.mechanism": "PLAIN",
            "sasl.username": "me", "sasl.password": Secret.from_env("KAFKA_PASSWORD")}`. They win over the sink's own:
            enable.idempotence, acks=all, compression.type=lz4, linger.ms=5, message.timeout.ms=10000.
        lane: settings for this sink alone, as `spool="folder"`; see `LaneOptions`.

    Raises:
        ConfigError: an argument or setting that cannot work.
        MissingExtra: confluent-kafka is not installed.
    """

    def __init__(
        self,
        bootstrap_servers: str | Sequence[str],
        topic: str = "llm-metrics",
        *,
        config: Mapping[str, Any] | None = None,
        **lane: Unpack[LaneOptions],
    ) -> None:
        super().__init__(**lane)
        self._settings = checked(bootstrap_servers, topic, config)
        self._topic = topic
        self.destination = f"kafka://{self._settings['bootstrap.servers']}/{topic}"
        self._producer: Producer | None = None
        self._process = os.getpid()
        self._trouble: tuple[Fate, float] | None = None
        self._told: set[str] = set()

    @classmethod
    def from_url(cls, url: str) -> KafkaMetricsSink:
        """The sink that a `kafka:` URL names: `kafka://host:9092,host2:9092/topic?security.protocol=SSL`.

        Every setting of librdkafka may be an option. Secrets are named: `sasl.password_env` is the name of an
        environment variable that holds `sasl.password`.
        """
        return cls(**from_url(url))

    def send(self, batch: Sequence[AgentMetrics], deadline: float) -> Outcome:
        """Produce the batch, and wait for the reports on all its messages."""
        until = deadline - min(_TAKING_BACK_SECONDS, max(0.0, deadline - time.monotonic()) / 10)
        from confluent_kafka import KafkaException

        try:
            producer = self._opened()
        except KafkaException:  # a file of the settings is gone, say
            return RetryLater(PAUSE_SECONDS, "no_producer")
        self._trouble = None
        fates: dict[int, Fate | None] = {}
        self._produce(producer, batch, fates, until)
        while len(fates) < len(batch) and not self._is_hopeless() and (left := until - time.monotonic()) > 0:
            producer.flush(min(left, _LOOK_SECONDS))
        if len(fates) < len(batch):
            self._take_back(producer, fates, len(batch), deadline)
        failed = {index: one for index, one in fates.items() if one is not None}
        del producer
        if any(one.kind in ("retry", "pause") for one in failed.values()):
            self._let_go(max(0.0, deadline - time.monotonic()))
        self._tell({one.reason for one in failed.values()})
        return outcome(len(batch), failed)

    def close(self) -> None:
        """End the producer; nothing is on its way between two batches."""
        if self._process == os.getpid():
            self._let_go(_ENDING_SECONDS)

    def after_fork(self) -> None:
        """In the child: librdkafka's threads are the parent's, so its producer is never touched, not even freed."""
        if self._producer is not None:
            import ctypes

            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._producer))
        self._producer = None
        self._process = os.getpid()

    def _opened(self) -> Producer:
        if self._process != os.getpid():  # forked without a collector that would have told us
            self.after_fork()
        if self._producer is None:
            from confluent_kafka import Producer

            own = {"error_cb": self._on_error, "logger": _Logs()}
            self._producer = Producer({**revealed(self._settings), **own})
        return self._producer

    def _produce(
        self, producer: Producer, batch: Sequence[AgentMetrics], fates: dict[int, Fate | None], until: float
    ) -> None:
        """Hand the messages over; those that are refused at once have their fate."""
        from confluent_kafka import KafkaException

        for index, record in enumerate(batch):
            report = functools.partial(_report, fates, index)
            while index not in fates:
                try:
                    producer.produce(
                        self._topic,
                        message.value(record),
                        message.key(record),
                        on_delivery=report,
                        headers=message.HEADERS,
                    )
                    break
                except BufferError:
                    if time.monotonic() >= until:
                        return
                    producer.poll(_LOOK_SECONDS)
                except KafkaException as error:
                    found = fate(error.args[0].name())
                    # One message alone that is too large for the settings stays so.
                    fates[index] = Fate("reject", found.reason) if found.kind == "split" else found

    def _on_error(self, error: KafkaError) -> None:
        """What librdkafka tells of its connections, while it serves its reports."""
        found = fate(error.name())
        # A broker may go while others are there: only when all are gone is there nobody to wait for.
        if found.kind == "pause" or (found is UNREACHABLE and error.name() == "_ALL_BROKERS_DOWN"):
            self._trouble = self._trouble or (found, time.monotonic())

    def _is_hopeless(self) -> bool:
        if self._trouble is None:
            return False
        found, since = self._trouble
        return found.kind == "pause" or time.monotonic() - since > _GRACE_SECONDS

    def _take_back(self, producer: Producer, fates: dict[int, Fate | None], count: int, deadline: float) -> None:
        """Nothing that was not delivered may arrive beside its retry: librdkafka forgets it, and the producer ends.

        What it was sending at that moment may have arrived all the same.
        """
        before = set(fates)
        producer.purge(blocking=False)
        while len(fates) < count and time.monotonic() < deadline:
            producer.poll(0.01)
        why = TIMEOUT if self._trouble is None else self._trouble[0]
        for index in set(range(count)) - before:
            if fates.get(index, TIMEOUT) is TIMEOUT:
                fates[index] = why

    def _let_go(self, seconds: float) -> None:
        """End the producer. Its threads may be busy looking a name up, and are not waited for longer than this."""
        if self._producer is None:
            return
        holder, self._producer = [self._producer], None
        try:
            ending = threading.Thread(target=holder.clear, name="tellmeter-kafka-end", daemon=True)
            ending.start()
        except RuntimeError:  # the interpreter ends
            return
        ending.join(seconds)

    def _tell(self, reasons: set[str]) -> None:
        if not reasons:
            self._told.clear()
        for reason in sorted(reasons & ADVICE.keys() - self._told):
            self._told.add(reason)
            logger.warning("%s: %s: %s", type(self).__name__, self.destination, ADVICE[reason])


def _report(fates: dict[int, Fate | None], index: int, error: KafkaError | None, _: object) -> None:
    fates[index] = None if error is None else fate("_FATAL" if error.fatal() else error.name())


class _Logs:
    """librdkafka's own log, which would go to stderr: a line for each failed connection."""

    def log(self, level: int, *told: object) -> None:
        logger.debug(*told)
