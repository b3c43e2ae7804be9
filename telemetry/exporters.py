"""Export of spans, for an application that has not set up OpenTelemetry itself.

Importing this has no effect, and only `configure` loads the SDK: a library does not decide where
an application's spans go.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from importlib import metadata
from typing import TYPE_CHECKING, Any

from opentelemetry import trace

from cache_core import __version__

from . import environment, names
from .reported import ReportedExporter

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider

log = logging.getLogger("glasscache")

_lock = threading.Lock()
_configured: list[SpanExport] = []


class SpanExport:
    """Export of this process's spans to a collector, as set up by `configure`.

    Args:
        provider: The provider that was created; `None` if the application has its own, or nothing
            is sent.
    """

    def __init__(self, provider: TracerProvider | None) -> None:
        self._provider = provider

    @property
    def ours(self) -> bool:
        """True if `configure` created a provider, which sends what it can."""
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
    """Export this process's spans as the standard `OTEL_*` variables say; by default by OTLP/HTTP.

    Call it once in the application, when it starts. It never raises: what the environment asks for
    and cannot be had is named in one log line, and the rest is done. `OTEL_TRACES_EXPORTER` is a
    list of `otlp`, `console`, `none` or of other installed exporters; OTLP's protocol is
    `http/protobuf`, or `grpc` if its exporter is installed. The OpenTelemetry SDK reads endpoint,
    headers, timeout, compression, sampler, batches, limits, and resource attributes. With
    `OTEL_SDK_DISABLED=true` nothing is made. A provider that was set before is kept, which is
    logged; a second call returns the first one's result.

    Args:
        service_name: Resource attribute `service.name`, unless the environment sets it.

    Returns:
        The handle to flush and shut down the export.
    """
    with _lock:
        if _configured:
            return _configured[0]
        current = _current()
        if current:
            log.info(
                "OpenTelemetry is set up already (%s): left alone, the cache's spans go there too",
                current,
            )
            return SpanExport(None)
        _configured.append(SpanExport(_provider(service_name)))
        return _configured[0]


def _current() -> str:
    """Return the name of the provider that the application has set; empty if there is none."""
    try:
        found = trace.get_tracer_provider()
    except Exception as error:  # noqa: BLE001 - OTEL_PYTHON_TRACER_PROVIDER names none
        return f"OTEL_PYTHON_TRACER_PROVIDER, which fails with {type(error).__name__}"
    return "" if isinstance(found, trace.ProxyTracerProvider) else type(found).__name__


def _provider(service_name: str) -> TracerProvider | None:
    """Return the provider, which is now set; `None` if nothing can be sent."""
    if environment.is_disabled():
        log.info("no spans are sent: OTEL_SDK_DISABLED is true")
        return None
    try:
        provider, lost = made_provider(service_name)
    except ImportError as error:
        lost = [f"{error.name} is missing: pip install 'glasscache[otlp]'"]
        provider = None
    except Exception as error:  # noqa: BLE001 - a variable of the SDK that it rejects
        lost, provider = [_failure(error)], None
    if lost:
        how = "not sent" if provider is None else "sent, but not"
        log.warning("spans are %s%s", how, _joined(lost, by=provider is not None))
    if provider is not None:
        trace.set_tracer_provider(provider)
    return provider


def _joined(lost: list[str], *, by: bool) -> str:
    return (" by " if by else ": ") + "; ".join(lost)


def made_provider(service_name: str) -> tuple[TracerProvider | None, list[str]]:
    """Return a provider, if anything can be sent, and what cannot be."""
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    wanted = environment.wanted()
    lost = list(wanted.unknown)
    made: list[BatchSpanProcessor] = []
    for name in wanted.exporters:
        try:
            exporter: Any = ReportedExporter(_exporter(name), name)
            made.append(BatchSpanProcessor(exporter))
        except Exception as error:  # noqa: BLE001 - others may work
            lost.append(f"{name} ({_failure(error)})")
    if lost and not made:
        return None, lost
    provider = TracerProvider(resource=_resource(Resource.create(), service_name))
    for processor in made:
        provider.add_span_processor(processor)
    return provider, lost


def _exporter(name: str) -> Any:
    """Return an installed exporter of spans by its name.

    Raises:
        LookupError: If none of that name is installed.
    """
    for found in metadata.entry_points(group="opentelemetry_traces_exporter", name=name):
        return found.load()()
    package = f"opentelemetry-exporter-{name.replace('_', '-')}"
    hint = f"pip install {package}" if name.startswith("otlp_proto_") else "no such exporter"
    raise LookupError(f"not installed: {hint}")


def _failure(error: Exception) -> str:
    """Return an error in one line, without secrets that it may quote."""
    said = environment.without_secrets(" ".join(str(error).split()))
    return (
        said if isinstance(error, LookupError) else f"{type(error).__name__}: {said}".rstrip(": ")
    )


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
