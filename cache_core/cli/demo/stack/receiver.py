"""Receiver of Alertmanager's notifications, and the state of the stack."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from cache_core.cli.demo.board import Place
from cache_core.cli.demo.stack.processes import STOP_SECONDS, url_of

_MAX_BODY = 1_048_576

Notify = Callable[[str, str, str], None]
"""Callback for the status, name and summary of an alert, called in another thread."""


@dataclass(slots=True)
class Stack:
    """Running servers and their addresses.

    Attributes:
        metrics_port: Port of the demo's `/metrics`, for Prometheus.
        redis_url: URL of the Redis; `None` without one.
        places: Servers with their addresses.
        missing: Messages about servers that are not installed.
        received: Received alerts, as (status, name), in order.
        notify: Callback for alerts, once it is set.
    """

    metrics_port: int
    redis_url: str | None = None
    places: list[Place] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    received: list[tuple[str, str]] = field(default_factory=list)
    notify: Notify | None = None


@contextmanager
def receiver(made: Stack) -> Iterator[str]:
    """Receive Alertmanager's notifications, as a pager would; yield the address."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            try:
                alerts = json.loads(self.rfile.read(min(length, _MAX_BODY)))["alerts"]
                found = [
                    (one["status"], one["labels"]["alertname"], one["annotations"]["summary"])
                    for one in alerts
                ]
            except (ValueError, KeyError, TypeError):
                self.send_error(400)
                return
            for status, name, summary in found:
                made.received.append((status, name))
                if made.notify is not None:
                    made.notify(status, name, summary)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Suppress the request log."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.2,), daemon=True)
    thread.start()
    try:
        yield url_of(server.server_port, "/alerts")
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=STOP_SECONDS)
