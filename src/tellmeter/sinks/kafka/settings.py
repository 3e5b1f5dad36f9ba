"""The settings of librdkafka: those of the sink, those of its user, and how both are named in a URL."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from ...errors import ConfigError, MissingExtra
from ...secret import Secret
from ..address import LANE_PARSERS, parse

_DEFAULTS: dict[str, Any] = {
    "client.id": "tellmeter",
    "enable.idempotence": True,
    "acks": "all",
    "compression.type": "lz4",
    "linger.ms": 5,
    # An attempt of a sink has 10 s in all, after which it takes back what has not been delivered.
    "message.timeout.ms": 10_000,
    # A topic that is not known yet may be on its way; 30 s by default, which is longer than an attempt.
    "topic.metadata.propagation.max.ms": 5_000,
}
# How the sink itself works: a producer of another kind would not do.
_OURS = {
    "bootstrap.servers",
    "metadata.broker.list",
    "delivery.report.only.error",
    "dr_cb",
    "dr_msg_cb",
    "error_cb",
    "log_cb",
    "logger",
    "on_delivery",
    "transactional.id",
}
_SECRET = re.compile(r"password|secret|token|\.key|\.pem|credential", re.IGNORECASE)
# https://kafka.apache.org/documentation/#topicconfigs: what a topic may be called.
_TOPIC = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._-]{1,249}")
_SERVERS = re.compile(r"[^\s/@,?]+(,[^\s/@,?]+)*")


def checked(bootstrap_servers: Any, topic: Any, config: Mapping[str, Any] | None) -> dict[str, Any]:
    """All settings, secrets as `Secret`; librdkafka itself has looked at them. Nothing is connected to.

    Raises:
        ConfigError: what cannot work; no secrets in the message.
        MissingExtra: confluent-kafka is not installed.
    """
    if isinstance(bootstrap_servers, (list, tuple)):
        bootstrap_servers = ",".join(map(str, bootstrap_servers))
    if not isinstance(bootstrap_servers, str) or not _SERVERS.fullmatch(bootstrap_servers):
        raise ConfigError("bootstrap_servers: it must be host:9092, or several of them with commas between")
    if not isinstance(topic, str) or not _TOPIC.fullmatch(topic):
        raise ConfigError(f"topic = {str(topic)[:40]!r}: it must be 1 to 249 letters, digits, dots, _ and -")
    settings: dict[str, Any] = {**_DEFAULTS, "bootstrap.servers": bootstrap_servers}
    for name, given in (config or {}).items():
        if not isinstance(name, str) or name in _OURS:
            raise ConfigError(f"config: {str(name)[:60]!r} is the sink's own")
        settings[name] = Secret.of(name, given) if _SECRET.search(name) and isinstance(given, str) else given
    _check(settings)
    return settings


def revealed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings as librdkafka takes them."""
    return {name: value.reveal() if isinstance(value, Secret) else value for name, value in settings.items()}


def _check(settings: Mapping[str, Any]) -> None:
    """Let librdkafka judge the settings: by a producer without servers, which is gone at once."""
    try:
        from confluent_kafka import KafkaException, Producer
    except ImportError:
        raise MissingExtra("confluent-kafka", "kafka") from None
    try:
        Producer({**revealed(settings), "bootstrap.servers": "", "logger": Silent()})
    except KafkaException as error:
        told = error.args[0].str() if error.args and hasattr(error.args[0], "str") else "no producer can be made"
    except (TypeError, ValueError):
        told = "a value is of the wrong kind"
    else:
        return
    for value in settings.values():
        if isinstance(value, Secret):
            told = told.replace(value.reveal(), "***")
    raise ConfigError(f"config: {told.replace('Failed to create producer: ', '')}")


class Silent:
    """A logger that says nothing."""

    def log(self, level: int, *told: object) -> None:
        """Forget it."""


def from_url(url: str) -> dict[str, Any]:
    """The arguments that `kafka://host:9092,host2:9092/topic?security.protocol=SASL_SSL` stands for.

    Raises:
        ConfigError: another form, or a bad value.
    """
    address = parse(url)
    if not address.location.startswith("//"):
        raise ConfigError(f"{address.shown}: write kafka://host:9092/topic")
    servers, _, topic = unquote(address.location[2:]).partition("/")
    if "@" in servers:
        raise ConfigError(f"{address.shown}: name the user by ?sasl.username= and its password by sasl.password_env=")
    arguments: dict[str, Any] = {"bootstrap_servers": servers}
    if topic:
        arguments["topic"] = topic
    config: dict[str, Any] = {}
    for name, text in address.options.items():
        if name in LANE_PARSERS:
            try:
                arguments[name] = LANE_PARSERS[name](text)
            except ValueError as error:
                raise ConfigError(f"{name} = {text[:40]!r} in {address.shown}: it must be {error}") from None
        elif name.endswith("_env"):
            try:
                config[name.removesuffix("_env")] = Secret.from_env(text)
            except ConfigError as error:
                raise ConfigError(f"{name} in {address.shown}: {error}") from None
        elif _SECRET.search(name) and not name.endswith(".location"):
            raise ConfigError(
                f"{name[:60]} in {address.shown}: name an environment variable that holds it, as {name}_env="
            )
        else:
            config[name] = text
    return {**arguments, "config": config}
