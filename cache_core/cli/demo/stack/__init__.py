"""Servers around the demo, as plain processes: Redis, its exporter, Prometheus, Alertmanager.

Each listens on a free port of the loopback address and writes into the given directory.
None outlives the process that started it, even if that is killed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from cache_core.cli.demo.board import Place
from cache_core.cli.demo.stack.processes import Servers, free_port, url_of
from cache_core.cli.demo.stack.receiver import Stack, receiver
from cache_core.cli.demo.stack.servers import (
    ALERTMANAGER,
    EXPORTER,
    PARTS,
    PROMETHEUS,
    REDIS,
    for_one_receiver,
    prometheus_config,
    start_alertmanager,
    start_exporter,
    start_prometheus,
    start_redis,
)
from cache_core.cli.shipped import shipped

__all__ = ["Stack", "for_one_receiver", "free_port", "stack"]

_SCRAPE = "5s"


@contextmanager
def stack(directory: Path, metrics_port: int, scrape: str = _SCRAPE) -> Iterator[Stack]:
    """Run the installed servers; they end with the block, or with this process.

    Args:
        directory: Directory for data, configurations and logs.
        metrics_port: Port of the demo's `/metrics`.
        scrape: Interval of Prometheus' scrapes and rule evaluations.

    Raises:
        ConfigurationError: If the rules are missing, or a server does not start.
    """
    shipped("alerts")
    directory.mkdir(parents=True, exist_ok=True)
    made = Stack(metrics_port, missing=[part.missing for part in PARTS if not part.program])
    with ExitStack() as running:
        servers = running.enter_context(Servers.guarded(directory))
        exporter = alertmanager = None
        if REDIS.program:
            port = start_redis(servers, REDIS.program, directory)
            made.redis_url = f"redis://127.0.0.1:{port}/0"
            made.places.append(Place(REDIS.name, made.redis_url))
            if EXPORTER.program:
                exporter = start_exporter(servers, EXPORTER.program, made.redis_url)
                made.places.append(Place(EXPORTER.name, url_of(exporter, "/metrics")))
        if ALERTMANAGER.program:
            heard = running.enter_context(receiver(made))
            alertmanager = start_alertmanager(servers, ALERTMANAGER.program, directory, heard)
            made.places.append(Place(ALERTMANAGER.name, url_of(alertmanager)))
        if PROMETHEUS.program:
            targets = {"agent": metrics_port} | ({"redis": exporter} if exporter else {})
            config = prometheus_config(targets, alertmanager, scrape)
            port = start_prometheus(servers, PROMETHEUS.program, directory, config)
            made.places.append(Place(PROMETHEUS.name, url_of(port)))
        yield made
