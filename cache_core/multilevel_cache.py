"""The cache: four tiers behind one object. Lookup, put and invalidation read top to bottom here."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import itertools
import logging
import math
import secrets
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import asdict
from types import TracebackType
from typing import Any, Self

from cache_core.advice import sharing_advice
from cache_core.clock import Clock
from cache_core.contexts import ContextWatch
from cache_core.decisions import Decision
from cache_core.defaults import default_instruments
from cache_core.embedder import Embedder
from cache_core.exceptions import BackendError, ConfigurationError
from cache_core.explaining import explain
from cache_core.flight import SingleFlight
from cache_core.housekeeping import Housekeeper
from cache_core.instrumentation import CacheCall, Instrument, Instruments
from cache_core.invalidation import Invalidator
from cache_core.keys import NAMESPACE_PATTERN, normalise
from cache_core.models import (
    Answer,
    BypassReason,
    Context,
    Documents,
    Entry,
    Invalidation,
    LookupResult,
    Query,
    TierExplanation,
    Turn,
)
from cache_core.parts import Parts, assemble, make_store
from cache_core.reading import Found, Reader, fold
from cache_core.settings import Settings, TuningEnvironment, load_settings
from cache_core.stats import CacheStats
from cache_core.tuning import MAX_TTL, Sharing, Tuning, make_tuning
from cache_core.writing import NewAnswer, Seen, Writer, check_json, choose_scopes, document_ids

log = logging.getLogger("glasscache")

L1_TTL = 3_600
"""Seconds that an exact answer lives; read by `initialize()`, like the four below."""
L2_TTL = 86_400
L3_TTL = 21_600
L4_TTL = 43_200
SEMANTIC_THRESHOLD = 0.95

_CONSTANTS = {
    "l1_ttl": "L1_TTL",
    "l2_ttl": "L2_TTL",
    "l3_ttl": "L3_TTL",
    "l4_ttl": "L4_TTL",
    "semantic_threshold": "SEMANTIC_THRESHOLD",
}
_ORIGINAL = {field: globals()[name] for field, name in _CONSTANTS.items()}

_RETRY_SECONDS = 1.0
_SEEN_KEPT = 16
_WARM_TOGETHER = 32

# Which generation of a message this task's lookups saw, per replica and tag: a value computed
# before an invalidation is stamped with the generation from before it, and so is never served.
_seen: ContextVar[Mapping[tuple[str, str], str | None]] = ContextVar("glasscache_seen", default={})


class _Running:
    """What exists only while a cache is open."""

    def __init__(
        self, parts: Parts, reader: Reader, writer: Writer, invalidator: Invalidator,
        housekeeper: Housekeeper,
    ) -> None:  # fmt: skip
        self.parts = parts
        self.reader = reader
        self.writer = writer
        self.invalidator = invalidator
        self.housekeeper = housekeeper


class MultiLevelCache:
    """A cache in front of an LLM agent.

    Answers are private to their user unless they are put as shared. The first use initialises.
    `lookup` and `put` raise only `CancelledError`, and `TypeError` or `ValueError` for misuse:
    whatever breaks behind the cache becomes an outcome, and is counted.

    A cache belongs to one event loop; `get_cache()` keeps one per loop.

    Args:
        redis_url: A Redis server or Cluster; default `REDIS_URL`, else the embedded store.
        redis_pool: A redis-py asyncio connection pool to use instead; it is not closed.
        semantic_threshold: Least cosine similarity of a semantic hit, 0..1. Default 0.95.
        embedding_model: A sentence-transformers model, or an object of the `Embedder` protocol.
            Default `all-MiniLM-L6-v2`.
        namespace: Caches with different namespaces share nothing. `[A-Za-z0-9_.-]`, 1..64.
        sharing: Whose answers every user may get: nobody's (`private`), those of *shared_intents*
            (`intents`), or `all`. Default: `intents` if *shared_intents* is given, else `private`.
        shared_intents: Intents whose answers are the same for every user.
        settings: Fixed settings; default: from the environment.
        instruments: Who watches; default: Prometheus metrics and OpenTelemetry spans.
        clock: Time by which entries age in the embedded store; for tests and replays.

    Raises:
        ConfigurationError: For a value that cannot work; it names the value and what is expected.
    """

    def __init__(
        self,
        redis_url: str | None = None,
        redis_pool: Any = None,
        semantic_threshold: float | None = None,
        embedding_model: str | Embedder | None = None,
        *,
        namespace: str = "default",
        sharing: Sharing | None = None,
        shared_intents: Iterable[str] = (),
        settings: Settings | None = None,
        instruments: Sequence[Instrument] | None = None,
        clock: Clock | None = None,
    ) -> None:
        if NAMESPACE_PATTERN.fullmatch(namespace) is None:
            msg = f"namespace={namespace!r} is refused: letters, digits, '_', '.', '-', 1 to 64"
            raise ConfigurationError(msg)
        model = embedding_model if isinstance(embedding_model, str) else None
        if settings is None:
            settings = load_settings(redis_url=redis_url, embedding_model=model)
        elif redis_url or model:
            changed = {"redis_url": redis_url, "embedding_model": model}
            settings = settings.model_copy(
                update={name: value for name, value in changed.items() if value}
            )
        if isinstance(shared_intents, str):
            msg = "shared_intents must be a list of intents, not one string"
            raise TypeError(msg)
        self.namespace = namespace
        self.settings = settings
        self.replica = secrets.token_hex(4)
        self._redis_pool = redis_pool
        self._embedder = None if isinstance(embedding_model, (str, type(None))) else embedding_model
        self._clock = clock
        self._arguments = _given(
            semantic_threshold=semantic_threshold,
            sharing=sharing,
            shared_intents=frozenset(shared_intents) or None,
        )
        self._tuning, self._origin = self._make_tuning()
        self.metrics = CacheStats()
        self._given_instruments = instruments
        self._instruments = Instruments([self.metrics])
        self._contexts = ContextWatch()
        self._numbers = itertools.count(1)
        self._flight: SingleFlight[str] = SingleFlight()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._opening: asyncio.Lock | None = None
        self._running: _Running | None = None
        self._retry: asyncio.Task[None] | None = None

    def _make_tuning(self) -> tuple[Tuning, dict[str, str]]:
        changed = {
            field: globals()[name]
            for field, name in _CONSTANTS.items()
            if globals()[name] != _ORIGINAL[field]
        }
        environment = TuningEnvironment().given()
        layers = [
            ("the environment", environment),
            ("a module constant", changed),
            ("the constructor", self._arguments),
        ]
        if not any("sharing" in layer for _, layer in layers):
            # Naming intents to share is asking for them to be shared.
            if any("shared_intents" in layer for _, layer in layers):
                layers.insert(0, ("the intents named", {"sharing": "intents"}))
        return make_tuning(*layers)

    # ------------------------------------------------------------------------------ life

    @property
    def tuning(self) -> Tuning:
        """The values in force."""
        return self._tuning

    @property
    def is_open(self) -> bool:
        """Whether the store was reached; until then every lookup ends as an error."""
        return self._running is not None

    @property
    def parts(self) -> Parts:
        """The open parts, for tools that operate a cache.

        Raises:
            RuntimeError: If the cache is not open.
        """
        if self._running is None:
            msg = "the cache is not open: await cache.initialize() first"
            raise RuntimeError(msg)
        return self._running.parts

    @property
    def redis_client(self) -> Any:
        """The redis-py client; `None` when the embedded store is used."""
        running = self._running
        return getattr(running.parts.store, "client", None) if running is not None else None

    @property
    def chroma_collection(self) -> Any:
        """The Chroma collection of shared answers without a context; `None` when L2 is off."""
        running = self._running
        return getattr(running.parts.raw_index, "collection", None) if running is not None else None

    async def initialize(self) -> None:
        """Open the parts; idempotent. The embedding model goes on loading in the background.

        Never raises for a backend that is away: it is tried again.

        Raises:
            ConfigurationError: For a changed module constant that is out of bounds.
            RuntimeError: If the cache is already open in another running event loop.
        """
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            if self._loop is not None and self._loop.is_running():
                msg = "this cache is open in another event loop; use get_cache(), one per loop"
                raise RuntimeError(msg)
            self._loop, self._opening = loop, asyncio.Lock()
            self._running = self._retry = None
            self._flight = SingleFlight()
        if self._opening is None:
            self._opening = asyncio.Lock()
        async with self._opening:
            if self._running is not None or self._retry is not None:
                return
            await self._open()

    async def _open(self) -> None:
        self._tuning, self._origin = self._make_tuning()
        watching = self._given_instruments
        if watching is None:
            watching = default_instruments(self.namespace)
        self._instruments = Instruments([self.metrics, *watching])
        store = await asyncio.to_thread(
            make_store, self.settings, self._redis_pool, self._clock
        )
        await store.open()
        self._announce()
        try:
            await self._run_on(store)
        except BackendError as error:
            log.error(
                "%s cannot be reached (%s). The agent works without the cache; it is tried again "
                "every second",
                store.breaker.backend,
                store.breaker.last_error or error,
            )
            self._retry = asyncio.get_running_loop().create_task(self._keep_trying(store))

    async def _run_on(self, store: Any) -> None:
        parts = await assemble(
            self.settings, self.namespace, store, self._instruments, self._embedder
        )
        invalidator = Invalidator(parts, self.replica)
        housekeeper = Housekeeper(
            parts, invalidator, self._instruments, self.replica, lambda: self._tuning,
            self.get_metrics, self._contexts,
        )  # fmt: skip
        self._running = _Running(
            parts,
            Reader(parts, self.settings, self._instruments),
            Writer(parts, self.settings),
            invalidator,
            housekeeper,
        )
        self._instruments.report(housekeeper.state())
        housekeeper.start()

    async def _keep_trying(self, store: Any) -> None:
        try:
            while self._running is None:
                await asyncio.sleep(_RETRY_SECONDS / 4)
                with contextlib.suppress(BackendError):
                    await store.tend()
                    await self._run_on(store)
        except asyncio.CancelledError:
            if self._running is None:
                await store.close()
            raise

    def _announce(self) -> None:
        for field, origin in self._origin.items():
            log.info("%s=%s from %s", field, getattr(self._tuning, field), origin)
        if self._tuning.sharing == "private":
            log.info(
                "answers are private to their user: name the intents whose answers are the same "
                "for everybody in shared_intents=[...] or CACHE_SHARED_INTENTS to share them"
            )

    async def ready(self) -> None:
        """Wait until the store is reached and the model is loaded.

        Raises:
            ConfigurationError: If the model cannot be loaded, or the extra is missing.
        """
        await self.initialize()
        while self._running is None:
            await asyncio.sleep(0.05)
        parts = self._running.parts
        if parts.missing:
            msg = "L2 is on, but its extra is missing: pip install 'glasscache[semantic]'"
            raise ConfigurationError(msg)
        if parts.embedder is not None and parts.semantic is not None:
            await parts.embedder.wait_ready()
            with contextlib.suppress(BackendError):
                await parts.semantic.tend()

    async def close(self) -> None:
        """Write out what waits and close; idempotent. Use opens it again."""
        if self._opening is None or self._loop is not asyncio.get_running_loop():
            self._running = None
            return
        async with self._opening:
            retry, self._retry = self._retry, None
            running, self._running = self._running, None
            if retry is not None and not retry.done():
                retry.cancel()
                await asyncio.gather(retry, return_exceptions=True)
            if running is not None:
                await self._flight.close()
                await running.housekeeper.close()
                await running.parts.close()

    async def __aenter__(self) -> Self:
        await self.initialize()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def _started(self) -> _Running | None:
        """Return the open parts, opening them first; `None` while the store is away."""
        if self._running is None or self._loop is not asyncio.get_running_loop():
            await self.initialize()
        return self._running

    # ------------------------------------------------------------------------------ lookup

    async def get_multilevel(
        self,
        message: str,
        user_id: str | None = None,
        *,
        context: Context = None,
        history: Sequence[Turn] | None = None,
        standalone: str | None = None,
    ) -> str | None:
        """Return the cached response to *message*, or `None`. Arguments as for `lookup`."""
        result = await self._lookup(message, user_id, context, history, standalone, handed_out=False)
        return result.response

    async def lookup(
        self,
        message: str,
        user_id: str | None = None,
        *,
        context: Context = None,
        history: Sequence[Turn] | None = None,
        standalone: str | None = None,
    ) -> LookupResult:
        """Return what is known for *message*: a response, or an intent, documents, and why not.

        Args:
            message: What the user said.
            user_id: Whose private answers may be read besides the shared ones; `None`: only those.
            context: What else shaped the answer and rarely changes, as text or a JSON mapping:
                system prompt, model, tools, locale. Answers never cross contexts.
            history: The earlier turns, each a str or `{"role", "content"}`. A message with a
                history is matched only exactly, and only after the same turns.
            standalone: The message rewritten to need no history; replaces both.

        Raises:
            TypeError: For an argument of another type.
        """
        return await self._lookup(message, user_id, context, history, standalone, handed_out=True)

    async def _lookup(
        self,
        message: str,
        user_id: str | None,
        context: Context,
        history: Sequence[Turn] | None,
        standalone: str | None,
        *,
        handed_out: bool,
    ) -> LookupResult:
        bypass = self._check(message, user_id, standalone)
        running = await self._started()
        query = (
            running.parts.keys.query(message, user_id, context, history, standalone)
            if running is not None
            else None
        )
        tuning = self._tuning
        number = f"{self.replica}-{next(self._numbers):x}"
        found = Found()
        with self._instruments.operation("lookup") as call:
            call.lookup_id = number
            call.tuning_version = tuning.version
            if bypass is not None:
                call.outcome, call.reason = "bypass", bypass
                return LookupResult(None, None, None, "bypass", None, None, None, False, number,
                                    (bypass,))  # fmt: skip
            if running is None or query is None:
                call.outcome, call.reason = "error", "backend_error"
                call.calls = [CacheCall("get", "l1", "error", "backend_error")]
                return LookupResult(None, None, None, "error", None, None, None, False, number,
                                    ("backend_error",))  # fmt: skip
            found = await running.reader.find(query, tuning)
            result = fold(found, number)
            _finish(call, result, found, handed_out)
        self._remember(query, found)
        if context:
            self._contexts.note(context)
        running.parts.decisions.add(
            _decision(query, result, found, call, tuning, running.parts.store.now())
        )
        return result

    def _check(
        self, message: str, user_id: str | None, standalone: str | None
    ) -> BypassReason | None:
        """Return why a message is not cacheable; raise `TypeError` for one that is no message."""
        for name, value in (("message", message), ("standalone", standalone)):
            if not isinstance(value, str) and (value is not None or name == "message"):
                kind = type(value).__name__
                msg = f"{name} must be a str, not {kind}; decode bytes first"
                raise TypeError(msg)
        if user_id is not None and not isinstance(user_id, str):
            msg = f"user_id must be a str or None, not {type(user_id).__name__}: use str(user_id)"
            raise TypeError(msg)
        if not self.settings.tiers:
            return "disabled"
        text = message if standalone is None else standalone
        # 4 bytes at most per character: most messages need not be encoded to be measured.
        limit = self.settings.max_message_bytes
        if 4 * len(text) > limit and len(text.encode("utf-8", "surrogatepass")) > limit:
            return "too_large"
        return None if text and not text.isspace() else "empty"

    def _remember(self, query: Query, found: Found) -> None:
        """Leave the generation that was seen to the put that may follow in this task."""
        exact = found.of("l1")
        if exact is None or exact.answer is None:
            return
        hit = exact.hit
        answer = exact.answer
        token = hit.entry.generation if hit is not None else getattr(answer, "generation", None)
        seen = _seen.get()
        kept = itertools.islice(seen.items(), max(0, len(seen) - _SEEN_KEPT + 1), None)
        _seen.set({**dict(kept), (self.replica, query.tag): token})

    async def get_or_compute(
        self,
        message: str,
        user_id: str | None,
        compute: Callable[..., Awaitable[str | Answer] | str | Answer],
        *,
        context: Context = None,
        history: Sequence[Turn] | None = None,
        standalone: str | None = None,
        intent: str | None = None,
        shared: bool | None = None,
        share_documents: bool | None = None,
        ttl: float | None = None,
        tags: Sequence[str] = (),
        cost_usd: float | None = None,
    ) -> str:
        """Return the cached response, or compute and store it.

        Concurrent calls for the same message, user, context and history share one computation. A
        cancelled caller does not disturb the others.

        Args:
            message, user_id, context, history, standalone: As for `lookup`.
            compute: Makes the response: a function or coroutine function of no argument, or of the
                `LookupResult`, whose intent and documents save it those steps. Returns the
                response, or an `Answer` with what else is to be stored.
            intent, shared, share_documents, ttl, tags, cost_usd: As for `put`.

        Raises:
            Exception: Whatever *compute* raises; nothing is stored then.
        """
        where = {"context": context, "history": history, "standalone": standalone}
        result = await self.lookup(message, user_id, **where)  # type: ignore[arg-type]
        if result.response is not None:
            return result.response

        async def work() -> str:
            with self._instruments.operation("compute"):
                answer = await _computed(compute, result)
            await self.put(
                message,
                user_id,
                answer.response,
                answer.intent or intent or result.intent,
                answer.rag_results,
                shared=shared if answer.shared is None else answer.shared,
                share_documents=(
                    share_documents if answer.share_documents is None else answer.share_documents
                ),
                ttl=ttl if answer.ttl is None else answer.ttl,
                tags=(*tags, *answer.tags),
                cost_usd=cost_usd if answer.cost_usd is None else answer.cost_usd,
                **where,  # type: ignore[arg-type]
            )
            return answer.response

        running = self._running
        if result.outcome == "bypass" or running is None:
            return await work()
        query = running.parts.keys.query(message, user_id, context, history, standalone)
        # Without a user there is nobody to share a computation with: it could be anybody's.
        whose = query.user or result.lookup_id
        key = f"{query.tag} {whose} {query.context} {query.history}"
        response, joined = await self._flight.run(key, work)
        if joined:
            self._instruments.record(CacheCall("compute", outcome="joined"))
        return response

    # ------------------------------------------------------------------------------ put

    async def put(
        self,
        message: str,
        user_id: str | None = None,
        response: str | None = None,
        intent: str | None = None,
        rag_results: Documents | None = None,
        *,
        context: Context = None,
        history: Sequence[Turn] | None = None,
        standalone: str | None = None,
        shared: bool | None = None,
        share_documents: bool | None = None,
        ttl: float | None = None,
        tags: Sequence[str] = (),
        cost_usd: float | None = None,
    ) -> None:
        """Store what answers *message*; readable when this returns.

        What cannot be stored within a second is dropped and counted.

        Args:
            message, user_id, context, history, standalone: As for the lookup that it answers.
            response: What the agent said; `None` or empty stores no response.
            intent: The message's label.
            rag_results: The documents that retrieval returned, JSON values. Their `id`, `source`
                or `metadata.source` are what `invalidate_document` finds the answer by.
            shared: Whether every user may read the response; default: as *sharing* says.
            share_documents: Whether every user may read the documents; default: as the response.
            ttl: Seconds that this answer lives, instead of each tier's TTL; up to 30 days.
            tags: What `invalidate_tag` finds the answer by.
            cost_usd: What the answer cost, and a hit saves, in USD; default: the tuning's prices.

        Raises:
            TypeError: For an argument of another type, or documents that are not JSON.
            ValueError: For a TTL or cost out of range.
        """
        bypass = self._check(message, user_id, standalone)
        _check_put(response, intent, ttl, tags, cost_usd)
        documents = check_json(rag_results)
        entry = Entry(
            response=response or None,
            intent=intent or None,
            rag_results=documents,
            cost_usd=cost_usd,
            ttl=ttl,
        )
        running = await self._started()
        tuning = self._tuning
        with self._instruments.operation("put") as call:
            call.tuning_version = tuning.version
            if bypass is not None or running is None:
                call.outcome = "dropped" if running is None else "bypass"
                call.reason = bypass or "backend_error"
                return
            query = running.parts.keys.query(message, user_id, context, history, standalone)
            scopes = choose_scopes(query, entry, tuning, shared, share_documents)
            answer = NewAnswer(entry, scopes, document_ids(documents), tuple(tags))
            if not scopes or running.writer.too_large(answer):
                call.outcome, call.reason = "bypass", "too_large" if scopes else "no_user"
                return
            calls = await running.writer.put(query, answer, tuning, self._take_seen(query))
            call.calls = calls
            outcomes = {item.outcome for item in calls}
            call.outcome = "stored" if outcomes <= {"stored"} else "dropped"

    def _take_seen(self, query: Query) -> Seen | None:
        name = (self.replica, query.tag)
        seen = _seen.get()
        if name not in seen:
            return None
        _seen.set({key: value for key, value in seen.items() if key != name})
        return Seen(seen[name])

    async def warm_cache(
        self,
        queries: Iterable[tuple[str, str | None, str]],
        *,
        progress: Callable[[int], None] = lambda _: None,
    ) -> int:
        """Store answers that an operator provides, shared by all users; return how many.

        Args:
            queries: (query, user_id, response); the user only shows who provided it.
            progress: Called with the number of answers stored since the last call.

        Raises:
            TypeError, ValueError: For an item that is not such a triple; nothing is stored then.
        """
        items = [_warm_item(number, item) for number, item in enumerate(queries)]
        # What an operator provides is no result of an earlier lookup.
        _seen.set({})
        try:
            await self.ready()
        except ConfigurationError as error:
            log.warning("warming without L2: %s", error)
        for start in range(0, len(items), _WARM_TOGETHER):
            chunk = items[start : start + _WARM_TOGETHER]
            await asyncio.gather(
                *(
                    self.put(query, user_id, response, shared=True)
                    for query, user_id, response in chunk
                )
            )
            progress(len(chunk))
        return len(items)

    # ------------------------------------------------------------------------------ invalidate

    async def invalidate(
        self, query: str, user_id: str | None = None, *, dry_run: bool = False
    ) -> Invalidation:
        """Take a message's answers out of service: all tiers, users, contexts and replicas.

        Also those of every stored message that L2 would have served for it. Answers being computed
        while this happens are not stored.

        Args:
            query: The message.
            user_id: Only this user's own answers.
            dry_run: Only count them.
        """
        self._check(query, user_id, None)
        return await self._invalidate(
            "message",
            lambda running: running.invalidator.message(
                running.parts.keys.query(query, user_id),
                self._tuning,
                running.parts.keys.user(user_id) if user_id else None,
                dry_run=dry_run,
            ),
        )

    async def invalidate_document(self, doc_id: str, *, dry_run: bool = False) -> Invalidation:
        """Take out of service every answer to a message whose documents included *doc_id*."""
        return await self._invalidate_label("document", doc_id, dry_run)

    async def invalidate_tag(self, tag: str, *, dry_run: bool = False) -> Invalidation:
        """Take out of service every answer to a message that was put with *tag*."""
        return await self._invalidate_label("tag", tag, dry_run)

    async def _invalidate_label(self, kind: str, value: str, dry_run: bool) -> Invalidation:
        if not isinstance(value, str) or not value:
            msg = f"the {kind} must be a non-empty str"
            raise TypeError(msg)
        return await self._invalidate(
            kind, lambda running: running.invalidator.label(kind, value, dry_run=dry_run)
        )

    async def forget_user(self, user_id: str) -> Invalidation:
        """Erase everything private to a user: entries, vectors, and decisions about them."""
        if not isinstance(user_id, str) or not user_id:
            msg = "user_id must be a non-empty str"
            raise TypeError(msg)
        return await self._invalidate(
            "user", lambda running: running.invalidator.user(running.parts.keys.user(user_id))
        )

    async def _invalidate(
        self, kind: str, work: Callable[[_Running], Awaitable[Invalidation]]
    ) -> Invalidation:
        running = await self._started()
        with self._instruments.operation("invalidate") as call:
            call.reason = kind
            # What this task puts from now on, it puts knowing of the invalidation.
            _seen.set({})
            if running is None:
                call.outcome = "error"
                return Invalidation(0, complete=False, pending=("store",))
            removed = await work(running)
            call.count = removed.removed
            call.outcome = "ok" if removed.complete else "error"
            return removed

    # ------------------------------------------------------------------------------ see

    async def explain(
        self,
        message: str,
        user_id: str | None = None,
        *,
        context: Context = None,
        history: Sequence[Turn] | None = None,
        standalone: str | None = None,
    ) -> list[TierExplanation]:
        """Return what each tier would say to *message*, and why; counts nothing."""
        self._check(message, user_id, standalone)
        running = await self._started()
        if running is None:
            return []
        query = running.parts.keys.query(message, user_id, context, history, standalone)
        return await explain(
            running.parts.tiers, query, self._tuning, self.settings.lookup_budget
        )

    def get_metrics(self) -> dict[str, Any]:
        """Return what this cache counted, as JSON values.

        Keys: `hit_rates` (`overall`, `l1`..`l4`, in percent), `average_latency_ms`, `operations`
        (lookups), `cost_savings_usd`, `sharing` (what private answers cost, and how to share), and
        what else `CacheStats.snapshot` has.
        """
        return {
            **self.metrics.snapshot(),
            "sharing": sharing_advice(self.metrics, self._tuning),
            "namespace": self.namespace,
            "replica": self.replica,
        }

    def reset_metrics(self) -> None:
        """Count from zero again. Prometheus counters go on: they must never fall."""
        self.metrics.reset()

    def recent(self, count: int = 20) -> list[Decision]:
        """Return this replica's last decisions, newest last, up to 200."""
        running = self._running
        return list(running.parts.decisions.recent)[-count:] if running is not None else []


