"""Client of an OpenAI-compatible HTTP endpoint: one URL, JSON there and back, in time."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import math
import os
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit
from weakref import WeakSet

from cache_core.backends.forking import leave_to_parent
from cache_core.backends.trust import loading_authorities
from cache_core.model.exceptions import BackendError
from cache_core.model.urls import has_sound_port, without_secrets

if TYPE_CHECKING:  # it comes with the extra `endpoint`
    import httpx

_LARGEST_BYTES = 32 * 1_048_576
"""Longest response that is read: a batch of 8,192-dimensional vectors has 6 MB."""

_PAUSE_SECONDS = 1.0
"""Pause after a response that refuses for its rate and names none."""

_LONGEST_PAUSE = 60.0

_clients: WeakSet[EndpointClient] = WeakSet()


def is_installed() -> bool:
    """Return whether httpx is installed; does not import it."""
    return importlib.util.find_spec("httpx") is not None


def check_base(url: str, key_goes: str) -> None:
    """Check the base URL of an endpoint.

    Args:
        url: The URL.
        key_goes: The setting or argument that takes the key.

    Raises:
        ValueError: If it is no http(s) URL, or has a login or a key in it.
    """
    try:
        parts = urlsplit(url)
        sound = parts.scheme in {"http", "https"} and parts.hostname and has_sound_port(url)
    except ValueError:
        sound = False
    if not sound:
        raise ValueError("expected http(s)://host[:port]/path, such as https://api.openai.com/v1")
    if without_secrets(url) != url:
        # HTTP clients log the URLs that they ask.
        raise ValueError(f"a login or a key does not belong in it: set {key_goes}")


def url_below(base: str, path: str) -> str:
    """Return the URL to post to: *base* and *path*, with the query of *base*.

    Args:
        base: Base URL, which may end in *path* already.
        path: Path, from a slash on.
    """
    scheme, host, before, query, _ = urlsplit(base)
    before = before.rstrip("/")
    if not before.endswith(path):
        before += path
    return urlunsplit((scheme, host, before, query, ""))


class EndpointClient:
    """Posts to one URL; safe to call from several threads, and after a fork.

    Nothing is asked while a pause lasts that the endpoint requested. There are no other repetitions
    than one after a kept connection that the endpoint had closed.

    Args:
        url: The URL.
        key: Sent as a bearer token; `None` sends none.
        timeout: Seconds for one request, its connection included.
        connections: Most connections.
    """

    def __init__(self, url: str, key: str | None, timeout: float, connections: int) -> None:
        self._url = url
        self._key = key
        self._timeout = timeout
        self._connections = connections
        self._lock = threading.Lock()
        self._resumes = 0.0
        self._client: httpx.Client | None = None
        self._closed = False
        _clients.add(self)

    def open(self) -> httpx.Client:
        """Return the connections of this process; certificates are verified.

        Raises:
            BackendError: After `close`.
            TrustStoreError: If the certificates of the authorities cannot be loaded.
        """
        import httpx

        with self._lock:
            if self._closed:
                raise BackendError("backend_error", "Closed")
            if self._client is None:
                headers = {"Accept": "application/json"}
                if self._key:
                    headers["Authorization"] = f"Bearer {self._key}"
                most = self._connections
                with loading_authorities():
                    self._client = httpx.Client(
                        headers=headers,
                        timeout=self._timeout,
                        follow_redirects=False,
                        limits=httpx.Limits(max_connections=most, max_keepalive_connections=most),
                    )
            return self._client

    def close(self) -> None:
        """Close the connections."""
        with self._lock:
            self._closed = True
            client, self._client = self._client, None
        if client is not None:
            client.close()

    def forked(self) -> None:
        """Leave the connections to the parent, whose threads may have held the lock."""
        leave_to_parent(self._client)
        self._client = None
        self._lock = threading.Lock()

    def post(self, body: Mapping[str, object]) -> tuple[int, bytes]:
        """Return status and body of the response.

        Raises:
            BackendError: `timeout`, `overloaded` if the endpoint refuses for its rate, else
                `backend_error` with the kind of failure as its type.
        """
        import httpx

        if time.monotonic() < self._resumes:
            raise BackendError("overloaded", "HTTP 429")
        end = time.monotonic() + self._timeout
        # Lone surrogates, which no UTF-8 has, are escaped.
        content = json.dumps(body)
        try:
            try:
                status, headers, found = self._post(content, end)
            except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError):
                # The endpoint may have closed a kept connection just then.
                status, headers, found = self._post(content, end)
        except (httpx.TimeoutException, TimeoutError) as error:
            raise BackendError("timeout", type(error).__name__) from None
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
            # No other text is known to quote nothing of the request.
            refused = "CERTIFICATE_VERIFY_FAILED" in str(error)
            kind = "CertificateError" if refused else type(error).__name__
            raise BackendError("backend_error", kind) from None
        if status == 429 or (status == 503 and "retry-after" in headers):
            self._resumes = time.monotonic() + _pause(headers.get("retry-after", ""))
            raise BackendError("overloaded", f"HTTP {status}")
        return status, found

    def _post(self, content: str, end: float) -> tuple[int, Mapping[str, str], bytes]:
        """Return status, headers and body; raises `TimeoutError` at *end*, however it trickles."""
        left = end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        with self.open().stream(
            "POST",
            self._url,
            content=content,
            headers={"Content-Type": "application/json"},
            timeout=left,
        ) as response:
            body = bytearray()
            for part in response.iter_bytes():
                body += part
                if time.monotonic() > end:
                    raise TimeoutError
                if len(body) > _LARGEST_BYTES:
                    raise ValueError("the response is too large")
            return response.status_code, response.headers, bytes(body)


def _pause(retry_after: str) -> float:
    """Return the seconds to pause for a `Retry-After` header; a date counts as none."""
    with contextlib.suppress(ValueError):
        seconds = float(retry_after)
        if math.isfinite(seconds):
            return min(max(seconds, 0.0), _LONGEST_PAUSE)
    return _PAUSE_SECONDS


def _forked() -> None:
    for client in list(_clients):
        client.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
