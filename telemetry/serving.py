"""Content of a scrape, and a small server of `/metrics` for processes without one."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path

from prometheus_client import CollectorRegistry, start_http_server, values
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from cache_core.model.exceptions import ConfigurationError

from .ended import locked, merge
from .registry import current_registry

_DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"


def scraped_registry() -> CollectorRegistry:
    """Return the registry that a scrape of this process shows.

    It is `current_registry()`; or, in Prometheus multiprocess mode, the sum over all workers that
    share `PROMETHEUS_MULTIPROC_DIR`, without exemplars, which that mode lacks.

    Raises:
        ConfigurationError: If multiprocess mode is requested in a way that cannot work.
    """
    directory = multiprocess_directory()
    if directory is None:
        return current_registry()
    registry = CollectorRegistry()
    registry.register(_Workers(directory))
    return registry


def multiprocess_directory() -> Path | None:
    """Return the directory that worker processes share; `None` outside multiprocess mode.

    Raises:
        ConfigurationError: If this process does not write there, or cannot.
    """
    given = os.environ.get(_DIRECTORY)
    if not given:
        return None
    # the client decides once, on import, where values are kept
    if not getattr(values.ValueClass, "_multiprocess", False):
        raise ConfigurationError(
            f"{_DIRECTORY} was set after prometheus_client had been imported, so this process does "
            "not write there: set it in the environment that the workers are started with"
        )
    if not os.access(given, os.W_OK | os.X_OK):
        raise ConfigurationError(
            f"{_DIRECTORY}={given!r} is no directory that this process may write to: make an empty "
            "one before the workers start, on the machine or in the container that they share"
        )
    return Path(given)


class _Workers:
    """Collector of the metrics of all workers that write to *directory*."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def collect(self) -> Iterable[Family]:
        """Return the sum over all workers, without the live gauges of those that have ended.

        What ended workers counted is merged into one file first, so that a scrape does not get
        slower with every worker that a server recycles.
        """
        with locked(self._directory) as alone:
            self._bury()
            if alone:
                merge(self._directory, _is_alive)
            every = MultiProcessCollector(None, str(self._directory))  # type: ignore[no-untyped-call]
            found: Iterable[Family] = every.collect()  # type: ignore[no-untyped-call]
            return found

    def _bury(self) -> None:
        # gunicorn can call mark_process_dead() from its child_exit hook; uvicorn has no such hook.
        for file in self._directory.glob("gauge_live*_*.db"):
            worker = file.stem.rpartition("_")[2]
            if worker.isdigit() and not _is_alive(int(worker)):
                with contextlib.suppress(FileNotFoundError):
                    mark_process_dead(worker, str(self._directory))  # type: ignore[no-untyped-call]


def _is_alive(process: int) -> bool:
    if os.name != "posix":
        return True  # signal 0 is no question elsewhere
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def serve_metrics(
    port: int = 9464, address: str = "127.0.0.1", registry: CollectorRegistry | None = None
) -> tuple[int, Callable[[], None]]:
    """Serve the metrics on `http://address:port/metrics`.

    Args:
        port: The port; 0 for any free one.
        address: The address to listen on.
        registry: The registry to serve; default: that of `scraped_registry`.

    Returns:
        The port, and a function that stops the server.

    Raises:
        OSError: If the port is taken.
        ConfigurationError: If Prometheus multiprocess mode is requested and cannot work.
    """
    shown = scraped_registry() if registry is None else registry
    server, thread = start_http_server(port, address, shown)

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join(timeout=5)

    return server.server_port, stop
