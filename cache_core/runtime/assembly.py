"""Assembly of a cache's parts from its settings: store, secret, tiers, logs."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import logging
import secrets
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cache_core.backends.approver.base import Approve, Approver
from cache_core.backends.base import (
    Embedder,
    KeyValueStore,
    Remembering,
    Values,
    WrapIndex,
    WrapStore,
    Write,
)
from cache_core.backends.breaker import Breaker
from cache_core.backends.clock import Clock
from cache_core.backends.sqlite.store import EmbeddedStore
from cache_core.config.environment import origin
from cache_core.config.settings import Settings
from cache_core.model.exceptions import BackendError, ConfigurationError
from cache_core.model.keys import PREFIX, Keys
from cache_core.model.sealing import make_sealer
from cache_core.model.urls import without_secrets
from cache_core.model.values import Level
from cache_core.observability.decisions import DecisionLog
from cache_core.observability.fleet import Fleet
from cache_core.observability.history import History
from cache_core.observability.instruments import Instrument
from cache_core.observability.verdicts import Verify
from cache_core.operations.invalidate.outbox import StoreName
from cache_core.operations.replica import Replica
from cache_core.policy.cacheable import Cacheable
from cache_core.policy.evidence import Evidence
from cache_core.runtime.directories import memory_of, usable_directory
from cache_core.tiers import guards
from cache_core.tiers.base import Tier
from cache_core.tiers.denylist import Denylist
from cache_core.tiers.journal import Journal
from cache_core.tiers.keyed import KeyedTier

if TYPE_CHECKING:  # it needs the `semantic` extra
    from cache_core.runtime.semantic import SemanticParts

log = logging.getLogger("glasscache")

_EXTRA = {"chromadb", "numpy", "filelock"}
OF_CHROMA = {"chromadb", "filelock"}
"""Modules that only an index on Chroma needs."""


@dataclass(frozen=True, slots=True)
class Given:
    """Parts that the application gave, used instead of the cache's own.

    Attributes:
        redis_pool: Pool or client of a keyed store.
        embedder: Embedder of L2.
        clock: Time of the embedded store.
        instruments: Record the operations.
        verify: Checks a share of the hits of L2.
        cacheable: Says which answers are stored.
        approve: Approves answers in doubt.
        wrap_store, wrap_index: Return a wrapper of the store or the index.
        owns_pool: Whether *redis_pool* is closed with the cache.
    """

    redis_pool: Any = None
    embedder: Embedder | None = None
    clock: Clock | None = None
    instruments: Sequence[Instrument] | None = None
    verify: Verify | None = None
    cacheable: Cacheable | None = None
    approve: Approve | None = None
    wrap_store: WrapStore | None = None
    wrap_index: WrapIndex | None = None
    owns_pool: bool = False

    def again(self) -> Given:
        """Return a copy for another engine, with its own connections."""
        if self.redis_pool is None:
            return self
        from cache_core.backends.redis.client import pool_like

        pool = pool_like(self.redis_pool)
        return replace(self, redis_pool=pool, owns_pool=pool is not self.redis_pool)


@dataclass(frozen=True, slots=True)
class Secret:
    """Secret of the key digests, with its record in the store, if it is stored there."""

    text: str
    record: Write | None

    @property
    def key(self) -> bytes:
        """Key of the digests, 32 bytes."""
        return hashlib.blake2b(self.text.encode(), digest_size=32).digest()

    async def keep(self, store: Values) -> bool:
        """Write the record again if the store lost it; return whether the store has this secret.

        Raises:
            BackendError: If the store is unavailable.
        """
        return self.record is None or await _in_force(store, self.record) == self.text


@dataclass(slots=True)
class Parts:
    """Parts of an open cache.

    Attributes:
        store: The keyed store.
        secret: Secret of the digests.
        keys: Digests and names.
        tiers: The tiers that are on.
        decisions: The decision log.
        journal: Journal of the invalidations that puts are checked against.
        fleet: The replicas that share the store.
        history: What all replicas counted, by hour and day.
        semantic: The parts of L2, if it is on.
        missing: Backends that are wanted but unavailable: an extra is not installed, or broken.
        off: Reason why they are unavailable, with the remedy.
        denylist: Denylist of entries whose invalidation is pending.
        evidence: What was learned of answers.
        approver: Approves answers in doubt; `None` for none.
    """

    store: KeyValueStore
    secret: Secret
    keys: Keys
    tiers: Mapping[Level, Tier]
    decisions: DecisionLog
    journal: Journal
    fleet: Fleet
    history: History
    semantic: SemanticParts | None = None
    missing: tuple[str, ...] = ()
    off: str = ""
    denylist: Denylist = field(default_factory=Denylist)
    evidence: Evidence = field(default_factory=Evidence)
    approver: Approver | None = None

    @property
    def breakers(self) -> dict[str, Breaker]:
        """The breaker of each backend."""
        found = {self.store.breaker.backend: self.store.breaker}
        if self.semantic is not None:
            found.update(self.semantic.breakers)
        if self.approver is not None:
            found[self.approver.breaker.backend] = self.approver.breaker
        return found

    def abandon(self) -> None:
        """Release the backends after the event loop has ended."""
        if self.semantic is not None:
            self.semantic.index.abandon()
        self.store.abandon()


async def suppressed(work: Callable[[], Awaitable[None]]) -> None:
    """Run *work*, ignoring an unavailable backend so that the other parts are closed, too."""
    with contextlib.suppress(BackendError):
        await work()


def make_store(settings: Settings, given: Given) -> KeyValueStore:
    """Return the keyed store, on a given pool, a Redis URL, or a file."""
    store = _make_store(settings, given.redis_pool, given.clock)
    return store if given.wrap_store is None else given.wrap_store(store)


def _make_store(settings: Settings, redis_pool: Any, clock: Clock | None) -> KeyValueStore:
    breaker = {
        "breaker_failures": settings.breaker_failures,
        "breaker_probe": settings.breaker_probe,
    }
    if redis_pool is not None or settings.redis_url:
        from cache_core.backends.redis.foreign import LARGEST_BYTES
        from cache_core.backends.redis.store import RedisStore

        redis_store = RedisStore(
            redis_client(settings, redis_pool),
            read_timeout=settings.exact_budget,
            write_timeout=settings.put_budget / 2,
            owned=redis_pool is None,
            # JSON in ASCII takes up to six times as many bytes.
            largest_bytes=max(LARGEST_BYTES, 8 * settings.max_value_bytes),
            **breaker,  # type: ignore[arg-type]
        )
        redis_store.breaker.where = "redis_pool="
        if redis_pool is None:
            redis_store.breaker.where = origin("redis_url", settings.redis_url)
        return redis_store
    store = EmbeddedStore(
        usable_directory(settings.dir),
        memory=memory_of(settings.dir),
        clock=clock,
        max_entries=settings.max_entries,
        max_bytes=settings.max_bytes,
        **breaker,  # type: ignore[arg-type]
    )
    store.breaker.where = "CACHE_DIR"
    return store


def check_redis_pool(given: Any) -> None:
    """Raise `TypeError` or `ConfigurationError` for an unusable *redis_pool*."""
    from cache_core.backends.redis.client import client_of

    client_of(given)


def redis_client(settings: Settings, redis_pool: Any) -> Any:
    """Return a client of the given pool, else of the URL in the settings."""
    from cache_core.backends.redis.client import client_of, connect, refusing

    if redis_pool is not None:
        return client_of(redis_pool)
    url = settings.redis_url or ""
    try:
        return connect(url, timeout=settings.put_budget / 2)
    # For a bad URL redis-py raises any error of its parsers and connection classes.
    except Exception as error:  # noqa: BLE001
        return refusing(f"{origin('redis_url', url)} {without_secrets(url)} is refused: {error}")


def name_of_store(settings: Settings, redis_pool: Any, secret: Secret | None = None) -> StoreName:
    """Return the name of the keyed store of *settings*; with its *secret* once it was reached."""
    if redis_pool is not None:
        pool = getattr(redis_pool, "connection_pool", redis_pool)
        given = getattr(pool, "connection_kwargs", {})
        where = [str(given.get(name, "")) for name in ("host", "port", "path", "db")]
        where.append(str(getattr(pool, "service_name", "")))
        where += sorted(f"{of.host}:{of.port}" for of in getattr(pool, "startup_nodes", ()))
    elif settings.redis_url:
        # Split by hand, because an invalid URL has a name, too.
        place, _, _ = settings.redis_url.partition("://")[2].rpartition("@")[2].partition("?")
        host, slash, path = place.partition("/")
        where = [host, (slash + path).rstrip("/")]
    else:
        where = [str(settings.dir.absolute())]
    if settings.prefix != PREFIX:
        where.append(settings.prefix)
    kept = secret.text if secret is not None and secret.record is not None else ""
    return StoreName(_name("\0".join(where)), _name(kept) if kept else "")


def _name(text: str) -> str:
    data = text.encode("utf-8", "surrogatepass")
    return hashlib.blake2b(data, digest_size=16, person=b"glasscache-store").hexdigest()


async def find_secret(settings: Settings, store: Values, namespace: str) -> Secret:
    """Return the secret of the key digests: `CACHE_KEY`, or the one in the store.

    Raises:
        BackendError: If the store is needed and unavailable.
    """
    if settings.key:
        return Secret(settings.key, None)
    name = f"{settings.prefix}:{namespace}:{{secret}}"
    kept = await _in_force(store, Write(name, secrets.token_hex(32), None))
    return Secret(kept, Write(name, kept, None))


async def _in_force(store: Values, record: Write) -> str:
    """Return what is stored for a record, which is stored if there is nothing.

    Read first: a Redis that is full or read-only still serves its answers.
    """
    (kept,) = await store.read([record.key])
    return await store.write_new(record) if kept is None else kept


async def assemble(
    replica: Replica,
    namespace: str,
    store: KeyValueStore,
    given: Given,
    closing: AsyncExitStack,
) -> Parts:
    """Return the open parts of a cache.

    Args:
        replica: The cache.
        namespace: The cache's namespace.
        store: The store, open or not reached yet.
        given: Parts that are not made here.
        closing: Closes the parts, the last one first.

    Raises:
        BackendError: If the store is unavailable.
    """
    settings = replica.settings
    secret = await find_secret(settings, store, namespace)
    keys = Keys(namespace, secret.key, make_sealer(settings.encryption_keys), settings.prefix)
    denylist = Denylist()
    tiers: dict[Level, KeyedTier] = {}
    tier = partial(KeyedTier, store=store, keys=keys, denylist=denylist)
    if "l1" in settings.tiers:
        tiers["l1"] = tier("l1", "response", ("intent", "cost_usd"), marks=True)
    if "l3" in settings.tiers:
        tiers["l3"] = tier("l3", "intent", (), marks=False, beside=True)
    if "l4" in settings.tiers:
        tiers["l4"] = tier("l4", "rag_results", ("intent",), marks=False, beside=True)
    decisions = DecisionLog(store, keys.own("decisions"), settings.decisions, keys.sealer)
    closing.push_async_callback(suppressed, decisions.flush)
    journal = Journal(store, keys, denylist)
    await journal.open()
    journal.when_forgotten += [keys.forget, guards.forget, decisions.recent.clear]
    journal.when_forgotten.extend(keyed.decoder.forget for keyed in tiers.values())
    fleet = Fleet(store, keys, replica.name)
    history = History(store, keys)
    parts = Parts(store, secret, keys, tiers, decisions, journal, fleet, history, denylist=denylist)
    if "l2" not in settings.tiers:
        return parts
    try:
        parts.semantic = await _semantic(parts, replica, given, closing)
    except BackendError:
        raise
    # A broken extra is treated as a missing one.
    except Exception as error:
        log.debug("L2 is off", exc_info=True)
        parts.off = _why_off(error)
        parts.missing = ("vectors" if settings.vectors == "redis" else "chroma",)
        log.error("L2 is off: %s", parts.off)
        return parts
    parts.tiers = {**tiers, "l2": parts.semantic.tier}
    parts.approver = _approver(settings, given)
    if isinstance(parts.semantic.embedder, Remembering):
        journal.when_forgotten.append(parts.semantic.embedder.forget)
    return parts


def _approver(settings: Settings, given: Given) -> Approver | None:
    """Return what approves answers in doubt, if there is such a thing."""
    if given.approve is None:
        return None
    return Approver(
        given.approve, seconds=settings.approve_budget, failures=settings.breaker_failures
    )


def index_directory(settings: Settings, store: KeyValueStore) -> Path | None:
    """Return the directory of the embedded index: the store's, if it is embedded.

    `None` if none is writable.
    """
    if isinstance(store, EmbeddedStore):
        return store.directory
    return usable_directory(settings.dir)


async def _semantic(
    parts: Parts, replica: Replica, given: Given, closing: AsyncExitStack
) -> SemanticParts:
    """Return the open parts of L2; the arguments are those of `assemble_semantic`.

    Raises:
        Exception: Any error of a missing or broken extra.
    """
    check_installed(_EXTRA - OF_CHROMA)
    from cache_core.runtime.semantic import assemble_semantic

    return await assemble_semantic(parts, replica, given, closing)


def check_installed(modules: Iterable[str]) -> None:
    """Raise `ModuleNotFoundError` for the first of *modules* that is not installed."""
    for name in sorted(modules):
        if not _is_installed(name):
            raise ModuleNotFoundError(name=name)


def _is_installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        # An application's own stand-in for a module may have no specification.
        return name in sys.modules


def _why_off(error: Exception) -> str:
    """Return the reason why L2 is unavailable, with the remedy."""
    if isinstance(error, ConfigurationError):
        return str(error)
    if isinstance(error, ModuleNotFoundError) and error.name in _EXTRA:
        return (
            f"{error.name} is not installed. pip install 'glasscache[semantic]', or set "
            "CACHE_TIERS=l1,l3,l4 to do without L2"
        )
    why = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    repair = "Repair what glasscache[semantic] installs (pip check)"
    if isinstance(error, ValueError):
        repair = (
            "When it is imported, chromadb reads its settings from .env in the working directory "
            "and from variables such as IS_PERSISTENT: correct what cannot be read"
        )
    return f"{why}. {repair}, or set CACHE_TIERS=l1,l3,l4 to do without L2"
