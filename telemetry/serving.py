"""A small server of `/metrics`, for processes that have none."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, start_http_server

from .metrics import current_registry


def serve_metrics(
    port: int = 9464, address: str = "127.0.0.1", registry: CollectorRegistry | None = None
) -> tuple[int, Callable[[], None]]:
    """Serve the metrics on `http://address:port/metrics`.

    Args:
        port: 0 for any free one.
        address: Loopback unless said otherwise.
        registry: What to serve; default: where this process's caches report.

    Returns:
        The port, and a function that stops the server.

    Raises:
        OSError: If the port is taken.
    """
    server, thread = start_http_server(port, address, registry or current_registry())

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join(timeout=5)

    return server.server_port, stop
