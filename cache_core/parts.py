"""The parts of a cache, made from its settings: which store, which index, which tiers are on."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import logging
import secrets
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from cache_core import guards
from cache_core.breaker import Breaker
from cache_core.clock import Clock
from cache_core.decisions import DecisionLog
from cache_core.embedder import Embedder
from cache_core.exceptions import BackendError
from cache_core.instrumentation import Instruments
from cache_core.keys import PREFIX, Keys
from cache_core.models import Level
from cache_core.recent import RecentInvalidations
from cache_core.sealing import make_sealer
from cache_core.settings import Settings
from cache_core.stores.base import KeyValueStore, Write
from cache_core.stores.embedded import EmbeddedStore
from cache_core.stores.vectors import WrapIndex
from cache_core.tiers.base import Tier
from cache_core.tiers.keyed import KeyedTier
from cache_core.unconfirmed import StoreName
from cache_core.vetoes import Vetoes

if TYPE_CHECKING:  # it needs the `semantic` extra
    from cache_core.semantic_parts import SemanticParts

log = logging.getLogger("glasscache")


@dataclass(frozen=True, slots=True)
class Secret:
    """The secret of the key digests, and the record of it in the store, if that is where it is."""

    text: str
    record: Write | None

    @property
    def key(self) -> bytes:
        """The key of the digests, 32 bytes."""
        return hashlib.blake2b(self.text.encode(), digest_size=32).digest()

    async def keep(self, store: KeyValueStore) -> bool:
        """Write the record again if the store lost it; return whether all replicas have this one.

        Raises:
            BackendError: If the store is away.
        """
        return self.record is None or await store.write_new(self.record) == self.text


@dataclass(slots=True)
class Parts:
    """Everything a cache is made of.

    Attributes:
        store: The keyed store.
        secret: Of the digests.
        keys: Digests and names.
        tiers: Those that are on.
        decisions: The decision log.
        recent: The invalidations that puts are held against.
        semantic: The parts of L2, when it is on.
        missing: Backends that are wanted but cannot be had: an extra is not installed.
        vetoes: What must not be served while its invalidation is pending.
    """

    store: KeyValueStore
    secret: Secret
    keys: Keys
    tiers: Mapping[Level, Tier]
    decisions: DecisionLog
    recent: RecentInvalidations
    semantic: SemanticParts | None = None
    missing: tuple[str, ...] = ()
    vetoes: Vetoes = field(default_factory=Vetoes)

    @property
    def breakers(self) -> dict[str, Breaker]:
        """The breaker of each backend."""
        found = {self.store.breaker.backend: self.store.breaker}
        return found if self.semantic is None else {**found, **self.semantic.breakers}

    def abandon(self) -> None:
        """Give back what can be given back after the event loop has ended."""
        if self.semantic is not None:
            self.semantic.index.abandon()
        self.store.abandon()

    async def close(self) -> None:
        """Write out what waits and close everything."""
        # Even where one is cancelled, as by the end of the loop, the others have their turn.
        async with contextlib.AsyncExitStack() as last_first:
            last_first.push_async_callback(self.store.close)
            last_first.push_async_callback(_suppressed, self.decisions.flush)
            if self.semantic is not None:
                last_first.push_async_callback(self.semantic.index.close)
                last_first.push_async_callback(_suppressed, self.semantic.tier.tend)


async def _suppressed(work: Callable[[], Awaitable[None]]) -> None:
    with contextlib.suppress(BackendError):
        await work()


def make_store(settings: Settings, redis_pool: Any, clock: Clock | None) -> KeyValueStore:
    """Return the keyed store of *settings*: a given pool, a Redis URL, or a file."""
    breaker = {
        "breaker_failures": settings.breaker_failures,
        "breaker_probe": settings.breaker_probe,
    }
    if redis_pool is not None or settings.redis_url:
        from redis.asyncio import Redis

        from cache_core.stores.redis import RedisStore
        from cache_core.stores.redis_client import connect
        from cache_core.stores.redis_foreign import LARGEST_BYTES

        owned = redis_pool is None
        client = (
            connect(settings.redis_url or "", timeout=settings.put_budget / 2)
            if owned
            else Redis(connection_pool=redis_pool)
        )
        return RedisStore(
            client,
            read_timeout=settings.exact_budget,
            write_timeout=settings.put_budget / 2,
            owned=owned,
            # JSON in ASCII takes up to six times as many bytes.
            largest_bytes=max(LARGEST_BYTES, 8 * settings.max_value_bytes),
            **breaker,  # type: ignore[arg-type]
        )
    return EmbeddedStore(
        usable_directory(settings.dir),
        clock=clock,
        max_entries=settings.max_entries,
        max_bytes=settings.max_bytes,
        **breaker,  # type: ignore[arg-type]
    )


def name_of_store(settings: Settings, redis_pool: Any, secret: Secret | None = None) -> StoreName:
    """Return the name of the keyed store of *settings*; with its *secret* once it was reached."""
    if redis_pool is not None:
        given = getattr(redis_pool, "connection_kwargs", {})
        where = [str(given.get(name, "")) for name in ("host", "port", "path", "db")]
        where.append(str(getattr(redis_pool, "service_name", "")))
    elif settings.redis_url:
        url = urlsplit(settings.redis_url)
        where = [url.netloc.rpartition("@")[2], url.path.rstrip("/")]
    else:
        where = [str(settings.dir.absolute())]
    kept = secret.text if secret is not None and secret.record is not None else ""
    return StoreName(_name("\0".join(where)), _name(kept) if kept else "")


def _name(text: str) -> str:
    data = text.encode("utf-8", "surrogatepass")
    return hashlib.blake2b(data, digest_size=16, person=b"glasscache-store").hexdigest()


def usable_directory(wanted: Path) -> Path:
    """Return *wanted*, or a temporary directory when it cannot be written to."""
    try:
        wanted.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=wanted):
            return wanted
    except OSError as error:
        instead = Path(tempfile.mkdtemp(prefix="glasscache-"))
        log.error(
            "the data directory %s cannot be used (%s). This process caches in %s, which nobody "
            "else sees; set CACHE_DIR to a directory that you may write to",
            wanted, error, instead,
        )  # fmt: skip
        return instead


async def find_secret(settings: Settings, store: KeyValueStore, namespace: str) -> Secret:
    """Return the secret of the key digests: `CACHE_KEY`, or the one that the store keeps.

    Raises:
        BackendError: If the store has to be asked and cannot answer.
    """
    if settings.key:
        return Secret(settings.key, None)
    name = f"{PREFIX}:{namespace}:{{secret}}"
    kept = await store.write_new(Write(name, secrets.token_hex(32), None))
    return Secret(kept, Write(name, kept, None))


async def assemble(
    settings: Settings,
    namespace: str,
    store: KeyValueStore,
    instruments: Instruments,
    replica: str,
    embedding_price: Callable[[], float],
    embedder: Embedder | None = None,
    wrap_index: WrapIndex | None = None,
) -> Parts:
    """Return the open parts of a cache.

    Args:
        settings: Where the parts live.
        namespace: Of the cache.
        store: Open, or trying to be.
        instruments: Told of embeddings and searches.
        replica: Name of this process.
        embedding_price: Returns what one embedding costs, in USD.
        embedder: Instead of the one that the settings name.
        wrap_index: Returns what to use in the place of the vector index.

    Raises:
        BackendError: If the store cannot be asked yet.
    """
    secret = await find_secret(settings, store, namespace)
    keys = Keys(namespace, secret.key, make_sealer(settings))
    vetoes = Vetoes()
    tiers: dict[Level, KeyedTier] = {}
    if "l1" in settings.tiers:
        tiers["l1"] = KeyedTier("l1", "response", ("intent", "cost_usd"), True, store, keys, vetoes)
    if "l3" in settings.tiers:
        tiers["l3"] = KeyedTier("l3", "intent", (), False, store, keys, vetoes)
    if "l4" in settings.tiers:
        tiers["l4"] = KeyedTier("l4", "rag_results", ("intent",), False, store, keys, vetoes)
    decisions = DecisionLog(store, keys.own("decisions"), settings.decisions, keys.sealer)
    recent = RecentInvalidations(store, keys, vetoes)
    await recent.open()
    recent.when_forgotten += [keys.forget, guards.forget, decisions.recent.clear]
    recent.when_forgotten.extend(tier.decoder.forget for tier in tiers.values())
    parts = Parts(store, secret, keys, tiers, decisions, recent, vetoes=vetoes)
    if "l2" not in settings.tiers:
        return parts
    lacking = _lacking(embedder)
    if lacking:
        log.warning(
            "L2 is off: %s not installed. pip install 'glasscache[semantic]', or set "
            "CACHE_TIERS=l1,l3,l4 to say that you don't want it",
            " and ".join(lacking),
        )
        parts.missing = ("chroma",)
        return parts
    try:
        from cache_core.semantic_parts import assemble_semantic
    except Exception as error:  # noqa: BLE001 - an extra that is broken is as good as missing
        log.error("L2 is off: %s: %s", type(error).__name__, error)
        parts.missing = ("chroma",)
        return parts
    directory = None if settings.chroma_url else _index_directory(settings, store)
    parts.semantic = await assemble_semantic(
        settings,
        keys,
        store,
        directory,
        instruments,
        replica,
        embedding_price,
        embedder,
        vetoes,
        recent,
        wrap_index,
    )
    parts.tiers = {**tiers, "l2": parts.semantic.tier}
    recent.when_forgotten.append(parts.semantic.embedder.forget)
    return parts


def _index_directory(settings: Settings, store: KeyValueStore) -> Path:
    """Return the directory of the embedded index: beside the store's file, when it has one."""
    if isinstance(store, EmbeddedStore):
        return store.path.parent
    return usable_directory(settings.dir)


def _lacking(embedder: Embedder | None) -> list[str]:
    needed = ["chromadb", "numpy", "filelock"]
    if embedder is None:
        needed.append("sentence_transformers")
    return [name for name in needed if importlib.util.find_spec(name) is None]
