"""Exporters of spans that the environment names in the standard `OTEL_*` variables.

Platforms inject these variables into every process, for whatever language. So nothing in them is
an error here: what cannot be done is logged, and the rest is done.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

_HTTP = "otlp_proto_http"
_GRPC = "otlp_proto_grpc"

_PROTOCOLS = {
    "http/protobuf": _HTTP,
    "grpc": _GRPC,
    # No exporter for Python speaks it, and what receives it receives the other on the same port.
    "http/json": _HTTP,
}

_ALIASES = {"logging": "console"}
"""Names of the specification for what the SDK for Python calls otherwise."""

_PORTS = {_HTTP: 4318, _GRPC: 4317}


class Wanted(NamedTuple):
    """Exporters that the environment names.

    Attributes:
        exporters: Their names, as in the entry points `opentelemetry_traces_exporter`.
        unknown: Descriptions of what is named and does not exist.
    """

    exporters: tuple[str, ...]
    unknown: tuple[str, ...]


def is_disabled() -> bool:
    """Return whether the environment switches the SDK off."""
    return _value("OTEL_SDK_DISABLED") == "true"


def wanted() -> Wanted:
    """Return the exporters of spans that the environment names; by default OTLP over HTTP."""
    named = [name.strip() for name in _value("OTEL_TRACES_EXPORTER").split(",")]
    found: dict[str, None] = {}
    unknown: list[str] = []
    for name in [name for name in named if name] or ["otlp"]:
        if name == "none":
            continue
        if name != "otlp":
            found[_ALIASES.get(name, name)] = None
            continue
        variable, protocol = _protocol()
        if protocol in _PROTOCOLS:
            found[_PROTOCOLS[protocol]] = None
        else:
            unknown.append(f"otlp ({variable}={protocol!r} is no protocol)")
    return Wanted(tuple(found), tuple(unknown))


def address(exporter: str) -> tuple[str, int] | None:
    """Return host and port that an OTLP exporter sends to, if the environment's URL has them."""
    given = (
        os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
        or os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")
        or f"http://localhost:{_PORTS.get(exporter, 0)}"
    ).strip()
    try:
        parts = urlsplit(given if "://" in given else f"//{given}")
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme, _PORTS.get(exporter))
    except ValueError:
        return None
    return (parts.hostname, port) if parts.hostname and port else None


def without_secrets(text: str) -> str:
    """Return *text* without values of variables that may hold a password; empty if it quotes one.

    The SDK's errors quote the value that they reject, which may be a header with a token.
    """
    secrets = _secrets(os.environ)
    return "" if any(secret in text for secret in secrets) else text


def _secrets(environment: Mapping[str, str]) -> set[str]:
    found: set[str] = set()
    for name, value in environment.items():
        if name.startswith("OTEL_") and ("HEADERS" in name or "@" in value):
            found |= {part.strip() for part in value.replace("=", ",").split(",")}
    return {part for part in found if part}


def _protocol() -> tuple[str, str]:
    """Return the variable that sets OTLP's protocol for spans, and its value."""
    for variable in ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        value = _value(variable)
        if value:
            return variable, value
    return "", "http/protobuf"


def _value(name: str) -> str:
    return os.environ.get(name, "").strip().lower()
