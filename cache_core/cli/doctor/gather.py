"""Facts for the checks, gathered from the running system as the cache would use it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from cache_core.backends.base import Embedder
from cache_core.backends.embedder.choosing import chosen, shared_embedder
from cache_core.backends.redis.examine import ServerFacts, answers_otherwise, examine
from cache_core.cli.doctor.monitoring import (
    Prometheus,
    ask_alertmanager,
    ask_grafana,
    ask_prometheus,
)
from cache_core.cli.doctor.parts import Disk, Semantic
from cache_core.config.environment import origin
from cache_core.config.settings import Settings, misspelt_variables, refused_variables
from cache_core.config.tuning import Tuning
from cache_core.model.exceptions import BackendError, ConfigurationError
from cache_core.multilevel_cache import MultiLevelCache
from cache_core.observability.decisions import Decision
from cache_core.observability.fleet import InForce
from cache_core.runtime.assembly import redis_client
from cache_core.runtime.directories import usable_directory
from cache_core.runtime.problems import Problem

_EMBEDDINGS = 3
_MODEL_SECONDS = 120.0

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Addresses:
    """Servers of the monitoring; `None` for one that is not to be asked.

    Attributes:
        prometheus, alertmanager, grafana: URLs.
        grafana_token: Bearer token for Grafana.
    """

    prometheus: str | None = None
    alertmanager: str | None = None
    grafana: str | None = None
    grafana_token: str | None = None


@dataclass(frozen=True, slots=True)
class Stored:
    """State of the cache's store.

    Attributes:
        error: Reason why it is not reached; empty if it is.
        in_force: Tuning and replicas.
        decisions: The decision log, oldest first.
        index: Backend of the shared answers; empty if unknown.
        problems: Backends that do not work.
        bytes: Size of the embedded store's files.
    """

    error: str
    in_force: InForce
    decisions: Sequence[Decision] = ()
    index: str = ""
    problems: tuple[Problem, ...] = ()
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class Facts:
    """Facts for all checks.

    Attributes:
        settings: Those of the cache.
        namespace: Its namespace.
        rejected: A line for each invalid variable.
        misspelt: Variables that are not read, with the name that was probably meant.
        disk: Its data directory.
        servers: Its Redis; `None` with the embedded store.
        stored: State of its store.
        semantic: L2's parts.
        prometheus, alertmanager, dashboards: Answers of the monitoring.
    """

    settings: Settings
    namespace: str
    rejected: Sequence[str]
    misspelt: Mapping[str, str]
    disk: Disk
    servers: Sequence[ServerFacts] | BackendError | None
    stored: Stored
    semantic: Semantic
    prometheus: Prometheus | BackendError | None = None
    alertmanager: str | BackendError | None = None
    dashboards: Sequence[str] | BackendError | None = None


async def gather(settings: Settings, namespace: str, addresses: Addresses) -> Facts:
    """Return the facts of the system that a cache with *settings* would use."""
    disk = _disk(settings.dir)
    servers = await _servers(settings) if settings.redis_url else None
    model = await _model(settings) if "l2" in settings.tiers else Semantic()
    if isinstance(servers, BackendError):
        # Not waited for again: the cache would fail in the same way.
        stored = Stored("Redis is not reachable", InForce(Tuning(), {}))
    else:
        stored = await _stored(settings, namespace, model)
    version = servers[0].info.get("redis_version", "") if isinstance(servers, list) else ""
    semantic = Semantic(
        {problem.backend: problem for problem in stored.problems},
        stored.index,
        len(stored.in_force.replicas),
        str(version),
        model.model_error,
        model.embedding,
        model.embedding_error,
        model.verified,
    )
    token = addresses.grafana_token
    return Facts(
        settings, namespace, refused_variables(), misspelt_variables(), disk, servers, stored,
        semantic,
        await _asked(addresses.prometheus, lambda url: ask_prometheus(url, namespace)),
        await _asked(addresses.alertmanager, ask_alertmanager),
        await _asked(addresses.grafana, lambda url: ask_grafana(url, token)),
    )  # fmt: skip


async def _asked(url: str | None, ask: Callable[[str], Answer]) -> Answer | BackendError | None:
    if not url:
        return None
    try:
        return await asyncio.to_thread(ask, url)
    except BackendError as error:
        return error


def _disk(path: Path) -> Disk:
    new = not os.path.exists(path)  # noqa: PTH110 - a Path's raises in an unreadable directory
    if usable_directory(path) == path:
        return Disk(path, "", shutil.disk_usage(path).free, new)
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            return Disk(path, "it belongs to another user, or has no file locks")
    except OSError as error:
        return Disk(path, error.strerror or type(error).__name__)


async def _servers(settings: Settings) -> list[ServerFacts] | BackendError:
    client, url = redis_client(settings, None), settings.redis_url or ""
    where = origin("redis_url", url).replace("redis_url=", "--redis-url")
    try:
        return await examine(client, f"{settings.prefix}:doctor-{os.urandom(8).hex()}", where)
    except BackendError as error:
        silent = error.error_type in {"TimeoutError", "ConnectionError"}
        if silent and await answers_otherwise(url):
            how = "without TLS" if url.startswith("rediss") else "with TLS only"
            found = BackendError("backend_error", "TLS", f"the server answers {how}")
            found.backend, found.where = error.backend, error.where
            return found
        return error
    finally:
        with contextlib.suppress(Exception):
            await client.aclose()


async def _model(settings: Settings) -> Semantic:
    """Return the state of the embedding model alone; it is loaded as the cache does it."""
    endpoint = settings.endpoint
    try:
        kind = chosen(settings.embedding_model, settings.embedding_backend, endpoint)
        model = shared_embedder(
            settings.embedding_model, settings.embedding_backend, settings.torch_threads, endpoint
        )
        model.start()
        async with asyncio.timeout(_MODEL_SECONDS):
            await model.wait_ready()
    except TimeoutError:
        return Semantic(model_error=f"it was not loaded within {_MODEL_SECONDS:.0f} s")
    except ImportError as error:
        install = "pip install 'glasscache[semantic]'"
        return Semantic(model_error=f"{error.name or error} is not installed: {install}")
    except ConfigurationError as error:
        return Semantic(model_error=str(error))
    verified = {
        "onnx": "weights, vocabulary and graph have the expected digests",
        "http": "at an endpoint, known by its URL and name",
    }.get(kind, "its files are known by their digest")
    try:
        return Semantic(embedding=await _embedding_seconds(model), verified=verified)
    except BackendError as error:
        error.backend = error.backend or "embedder"
        return Semantic(embedding_error=error)


async def _embedding_seconds(model: Embedder) -> float:
    """Return the median time of an embedding; the first one, which warms up, is not counted."""
    took = []
    for number in range(_EMBEDDINGS + 1):
        start = time.perf_counter()
        await model.embed(f"How long does delivery of order number {number} take?")
        took.append(time.perf_counter() - start)
    return statistics.median(took[1:])


async def _stored(settings: Settings, namespace: str, model: Semantic) -> Stored:
    """Return what the store knows; without a loadable model, L2 is left out."""
    if model.model_error:
        settings = settings.model_copy(update={"tiers": settings.tiers - {"l2"}})
    settings = settings.model_copy(update={"heartbeat": False})
    cache = MultiLevelCache(settings=settings, namespace=namespace, instruments=())
    try:
        await cache.initialize()
        if not cache.is_open:
            return Stored(cache.why_unavailable, InForce(Tuning(), {}))
        if not model.model_error and not model.embedding_error:
            # an index that cannot be used is among the problems
            with contextlib.suppress(ConfigurationError):
                await cache.ready()
        state = cache.state
        backends = state.backends if state is not None else {}
        return Stored(
            "",
            await cache.operator.in_force(),
            await cache.decisions(settings.decisions or 1),
            next((name for name in ("vectors", "chroma") if name in backends), ""),
            tuple(cache.problems),
            sum(file.stat().st_size for file in _files(settings)),
        )
    except (BackendError, ConfigurationError) as error:
        return Stored(str(error), InForce(Tuning(), {}))
    finally:
        await cache.close()


def _files(settings: Settings) -> Iterator[Path]:
    """Yield the files of the embedded store; none in a directory that cannot be read."""
    if not settings.redis_url:
        with contextlib.suppress(OSError):
            yield from settings.dir.glob("glasscache.db*")
