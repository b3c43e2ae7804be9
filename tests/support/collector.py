"""Collectors for tests: real OTLP servers; by HTTP as well-behaved or as broken as a test wants."""

from __future__ import annotations

import contextlib
import gzip
import threading
from collections.abc import Iterator
from concurrent import futures
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as services
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue


def plain(value: AnyValue) -> Any:
    """Return a protobuf value as Python has it."""
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [plain(item) for item in value.array_value.values]
    return getattr(value, kind) if kind else None


@dataclass
class Received:
    """A span as it arrived."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    start: int
    end: int
    status: int
    attributes: dict[str, Any]
    events: list[tuple[str, dict[str, Any]]]
    scope: tuple[str, str]
    resource: dict[str, Any]


@dataclass
class Collector:
    """Data that a collector has received.

    Attributes:
        url: To be the `OTEL_EXPORTER_OTLP_ENDPOINT`.
        spans: In the order of their arrival.
        requests: Path and headers of each request.
        raw: Decompressed bodies.
        status: What it answers.
        hangs: Seconds until it answers.
    """

    url: str = ""
    spans: list[Received] = field(default_factory=list)
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    raw: list[bytes] = field(default_factory=list)
    status: int = 200
    hangs: float = 0.0
    _ended: threading.Event = field(default_factory=threading.Event)

    def named(self, name: str) -> list[Received]:
        return [span for span in self.spans if span.name == name]

    def ancestors(self, span: Received) -> list[str]:
        """Return the names of the spans above, nearest first."""
        by_id = {other.span_id: other for other in self.spans}
        found: list[str] = []
        while span.parent_id:
            span = by_id[span.parent_id]
            found.append(span.name)
        return found

    def take(self, body: bytes) -> None:
        self.raw.append(body)
        self.keep(ExportTraceServiceRequest.FromString(body))

    def keep(self, request: ExportTraceServiceRequest) -> None:
        for group in request.resource_spans:
            resource = {item.key: plain(item.value) for item in group.resource.attributes}
            for scoped in group.scope_spans:
                for span in scoped.spans:
                    self.spans.append(
                        Received(
                            span.name,
                            span.trace_id.hex(),
                            span.span_id.hex(),
                            span.parent_span_id.hex(),
                            span.start_time_unix_nano,
                            span.end_time_unix_nano,
                            span.status.code,
                            {item.key: plain(item.value) for item in span.attributes},
                            [
                                (e.name, {item.key: plain(item.value) for item in e.attributes})
                                for e in span.events
                            ],
                            (scoped.scope.name, scoped.scope.version),
                            resource,
                        )
                    )


@contextlib.contextmanager
def collector(status: int = 200, hangs: float = 0.0) -> Iterator[Collector]:
    """Run a collector on a free loopback port."""
    found = Collector(status=status, hangs=hangs)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            found.requests.append((self.path, dict(self.headers)))
            if found.hangs:
                found._ended.wait(found.hangs)
            if found.status == 200:
                found.take(body)
            with contextlib.suppress(OSError):
                self.send_response(found.status)
                self.send_header("Content-Type", "application/x-protobuf")
                self.end_headers()
                self.wfile.write(ExportTraceServiceResponse().SerializeToString())

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        found.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield found
        finally:
            found._ended.set()
            server.shutdown()
            thread.join()


@contextlib.contextmanager
def grpc_collector() -> Iterator[Collector]:
    """Run a collector that speaks gRPC, as most do on port 4317, on a free loopback port."""
    found = Collector()

    class Servicer(services.TraceServiceServicer):
        def Export(self, request, context):  # noqa: N802 - the protocol's name
            found.keep(request)
            return ExportTraceServiceResponse()

    server = grpc.server(futures.ThreadPoolExecutor(2))
    services.add_TraceServiceServicer_to_server(Servicer(), server)
    found.url = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield found
    finally:
        server.stop(None).wait()
