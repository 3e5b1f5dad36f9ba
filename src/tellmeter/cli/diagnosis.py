"""What `tellmeter doctor` finds out: libraries, extras, settings, the default store, prices; and what is wrong."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec

from .. import __version__, config
from ..errors import TellmeterError
from ..pipeline.spool.left import look
from ..registry.shared.folder import Folder, Refused
from ..sinks import urls
from ..sinks.address import redact
from ..sinks.sqlite import schema as sqlite_schema
from ..usage import Usage
from .probe import probe_apart
from .stores import ask, chosen_url, file_of

# Module -> distribution, where the names differ.
_DISTRIBUTIONS = {
    "together": "together",
    "writerai": "writer-sdk",
    "cerebras": "cerebras-cloud-sdk",
    "fireworks": "fireworks-ai",
}
# Clients that LLM SDKs use and that this version does not hook: a program on them would wonder.
_NOT_SEEN = ("aiohttp", "botocore", "requests")
_HTTP = ("httpx", "httpx2")


class Library(msgspec.Struct, frozen=True):
    """An installed library through which LLM calls go."""

    name: str
    version: str
    state: str


class Extra(msgspec.Struct, frozen=True):
    """An extra of tellmeter: the packages that it still lacks here, and the line that brings them."""

    name: str
    missing: list[str]
    install: str | None


class Setting(msgspec.Struct, frozen=True):
    """A setting that is not the default's, and where it comes from."""

    name: str
    value: str
    source: str


class Store(msgspec.Struct):
    """The store that commands use without `--store`."""

    url: str
    exists: bool = False
    bytes: int | None = None
    schema_version: int | None = None
    records: int | None = None


class Problem(msgspec.Struct, frozen=True):
    """What is wrong, and its cure."""

    what: str
    cure: str


class Diagnosis(msgspec.Struct, kw_only=True):
    """Everything that `tellmeter doctor` says."""

    tellmeter: str
    python: str
    executable: str
    libraries: list[Library]
    extras: list[Extra]
    settings: list[Setting]
    store: Store
    prices: str | None
    problems: list[Problem]


def diagnose(environment: Mapping[str, str] | None = None) -> Diagnosis:
    """Look at this Python and this environment. Slow: it imports every SDK, in a process of its own."""
    env = os.environ if environment is None else environment
    problems: list[Problem] = []
    found = Diagnosis(
        tellmeter=__version__,
        python=".".join(map(str, sys.version_info[:3])),
        executable=sys.executable,
        libraries=_libraries(problems),
        extras=_extras(),
        settings=_settings(env, problems),
        store=_store(env, problems),
        prices=_prices(problems),
        problems=problems,
    )
    _check_sinks(env, problems)
    return found


def _libraries(problems: list[Problem]) -> list[Library]:
    from ..wire import status

    names = {name: version for name in status() if (version := _version(name))}
    probed = probe_apart(names)
    found = []
    for name, version in names.items():
        one = probed.get(name)
        state = "not checked" if one is None else f"import fails ({one.error})" if one.error else one.state
        found.append(Library(name, version, state))
        if state != "hooked":
            problems.append(
                Problem(
                    f"{name} {version}: {state}",
                    f"try python -c 'import {name}'; reinstall or upgrade it, or tellmeter",
                )
            )
    if not names.keys() & set(_HTTP):
        problems.append(
            Problem(
                f"no HTTP client that tellmeter hooks ({', '.join(_HTTP)}) is installed in this Python",
                f"install tellmeter beside your program and its SDK; this is {sys.executable}",
            )
        )
    unseen = [Library(name, version, "not hooked by this version") for name in _NOT_SEEN if (version := _version(name))]
    return found + unseen


def _version(module: str) -> str | None:
    try:
        return metadata.version(_DISTRIBUTIONS.get(module, module))
    except metadata.PackageNotFoundError:
        return None


def _extras() -> list[Extra]:
    try:
        about = metadata.metadata("tellmeter")
    except metadata.PackageNotFoundError:  # run from a source tree
        return []
    found = []
    for name in sorted(about.get_all("Provides-Extra") or []):
        missing = sorted(package for package in _needed(name) if not _version(package))
        found.append(Extra(name, missing, f"pip install 'tellmeter[{name}]'" if missing else None))
    return found


def _needed(extra: str) -> Iterator[str]:
    """The packages of an extra, by the metadata of the installed tellmeter; an extra may name another one."""
    for line in metadata.requires("tellmeter") or []:
        requirement, _, marker = line.partition(";")
        package = re.match(r"[\w.-]+", requirement)
        if package is None or not re.search(rf"extra == ['\"]{re.escape(extra)}['\"]", marker):
            continue
        inner = re.search(r"\[([\w., -]+)\]", requirement)
        if package[0].lower() == "tellmeter" and inner:
            for name in inner[1].split(","):
                yield from _needed(name.strip())
        else:
            yield package[0]


