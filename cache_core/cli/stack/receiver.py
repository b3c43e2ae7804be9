"""What was started, and what hears of the alerts that its Alertmanager sends."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from cache_core.cli.stack.processes import STOP_SECONDS, url_of
from cache_core.demo.board import Place

_MAX_BODY = 1_048_576

Told = Callable[[str, str, str], None]
"""Is called with the status, the name and the summary of an alert, in another thread."""


@dataclass(slots=True)
class Stack:
    """What was started.

    Attributes:
        metrics_port: Where Prometheus looks for the demo's `/metrics`.
        redis_url: Of the Redis; `None` without one.
        places: What listens where.
        missing: What is not there, and how to install it.
        told: Alerts that arrived, as (status, name), in their order.
        tell: What hears of alerts, once it is set.
    """

    metrics_port: int
    redis_url: str | None = None
    places: list[Place] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    told: list[tuple[str, str]] = field(default_factory=list)
    tell: Told | None = None


@contextmanager
def receiver(made: Stack) -> Iterator[str]:
    """Take what Alertmanager sends, as a pager would; yields the address."""

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
                made.told.append((status, name))
                if made.tell is not None:
                    made.tell(status, name, summary)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.2,), daemon=True)
    thread.start()
    try:
        yield url_of(server.server_port, "/alerts")
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=STOP_SECONDS)