def _finish(call: CacheCall, result: LookupResult, found: Found, handed_out: bool) -> None:
    """Write what a lookup found into its record."""
    calls = [item.call for item in found.asked]
    for part in calls:
        if part.level in {"l3", "l4"} and not handed_out:
            part.saved_usd = 0.0
    call.calls = calls
    call.outcome = result.outcome
    call.level = result.tier
    call.similarity = result.similarity
    call.age_seconds = result.age_seconds
    call.saved_usd = sum(part.saved_usd for part in calls)
    if result.outcome != "hit":
        call.reason = _telling(found)


def _telling(found: Found) -> str:
    """Return the one reason that says most about a lookup without a response.

    L1's, when something was stored for this very message; else L2's.
    """
    reasons = {item.call.level: item.call.reason for item in found.asked}
    exact = reasons.get("l1", "")
    if exact in {"", "cold"} or reasons.get("l2") in {"guard_veto"}:
        return reasons.get("l2") or exact
    return exact


def _decision(
    query: Query, result: LookupResult, found: Found, call: CacheCall, tuning: Tuning, now: float
) -> Decision:
    semantic = found.of("l2")
    answer = semantic.answer if semantic is not None else None
    hit = found.hit("l1") or found.hit("l2")
    exact = found.of("l1")
    other_intent = exact.call.other_intent if exact is not None else ""
    similarity = getattr(answer, "similarity", None)
    return Decision(
        at=now,
        lookup_id=result.lookup_id,
        outcome=result.outcome,
        level=result.tier or "",
        reason=call.reason,
        reasons=result.reasons,
        similarity=similarity,
        unvetoed=getattr(answer, "unvetoed", similarity),
        threshold=tuning.semantic_threshold,
        age_seconds=result.age_seconds,
        seconds=call.seconds,
        saved_usd=call.saved_usd,
        message=query.tag,
        matched=hit.matched if hit is not None else "",
        user=query.user or "",
        intent=result.intent or other_intent,
        tuning_version=tuning.version,
    )


