"""JSON documents of HTTP servers, such as Prometheus, Alertmanager and Grafana."""

from __future__ import annotations

import base64
import http.client
import json
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

from cache_core.model.exceptions import BackendError
from cache_core.model.urls import has_sound_port, without_secrets


def fetch_json(url: str, path: str, *, timeout: float = 3.0, token: str | None = None) -> Any:
    """Return the JSON document at *path* below *url*.

    Args:
        url: http:// or https:// address, also with `user:password@`.
        path: Path and query, from a slash on.
        timeout: Seconds for each wait on the network.
        token: Sent as a bearer token. Like a login it does not follow a redirection, which may
            lead to another host.

    Raises:
        BackendError: If there is none; the text names the address without secrets.
    """
    shown = without_secrets(url)
    parts = urllib.parse.urlsplit(url.rstrip("/") + path if has_sound_port(url) else "")
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise BackendError("backend_error", "", f"{shown} is no http:// or https:// address")
    place = parts.netloc.rpartition("@")[2]
    request = urllib.request.Request(parts._replace(netloc=place).geturl())  # noqa: S310 - checked
    if parts.username is not None:
        login = f"{parts.username}:{parts.password or ''}"
        plain = urllib.parse.unquote(login).encode()
        request.add_unredirected_header(
            "Authorization", f"Basic {base64.b64encode(plain).decode()}"
        )
    elif token:
        request.add_unredirected_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:  # noqa: S310 - checked
            return json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            why = f"HTTP {error.code} {error.reason}"
        raise BackendError(
            "backend_error", "HTTPError", f"{shown} cannot be asked: {why}"
        ) from None
    except (OSError, ValueError, http.client.HTTPException) as error:
        kind, cause = type(error).__name__, getattr(error, "reason", None) or error
        if isinstance(error, http.client.HTTPException):
            cause = kind  # its text may have the URL, or what the server sent
        raise BackendError("backend_error", kind, f"{shown} cannot be asked: {cause}") from None
