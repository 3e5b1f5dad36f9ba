"""Which HTTP library the installed SDKs speak through: httpx2 (openai 3, anthropic 1 and later), or httpx before."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

import openai


def http_of(sdk: Any) -> ModuleType:
    """The HTTP library of an SDK's client class."""
    kinds = type(sdk(api_key="k")._client).__mro__
    return importlib.import_module("httpx2" if any(kind.__module__.startswith("httpx2") for kind in kinds) else "httpx")


http = http_of(openai.OpenAI)
