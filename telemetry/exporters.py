"""Where spans go, for an application that has not set up OpenTelemetry itself.

Nothing here happens on import, and the SDK is loaded only by `configure`: a library does not decide
where an application's spans go.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from opentelemetry import trace

from cache_core import __version__
from cache_core.exceptions import ConfigurationError

from . import names

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider

log = logging.getLogger("glasscache")

_HTTP = {"", "http/protobuf"}

_lock = threading.Lock()
_configured: list[SpanExport] = []


class SpanExport:
    """The way of this process's spans to a collector, as `configure` made it.

    Args:
        provider: The one that was made; `None` when the application has its own.
    """

    def __init__(self, provider: TracerProvider | None) -> None:
        self._provider = provider

    @property
    def ours(self) -> bool:
        """Whether `configure` made it; else the application's own provider was left alone."""
        return self._provider is not None

    def flush(self, timeout: float = 5.0) -> bool:
        """Send what waits; return whether that ended within *timeout* seconds."""
        return self._provider is None or _within(timeout, self._provider.force_flush)

    def shutdown(self, timeout: float = 5.0) -> bool:
        """Send what waits and stop; return whether that ended within *timeout* seconds.

        Idempotent. Later spans are lost. Without it the SDK does the same when the process ends,
        and waits for a collector that hangs up to 30 seconds.
        """
        return self._provider is None or _within(timeout, self._provider.shutdown)


def configure(service_name: str = names.SERVICE) -> SpanExport:
    """Send this process's spans by OTLP/HTTP, as the standard `OTEL_*` variables say.

    To be called once by the application, when it starts: endpoint, headers, timeout, compression,
    sampler, batches, limits, resource attributes and `OTEL_SDK_DISABLED` are read by the
    OpenTelemetry SDK. `OTEL_TRACES_EXPORTER=none` sends nothing. A provider that was set before is
    left alone, and a line in the log says so; a second call returns what the first one made.

    Args:
        service_name: Resource attribute `service.name`, unless the environment says it.

    Returns:
        What flushes and shuts down.

    Raises:
        ConfigurationError: If the extra `otlp` is missing, or the environment asks for an exporter
            or a protocol that is not OTLP over HTTP.
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
    """Return whether the environment wants spans to be sent."""
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
    """Return what the environment says, completed by what it left open."""
    ours: dict[str, Any] = {names.RESOURCE_VERSION: __version__}
    if str(found.attributes.get(names.RESOURCE_SERVICE, "")).startswith("unknown_service"):
        ours[names.RESOURCE_SERVICE] = service_name
    return found.merge(type(found)(ours))


def _within(seconds: float, work: Callable[[], Any]) -> bool:
    """Return whether *work* ended in time: the SDK's own limits are for each request."""
    thread = threading.Thread(target=work, name="glasscache-spans", daemon=True)
    thread.start()
    thread.join(seconds)
    return not thread.is_alive()
