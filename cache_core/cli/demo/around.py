"""Environment of the demo: its directory, servers, spans and metrics port."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from cache_core import Settings
from cache_core.cli.console import err, out, table
from cache_core.cli.demo.board import Board, Place
from cache_core.cli.demo.options import Options
from cache_core.cli.demo.stack import Stack, free_port, stack
from cache_core.model.urls import without_secrets
from cache_core.observability.defaults import telemetry

_PORT = 9464


@contextmanager
def data_directory(wanted: Path | None) -> Iterator[Path]:
    """Yield the *wanted* directory, else a temporary one."""
    if wanted is not None:
        yield wanted
        return
    with tempfile.TemporaryDirectory(
        prefix="glasscache-demo-", ignore_cleanup_errors=True
    ) as directory:
        yield Path(directory)


@contextmanager
def servers(options: Options, directory: Path) -> Iterator[Stack]:
    """Run the requested servers; without any, only yield the others' addresses."""
    if not options.stack:
        port = _PORT if options.port is None else options.port
        yield Stack(metrics_port=port, redis_url=options.redis_url)
        return
    with stack(directory / "stack", options.port or free_port()) as made:
        console = err if options.as_json else out
        listed = table("server", "where")
        for place in made.places:
            listed.add_row(place.name, place.where)
        console.print(listed, highlight=False)
        for line in made.missing:
            console.print(line, style="yellow", highlight=False)
        yield made


def show_alerts(options: Options, around: Stack, board: Board) -> None:
    """Show arriving alerts: on the board, or as lines."""
    loop = asyncio.get_running_loop()

    def show(status: str, name: str, summary: str) -> None:
        text = f"{status}: {name}: {summary}"
        if options.live:
            loop.call_soon_threadsafe(board.note, text)
        else:
            err.print(text, highlight=False)

    around.notify = show


@asynccontextmanager
async def spans() -> AsyncIterator[None]:
    """Export spans, if the environment names an endpoint."""
    if not any(os.environ.get(f"OTEL_EXPORTER_OTLP_{of}ENDPOINT") for of in ("", "TRACES_")):
        yield
        return
    export = telemetry().configure("glasscache-demo")
    try:
        yield
    finally:
        await asyncio.to_thread(export.shutdown)


@asynccontextmanager
async def metrics_port(port: int, address: str = "127.0.0.1") -> AsyncIterator[str]:
    """Serve `/metrics`, on another port if that one is taken; yield the URL."""
    serve: Callable[[int, str], tuple[int, Callable[[], None]]] = telemetry().serve_metrics
    try:
        port, stop = serve(port, address)
    except OSError as error:
        taken, (port, stop) = port, serve(0, address)
        err.print(
            f"port {taken} cannot be used ({error.strerror}): /metrics is on port {port}",
            highlight=False,
        )
    try:
        yield f"http://{address}:{port}/metrics"
    finally:
        await asyncio.to_thread(stop)


def places_of(settings: Settings, metrics: str, around: Stack) -> list[Place]:
    """Return all servers and data stores with their addresses."""
    redis, chroma = settings.redis_url, settings.chroma_url
    places = [Place("metrics", metrics), *around.places]
    if redis and not around.places:
        places.append(Place("redis", without_secrets(redis)))
    if chroma:
        places.append(Place("chroma", without_secrets(chroma)))
    if not redis or not chroma:
        kept = "SQLite and Chroma" if not redis and not chroma else "Chroma" if redis else "SQLite"
        places.append(Place(f"embedded {kept}", str(settings.dir)))
    return places
