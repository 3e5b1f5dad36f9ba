"""Which HTTP library the installed SDKs speak through: httpx2 (openai 3, anthropic 2), or httpx before."""

from __future__ import annotations

import importlib

import openai

_MRO = type(openai.OpenAI(api_key="k")._client).__mro__
http = importlib.import_module("httpx2" if any(kind.__module__.startswith("httpx2") for kind in _MRO) else "httpx")
