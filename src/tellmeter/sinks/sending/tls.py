"""Whom an HTTP sink trusts under TLS: 1.2 at least, the system's authorities or those of one file."""

from __future__ import annotations

import os
import ssl
from pathlib import Path

from ...errors import ConfigError


def tls_context(ca: str | os.PathLike[str] | None, verify: bool) -> ssl.SSLContext:
    """A client's context; the system's authorities (`SSL_CERT_FILE`, `SSL_CERT_DIR`) without `ca`.

    Raises:
        ConfigError: a `ca` that is no file of certificates (PEM).
    """
    if not verify:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif ca is None:
        import httpcore2

        context = httpcore2.default_ssl_context()
    else:
        path = Path(ca)
        try:
            context = ssl.create_default_context(cafile=path.expanduser())
        except (OSError, ValueError, RuntimeError):  # ssl's errors are OSErrors
            raise ConfigError(f"ca = {str(path)!r}: it must be a file of certificates (PEM) that can be read") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
