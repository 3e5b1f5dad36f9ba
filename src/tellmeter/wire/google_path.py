"""The model in the paths of Google's APIs, whose bodies do not name it."""

from __future__ import annotations

from urllib.parse import unquote

_COLLECTIONS = ("models", "tunedModels", "endpoints", "dynamic")


def read_path(path: str) -> str | None:
    """The model that `<prefix>/<collection>/<model>:<verb>` names; None for other paths.

    Of a model it is the bare name, under whatever project and publisher it stands; what is tuned keeps its collection,
    as in `endpoints/4567`, because its own name says nothing.
    """
    front, _, last = path.partition("?")[0].rstrip("/").rpartition("/")
    collection, model = front.rpartition("/")[2], unquote(last.rpartition(":")[0])
    if not model or collection not in _COLLECTIONS:
        return None
    return model if collection == "models" else f"{collection}/{model}"