async def _computed(compute: Callable[..., Any], result: LookupResult) -> Answer:
    made = compute(result) if _takes_result(compute) else compute()
    if inspect.isawaitable(made):
        made = await made
    if isinstance(made, str):
        return Answer(made)
    if isinstance(made, Answer):
        return made
    msg = f"compute must return a str or an Answer, not {type(made).__name__}"
    raise TypeError(msg)


def _takes_result(compute: Callable[..., Any]) -> bool:
    try:
        parameters = inspect.signature(compute).parameters.values()
    except (TypeError, ValueError):
        return False
    return any(
        parameter.kind in {parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD}
        and parameter.default is parameter.empty
        for parameter in parameters
    )


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _check_put(
    response: object, intent: object, ttl: object, tags: object, cost_usd: object
) -> None:
    for name, value in (("response", response), ("intent", intent)):
        if value is not None and not isinstance(value, str):
            msg = f"{name} must be a str or None, not {type(value).__name__}"
            raise TypeError(msg)
    for name, value, most in (("ttl", ttl, MAX_TTL), ("cost_usd", cost_usd, math.inf)):
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            msg = f"{name} must be a number, not {type(value).__name__}"
            raise TypeError(msg)
        if not (math.isfinite(value) and 0 <= value <= most) or (name == "ttl" and value == 0):
            bounds = f"more than 0 and up to {MAX_TTL:.0f} s" if name == "ttl" else "0 or more"
            msg = f"{name}={value!r} is refused: expected {bounds}"
            raise ValueError(msg)
    if isinstance(tags, str) or not all(isinstance(tag, str) for tag in tags):  # type: ignore[attr-defined]
        msg = "tags must be a list of str"
        raise TypeError(msg)


def _warm_item(number: int, item: object) -> tuple[str, str | None, str]:
    if not isinstance(item, (tuple, list)) or len(item) != 3:  # noqa: PLR2004
        msg = f"item {number} must be (query, user_id, response), got {item!r}"
        raise ValueError(msg)
    query, user_id, response = item
    if not isinstance(query, str) or not isinstance(response, str):
        msg = f"item {number}: query and response must be str"
        raise TypeError(msg)
    return query, user_id, response


def describe(explanations: Iterable[TierExplanation]) -> list[dict[str, Any]]:
    """Return explanations as JSON values."""
    return [asdict(item) for item in explanations]


__all__ = [
    "L1_TTL",
    "L2_TTL",
    "L3_TTL",
    "L4_TTL",
    "SEMANTIC_THRESHOLD",
    "MultiLevelCache",
    "close_cache",
    "get_cache",
    "normalise",
]

from cache_core.lifecycle import close_cache, get_cache  # noqa: E402 - it needs the class