def _settings(env: Mapping[str, str], problems: list[Problem]) -> list[Setting]:
    known = {variable: value for variable, value in env.items() if variable in config.KNOWN_VARIABLES}
    for variable in sorted(env):
        if variable.startswith("TELLMETER_") and variable not in known:
            names = [name.removeprefix("TELLMETER_") for name in config.KNOWN_VARIABLES]
            near = get_close_matches(variable.removeprefix("TELLMETER_"), names, 1)
            cure = f"rename it to TELLMETER_{near[0]}" if near else "unset it"
            problems.append(Problem(f"{variable} is no setting", cure))
    found = []
    try:
        chosen = config.MetricsConfig.from_env(known)
    except TellmeterError as error:
        problems.append(Problem(str(error), "correct the environment variable; until then nothing is metered"))
    else:
        default = config.MetricsConfig()
        for name in config.MetricsConfig.__struct_fields__:
            if (value := getattr(chosen, name)) != getattr(default, name):
                source = next(variable for variable in config.SOURCES[name] if known.get(variable, "").strip())
                found.append(Setting(name, _shown(value), source))
                if name == "spool":
                    _check_spool(str(value), problems)
                if name == "enabled":
                    problems.append(Problem(f"metering is off ({source})", f"unset {source}"))
    for name, variable in (("sinks", config.SINKS_VARIABLE), ("store", config.STORE_VARIABLE)):
        if urls := [redact(url.strip()) for url in known.get(variable, "").split(",") if url.strip()]:
            found.append(Setting(name, ", ".join(urls), variable))
    if folder := known.get(config.MULTIPROC_VARIABLE, "").strip():
        found.append(Setting("metrics shared in", folder, config.MULTIPROC_VARIABLE))
        try:
            Folder(str(Path(folder).absolute())).exists()
        except Refused as error:
            told = f"{config.MULTIPROC_VARIABLE} = {folder}: {error}"
            problems.append(Problem(told, "name another folder; until then each process keeps its metrics to itself"))
    return found


def _check_spool(folder: str, problems: list[Problem]) -> None:
    path = Path(folder).expanduser().absolute()
    try:
        Folder(str(path)).exists()
        waiting = sum(one.records for one in look(str(path)) if not one.in_use)
    except (Refused, OSError) as error:
        problems.append(Problem(f"the spool {path}: {error}", "name another folder; until then records wait in memory"))
        return
    if waiting:
        told = f"{waiting:,} records that ended processes left wait in {path}"
        problems.append(Problem(told, "start the program again, or deliver them with `tellmeter spool replay`"))


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={item}" for name, item in value.items())
    return str(value)


def _check_sinks(env: Mapping[str, str], problems: list[Problem]) -> None:
    for url in filter(None, map(str.strip, env.get(config.SINKS_VARIABLE, "").split(","))):
        try:
            urls.sink_from_url(url)
        except TellmeterError as error:
            problems.append(
                Problem(f"{config.SINKS_VARIABLE}: {redact(url)}: {error}", "correct the URL, or install what it needs")
            )


def _store(env: Mapping[str, str], problems: list[Problem]) -> Store:
    try:
        url = chosen_url(config.default_store_url(env))
    except TellmeterError as error:
        problems.append(Problem(str(error), f"correct {config.STORE_VARIABLE}"))
        return Store(redact(config.default_store_url(env)))
    found = Store(redact(url))
    path = file_of(url)
    found.exists = path is None or path.exists()
    if path is not None and not found.exists:
        if not _can_create(path):
            problems.append(
                Problem(
                    f"{path} cannot be created",
                    f"make its folder writable, or set {config.STORE_VARIABLE}=sqlite:///PATH",
                )
            )
        return found
    try:
        found.records = ask(urls.store_from_url(url, must_exist=True), "model").total.count
        if path is not None:
            found.bytes = path.stat().st_size
            found.schema_version = _schema_version(path)
    except TellmeterError as error:
        problems.append(Problem(f"the default store: {error}", f"or set {config.STORE_VARIABLE} to another one"))
    return found


def _schema_version(path: Path) -> int:
    connection = sqlite_schema.connect(path, create=False, reading=True)
    try:
        version: int = connection.execute("PRAGMA user_version").fetchone()[0]
        return version
    finally:
        connection.close()


def _can_create(path: Path) -> bool:
    folder = next(parent for parent in path.parents if parent.exists())
    return os.access(folder, os.W_OK | os.X_OK)


def _prices(problems: list[Problem]) -> str | None:
    """The version of the price data, proved by a price."""
    from ..prices import PriceBook

    _, version = PriceBook().cost("openai", "gpt-4o", None, Usage(input_tokens=1000), at=time.time())
    if version is None:
        problems.append(Problem("genai-prices gives no prices", "pip install --upgrade genai-prices"))
    return version
