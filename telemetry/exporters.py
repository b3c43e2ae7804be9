"""Export of spans, for an application that has not set up OpenTelemetry itself.

Importing this has no effect, and only `configure` loads the SDK: a library does not decide where
an application's spans go.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from opentelemetry import trace

from cache_core import __version__
from cache_core.model.exceptions import ConfigurationError

from . import names

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider

log = logging.getLogger("glasscache")

_HTTP = {"", "http/protobuf"}

_lock = threading.Lock()
_configured: list[SpanExport] = []


class SpanExport:
    """Export of this process's spans to a collector, as set up by `configure`.

    Args:
        provider: The provider that was created; `None` if the application has its own.
    """

    def __init__(self, provider: TracerProvider | None) -> None:
        self._provider = provider

    @property
    def ours(self) -> bool:
        """True if `configure` created the provider, False if the application did."""
        return self._provider is not None

    def flush(self, timeout: float = 5.0) -> bool:
        """Send the queued spans; return whether that took at most *timeout* seconds."""
        return self._provider is None or _within(timeout, self._provider.force_flush)

    def shutdown(self, timeout: float = 5.0) -> bool:
        """Send the queued spans and stop; return whether that took at most *timeout* seconds.

        Idempotent. Later spans are lost. Without this call the SDK does the same when the process
        ends, and waits up to 30 seconds for a collector that hangs.
        """
        return self._provider is None or _within(timeout, self._provider.shutdown)


def configure(service_name: str = names.SERVICE) -> SpanExport:
    """Export this process's spans by OTLP/HTTP, configured by the standard `OTEL_*` variables.

    Call it once in the application, when it starts. The OpenTelemetry SDK reads endpoint, headers,
    timeout, compression, sampler, batches, limits, resource attributes and `OTEL_SDK_DISABLED`.
    `OTEL_TRACES_EXPORTER=none` sends nothing. A provider that was set before is
    kept, which is logged; a second call returns the first one's result.

    Args:
        service_name: Resource attribute `service.name`, unless the environment sets it.

    Returns:
        The handle to flush and shut down the export.

    Raises:
        ConfigurationError: If the extra `otlp` is missing, or the environment requests an exporter
            or a protocol other than OTLP over HTTP.
    """
    with _lock:
        if _configured:
            return _configured[0]
        current = trace.get_tracer_provider()
        if not isinstance(current, trace.ProxyTracerProvider):
            log.info(
                "OpenTelemetry is set up already (%s): left alone, the cache's spans go there too",
                type(current).__name__,
            )
            return SpanExport(None)
        sends = _sends()
        provider = _make_provider(service_name, sends=sends)
        trace.set_tracer_provider(provider)
        _configured.append(SpanExport(provider))
        return _configured[0]


def _sends() -> bool:
    """Return whether the environment permits sending spans."""
    wanted = os.environ.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    if wanted == "none":
        return False
    if wanted not in {"", "otlp", "otlp_proto_http"}:
        raise ConfigurationError(
            f"OTEL_TRACES_EXPORTER={wanted!r} is refused: configure() knows otlp and none; for "
            "another exporter set up the OpenTelemetry SDK yourself"
        )
    for variable in ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        protocol = os.environ.get(variable, "").strip().lower()
        if protocol not in _HTTP:
            raise ConfigurationError(
                f"{variable}={protocol!r} is refused: configure() speaks http/protobuf (port 4318 "
                "of most collectors); for another protocol set up the OpenTelemetry SDK yourself"
            )
        if protocol:
            break
    return True


def _make_provider(service_name: str, *, sends: bool) -> TracerProvider:
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise ConfigurationError(
            f"spans cannot be sent, {error.name} is missing: pip install 'glasscache[otlp]'"
        ) from error
    provider = TracerProvider(resource=_resource(Resource.create(), service_name))
    disabled = isinstance(provider.get_tracer(names.TRACER), trace.NoOpTracer)
    if sends and not disabled:
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


def _resource(found: Resource, service_name: str) -> Resource:
    """Return the environment's resource, completed with ours."""
    ours: dict[str, Any] = {names.RESOURCE_VERSION: __version__}
    if str(found.attributes.get(names.RESOURCE_SERVICE, "")).startswith("unknown_service"):
        ours[names.RESOURCE_SERVICE] = service_name
    return found.merge(type(found)(ours))


def _within(seconds: float, work: Callable[[], Any]) -> bool:
    """Return whether *work* ended in time: the SDK's own limits are per request."""
    thread = threading.Thread(target=work, name="glasscache-spans", daemon=True)
    thread.start()
    thread.join(seconds)
    return not thread.is_alive()
