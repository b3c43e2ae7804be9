"""URL of a Chroma server, parsed."""

from __future__ import annotations

import base64
from typing import NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

_PORTS = {"http": 80, "https": 443}
_ARGUMENTS = {"tenant", "database", "api_key"}
_API = ("/api/v2", "/api/v1")


class ChromaAddress(NamedTuple):
    """A parsed CHROMA_URL.

    Attributes:
        base: Scheme, host, port and path, without the API's own part of the path.
        headers: Login headers, from `user:password@` and `?api_key=`.
        tenant, database: Names; `None` for Chroma's default.
    """

    base: str
    headers: dict[str, str]
    tenant: str | None
    database: str | None


def parse_chroma_url(url: str) -> ChromaAddress:
    """Return the parts of *url*; the default port is the scheme's, 80 or 443.

    Raises:
        ValueError: For an invalid URL, or one with a part that would be ignored.
    """
    expected = (
        "expected http(s)://[user:password@]host[:port][/path]"
        "[?tenant=...&database=...&api_key=...]"
    )
    parts = urlsplit(url)
    try:
        port = parts.port or _PORTS.get(parts.scheme)
    except ValueError:
        port = None
    if parts.scheme not in _PORTS or not parts.hostname or port is None:
        raise ValueError(expected)
    arguments = parse_qs(parts.query, keep_blank_values=True)
    if parts.fragment or not arguments.keys() <= _ARGUMENTS:
        odd = ", ".join(sorted(arguments.keys() - _ARGUMENTS)) or "#"
        raise ValueError(f"{odd} is not understood: {expected}")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    path = parts.path.rstrip("/")
    for suffix in _API:
        path = path.removesuffix(suffix)
    headers: dict[str, str] = {}
    if parts.username is not None:
        login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers["Authorization"] = "Basic " + base64.b64encode(login.encode()).decode("ascii")
    given = {name: values[-1] for name, values in arguments.items()}
    if key := given.get("api_key"):
        headers["X-Chroma-Token"] = key
    return ChromaAddress(
        f"{parts.scheme}://{host}:{port}{path}",
        headers,
        given.get("tenant") or None,
        given.get("database") or None,
    )
