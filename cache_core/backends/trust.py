"""Certificates of the authorities that HTTPS servers are trusted by."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

_VARIABLES = ("SSL_CERT_FILE", "SSL_CERT_DIR")


class TrustStoreError(OSError):
    """Failure to load the authorities' certificates; its text names where they should be."""


@contextlib.contextmanager
def loading_authorities() -> Iterator[None]:
    """Raise `TrustStoreError` for a client that cannot load the authorities' certificates."""
    try:
        yield
    except OSError as error:
        set_ones = (f"{name}={os.environ[name]}" for name in _VARIABLES if os.environ.get(name))
        where = next(set_ones, "the file of authorities")
        raise TrustStoreError(f"{where} cannot be loaded: {error}") from error
