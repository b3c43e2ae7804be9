"""Exporter of spans whose failures are logged in one line that says what to change."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from .environment import address, without_secrets

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

log = logging.getLogger("glasscache")

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
"""First bytes of an HTTP/2 client, with empty settings: RFC 9113, section 3.4."""

_SETTINGS = 4
"""Type of the frame that an HTTP/2 server answers first, in the fourth byte."""

_PROBE_SECONDS = 1.0
"""Seconds that a server has to answer the preface."""

_PATIENCE_SECONDS = 0.5
"""Seconds after which a first export that has not ended looks suspicious."""

_HTTP = "otlp_proto_http"


class ReportedExporter:
    """An exporter of the SDK; its first failure, and the first after a success, are logged.

    Args:
        exporter: The `SpanExporter`.
        name: Its name among the entry points.
    """

    def __init__(self, exporter: Any, name: str) -> None:
        self._exporter = exporter
        self._name = name
        self._failing = False
        self._worked = False

    def export(self, spans: Sequence[ReadableSpan]) -> Any:
        """Send spans; return the SDK's result."""
        try:
            with self._watched():
                result = self._exporter.export(spans)
        except Exception as error:
            self._failed(f"{type(error).__name__}: {without_secrets(str(error))}".strip(": "))
            raise
        if result.name == "SUCCESS":
            self._worked, self._failing = True, False
        else:
            self._failed("its export failed")
        return result

    def shutdown(self) -> None:
        """Stop."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Send what waits in the exporter itself."""
        return bool(self._exporter.force_flush(timeout_millis))

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        """Until something was sent, find a wrong port before the SDK has tried for ten seconds."""
        if self._worked or self._failing or self._name != _HTTP:
            yield
            return
        to = address(_HTTP)

        def look() -> None:
            if to is not None and _speaks_grpc(to):
                self._failed("it gets no answer in HTTP")

        timer = threading.Timer(_PATIENCE_SECONDS, look)
        timer.name, timer.daemon = "glasscache-spans-probe", True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _failed(self, cause: str) -> None:
        if self._failing:
            return
        self._failing = True
        to = address(self._name) if self._name.startswith("otlp") else None
        where = f" to {to[0]}:{to[1]}" if to else ""
        hint = ""
        if to and self._name == _HTTP:
            hint = _hint_for_http(to)
        elif to:
            hint = (
                ". This exporter speaks gRPC, usually on port 4317; for a collector's HTTP port, "
                "usually 4318, set OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf"
            )
        log.warning(
            "spans are not sent by %s%s: %s%s (logged once until it works)",
            self._name, where, cause, hint,
        )  # fmt: skip


def _hint_for_http(to: tuple[str, int]) -> str:
    if _speaks_grpc(to):
        return (
            f". Port {to[1]} speaks gRPC, and this exporter HTTP: use the collector's HTTP port, "
            "usually 4318, or set OTEL_EXPORTER_OTLP_PROTOCOL=grpc with "
            "opentelemetry-exporter-otlp-proto-grpc installed"
        )
    return ""


def _speaks_grpc(to: tuple[str, int]) -> bool:
    """Return whether a server answers as HTTP/2 without TLS does."""
    with (
        contextlib.suppress(OSError),
        socket.create_connection(to, timeout=_PROBE_SECONDS) as connection,
    ):
        connection.sendall(_PREFACE)
        answer = connection.recv(9)
        return len(answer) > 3 and answer[:2] == b"\0\0" and answer[3] == _SETTINGS
    return False
