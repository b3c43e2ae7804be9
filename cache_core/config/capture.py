"""Captured texts: shown to people, only while `capture_message_content` is on."""

from __future__ import annotations

from typing import Any

LIMIT = 2_000
"""Most characters of a message or a response that are captured."""

_CONVENTION = {
    "no_content": False,
    "event_only": False,  # content belongs into events only, and the cache writes none
    "span_only": True,
    "span_and_event": True,
}


def wanted(value: Any) -> Any:
    """Return a switch in OpenTelemetry's terms as a bool, and any other value unchanged."""
    return _CONVENTION.get(value.strip().lower(), value) if isinstance(value, str) else value


def captured(text: str | None) -> str:
    """Return *text* for capture: bounded, and valid UTF-8; empty for none."""
    if not text:
        return ""
    return text[:LIMIT].encode("utf-8", "replace").decode("utf-8")
