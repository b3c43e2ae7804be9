"""The cache: four tiers behind one object."""

from __future__ import annotations

import asyncio
import copy
import logging
import os
import secrets
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

from cache_core.answering import Answering, Wanted
from cache_core.arguments import (
    check_label,
    check_message,
    check_put,
    warm_item,
)
from cache_core.clock import Clock
from cache_core.computing import Compute, completed
from cache_core.embedder import Embedder
from cache_core.engine import Engine, Running
from cache_core.exceptions import ConfigurationError
from cache_core.explaining import explain
from cache_core.instrumentation import Instrument
from cache_core.keys import NAMESPACE_PATTERN, Keys
from cache_core.lookups import Lookups
from cache_core.models import (
    Answer,
    BypassReason,
    Context,
    Documents,
    Invalidation,
    LookupResult,
    Query,
    TierExplanation,
    Turn,
    Where,
)
from cache_core.operating import OperatedCache
from cache_core.puts import How, Puts
from cache_core.sealing import make_sealer
from cache_core.seen import Sightings
from cache_core.settings import Settings, load_settings
from cache_core.stores.base import WrapStore
from cache_core.stores.vectors import WrapIndex
from cache_core.tuning import Sharing
from cache_core.unconfirmed import Request
from cache_core.verdicts import Verify

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


def _changed_constants() -> Mapping[str, Any]:
    """Return the tuning values whose module constants were changed."""
    now = {field: globals()[name] for field, name in _CONSTANTS.items()}
    return {field: value for field, value in now.items() if value != _ORIGINAL[field]}


class MultiLevelCache(OperatedCache):
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
        verify: Called with a message and the response that L2 served for it, for a small random
            share of semantic hits after they were served; returns whether a fresh answer agrees.
        clock: Time by which entries age in the embedded store; for tests and replays.
        wrap_store, wrap_index: Called with the keyed store and with the vector index, whenever they
            are made; return what to use in their place, such as the doubles of
            `cache_core.testing` around them.

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
        verify: Verify | None = None,
        clock: Clock | None = None,
        wrap_store: WrapStore | None = None,
        wrap_index: WrapIndex | None = None,
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
        given = {
            "semantic_threshold": semantic_threshold,
            "sharing": sharing,
            "shared_intents": frozenset(shared_intents) or None,
        }
        # Keys that cannot work are told here, and not to whoever looks up first.
        make_sealer(settings)
        self.namespace = namespace
        self.settings = settings
        self._engine = Engine(
            settings,
            namespace,
            arguments={name: value for name, value in given.items() if value is not None},
            constants=_changed_constants,
            redis_pool=redis_pool,
            embedder=None if isinstance(embedding_model, (str, type(None))) else embedding_model,
            clock=clock,
            instruments=instruments,
            verify=verify,
            wrap_store=wrap_store,
            wrap_index=wrap_index,
        )
        self._engine.counters = self.get_metrics
        self._engine.make = self._make
        sightings = Sightings()
        self._lookups = Lookups(self._engine, sightings)
        self._puts = Puts(self._engine, sightings)
        self._answering = Answering(self._engine)
        # For what is asked while the store, which keeps the secret, was not reached yet.
        self._keys = Keys(namespace, secrets.token_bytes(32))

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
        result = await self._lookups.run(
            message, user_id, context, history, standalone, handed_out=False
        )
        return result.response

    async def lookup(
        self,
        message: str,
        user_id: str | None = None,
        *,
        context: Context = None,
        history: Sequence[Turn] | None = None,
        standalone: str | None = None,
        allow_stale: bool = False,
    ) -> LookupResult:
        """Return what is known for *message*: a response, or an intent, documents, and why not.

        Args:
            message: What the user said.
            user_id: Whose private answers may be read besides the shared ones; `None`: only those.
                More than 1,024 characters bypass, as a message that is too large does.
            context: What else shaped the answer and rarely changes, as text or a JSON mapping:
                system prompt, model, tools, locale. Answers never cross contexts. More than 65,536
                characters bypass.
            history: The earlier turns, each a str or `{"role", "content"}`. A message with a
                history is matched only exactly, and only after the same turns.
            standalone: The message rewritten to need no history; replaces both.
            allow_stale: Also return a response that expired less than the tuning's *stale_seconds*
                ago, marked `stale`: for when computing a new one failed. It saves nothing.

        Raises:
            TypeError: For an argument of another type.
        """
        return await self._lookups.run(
            message,
            user_id,
            context,
            history,
            standalone,
            handed_out=True,
            allow_stale=allow_stale,
        )

    def _check(
        self, message: object, user_id: object, standalone: object, context: object = None
    ) -> BypassReason | None:
        return check_message(message, user_id, standalone, self.settings, context)

    async def get_or_compute(
        self,
        message: str,
        user_id: str | None,
        compute: Compute,
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
        personal: Sequence[str] = (),
    ) -> str:
        """Return the cached response, or compute and store it.

        Concurrent calls for the same message, user, context and history share one computation, in
        this process and among all that use the same store. A cancelled caller does not disturb the
        others; a process that dies is replaced after `compute_lease` seconds; while the store is
        away each process computes for itself.

        With *stale_seconds* in the tuning, an expired answer is returned when computing fails, if
        it expired no longer ago; with *refresh_share*, a hit in the last part of an answer's life
        lets *compute* make it anew in the background, once.

        Args:
            message, user_id, context, history, standalone: As for `lookup`.
            compute: Makes the response: a function or coroutine function of no argument, or of the
                `LookupResult`, whose intent and documents save it those steps. Returns the
                response, or an `Answer` with what else is to be stored.
            intent, shared, share_documents, ttl, tags, cost_usd, personal: As for `put`.

        Raises:
            Exception: Whatever *compute* raises, unless a stale answer may be returned instead;
                nothing is stored then.
        """
        # Copies: an agent's compute appends to its conversation while it works.
        try:
            where = Where(copy.deepcopy(context), copy.deepcopy(history), standalone)
        except RecursionError:
            raise TypeError("context and history must be JSON, not nested that deep") from None
        check_put(None, intent, ttl, tags, cost_usd, personal)
        own = Answer(
            "", intent, None, shared, share_documents, ttl=ttl, tags=tuple(tags), cost_usd=cost_usd
        )

        async def look(allow_stale: bool) -> LookupResult:
            return await self._lookups.run(
                message, user_id, *where, handed_out=True, allow_stale=allow_stale
            )

        async def store(answer: Answer, result: LookupResult) -> str:
            answer = completed(answer, own)
            check_put(answer.response, answer.intent, answer.ttl, answer.tags, answer.cost_usd)
            how = How(answer.shared, answer.share_documents, answer.ttl, tuple(answer.tags),
                       answer.cost_usd, tuple(personal))  # fmt: skip
            return await self._puts.run(
                message, user_id, answer.response, answer.intent or result.intent,
                answer.rag_results, where, how, result,
            )  # fmt: skip

        def query(running: Running | None) -> Query:
            keys = self._keys if running is None else running.parts.keys
            return keys.query(message, user_id, *where)

        return await self._answering.answer(Wanted(query, compute, look, store))

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
        personal: Sequence[str] = (),
        lookup: LookupResult | None = None,
    ) -> None:
        """Store what answers *message*; readable when this returns.

        What cannot be stored within a second is dropped and counted. An answer that was computed
        before its message was invalidated is not stored: the lookup before it says when that was.
        It is the one given as *lookup*; else that of this task; else the oldest of this message and
        user that no put has followed yet.

        Args:
            message, user_id, context, history, standalone: As for the lookup that it answers.
            response: What the agent said; `None` or empty stores no response.
            intent: The message's label; with more than 256 characters nothing is stored.
            rag_results: The documents that retrieval returned, JSON values. Their `id`, `source`
                or `metadata.source` are what `invalidate_document` finds the answer by.
            shared: Whether every user may read the response; default: as *sharing* says.
            share_documents: Whether every user may read the documents; default: as the response.
            ttl: Seconds that this answer lives, instead of each tier's TTL; up to 30 days.
            tags: What `invalidate_tag` finds the answer by.
            cost_usd: What the answer cost, and a hit saves, in USD; default: the tuning's prices.
            personal: Names of the user. An answer that holds one, or looks personal otherwise, is
                not shared by *sharing* or promotion; `shared=True` shares it all the same.
            lookup: What `lookup` returned, of this cache or of another on the same store: needed
                only where lookups of the same message by the same user overlap in different tasks,
                or where another process stores what was computed.

        Raises:
            TypeError: For an argument of another type, or documents that are not JSON.
            ValueError: For a TTL or cost out of range.
        """
        check_put(response, intent, ttl, tags, cost_usd, personal)
        where = Where(context, history, standalone)
        how = How(shared, share_documents, ttl, tuple(tags), cost_usd, tuple(personal))
        await self._puts.run(message, user_id, response, intent, rag_results, where, how, lookup)

    async def warm_cache(
        self,
        queries: Iterable[tuple[str, str | None, str]],
        *,
        context: Context = None,
        intent: str | None = None,
        ttl: float | None = None,
        tags: Sequence[str] = (),
        progress: Callable[[int], None] = lambda _: None,
    ) -> int:
        """Store answers that an operator provides, shared by all users.

        Args:
            queries: (query, user_id, response); the user only shows who provided it.
            context, intent, ttl, tags: As for `put`, of all of them.
            progress: Called with the number of answers done since the last call.

        Returns:
            How many were stored; the others were blank, too large, or dropped, and are counted so.

        Raises:
            TypeError, ValueError: For an item that is not such a triple; nothing is stored then.
            BackendError: If the store cannot be reached.
        """
        items = [warm_item(number, item) for number, item in enumerate(queries)]
        check_put(None, intent, ttl, tags, None)
        try:
            await self.ready()
        except ConfigurationError as error:
            log.warning("warming without L2: %s", error)
        how = How(shared=True, ttl=ttl, tags=tuple(tags), source="warm")
        return await self._puts.warm(items, context, intent, how, progress)

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
        if user_id is not None:
            check_label("user_id", user_id)
        return await self._invalidate(
            ("message", query, user_id),
            lambda running: running.invalidator.message(
                running.parts.keys.query(query, user_id),
                self.tuning,
                running.parts.keys.user(user_id) if user_id else None,
                dry_run=dry_run,
            ),
            dry_run=dry_run,
        )

    async def invalidate_document(self, doc_id: str, *, dry_run: bool = False) -> Invalidation:
        """Take out of service every answer to a message whose documents included *doc_id*."""
        return await self._invalidate_label("document", doc_id, dry_run)

    async def invalidate_tag(self, tag: str, *, dry_run: bool = False) -> Invalidation:
        """Take out of service every answer to a message that was put with *tag*."""
        return await self._invalidate_label("tag", tag, dry_run)

    async def _invalidate_label(self, kind: str, value: str, dry_run: bool) -> Invalidation:
        label = check_label(kind, value)
        return await self._invalidate(
            (kind, label),
            lambda running: running.invalidator.label(kind, label, dry_run=dry_run),
            dry_run=dry_run,
        )

    async def forget_user(self, user_id: str) -> Invalidation:
        """Erase everything of a user, in every tier and replica; `counts` says how much of what.

        What is private to them, what they put for all users, their votes, the decisions and
        verdicts on them, with captured texts. What stays for 61 days is the name of one token, a
        digest: it keeps what is being computed for them from being stored.
        """
        user = check_label("user_id", user_id)
        return await self._invalidate(
            ("user", user),
            lambda running: running.invalidator.user(running.parts.keys.user(user)),
        )

    async def invalidate_writer(self, user_id: str, *, dry_run: bool = False) -> Invalidation:
        """Take out of service all that a user's puts stored, for them or for everybody.

        For when a user turned out to feed the cache with wrong answers. Of each message that they
        stored something for all users for, every answer goes.
        """
        user = check_label("user_id", user_id)
        return await self._invalidate(
            ("writer", user),
            lambda running: running.invalidator.writer(
                running.parts.keys.user(user), dry_run=dry_run
            ),
            dry_run=dry_run,
        )

    async def _invalidate(
        self,
        name: tuple[str, *tuple[str | None, ...]],
        work: Callable[[Running], Awaitable[Invalidation]],
        *,
        dry_run: bool = False,
    ) -> Invalidation:
        running = await self._engine.started()
        with self._engine.instruments.operation("invalidate") as call:
            call.reason = name[0]
            if not dry_run:
                self._engine.invalidations += 1
            if running is None:
                call.outcome = "error"
                if not dry_run:
                    self._engine.postpone(name, work)
                    self._engine.unconfirmed.note(name)
                return Invalidation(0, complete=False, pending=("store",))
            complete = dry_run
            try:
                removed = await work(running)
                complete = complete or removed.complete
            finally:
                # Whoever is cancelled leaves the rest to be retried, too.
                if not complete:
                    self._engine.unconfirmed.note(name)
            call.count = removed.removed
            call.outcome = "ok" if removed.complete else "error"
            return removed

    async def _make(self, request: Request) -> None:
        """Make an invalidation that another process could not."""
        match request:
            case ("message", str(query), str(user) | (None as user)):
                await self.invalidate(query, user)
            case ("document", str(document)):
                await self.invalidate_document(document)
            case ("tag", str(tag)):
                await self.invalidate_tag(tag)
            case ("writer", str(user)):
                await self.invalidate_writer(user)
            case ("user", str(user)):
                await self.forget_user(user)

    # ------------------------------------------------------------------------------ explain

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
        running = await self._engine.started()
        if running is None:
            return []
        query = running.parts.keys.query(message, user_id, context, history, standalone)
        tiers, semantic = running.parts.tiers, running.parts.semantic
        if semantic is not None:
            tiers = {**tiers, "l2": semantic.quiet}
        return await explain(tiers, query, self.tuning, self.settings.lookup_budget)


_caches: WeakKeyDictionary[asyncio.AbstractEventLoop, MultiLevelCache] = WeakKeyDictionary()


async def get_cache() -> MultiLevelCache:
    """Return this event loop's shared cache, initialised; configured by the environment."""
    loop = asyncio.get_running_loop()
    cache = _caches.get(loop)
    if cache is None:
        cache = _caches[loop] = MultiLevelCache()
    await cache.initialize()
    return cache


def shared_cache() -> MultiLevelCache | None:
    """Return what `get_cache` made in this event loop; `None` before."""
    return _caches.get(asyncio.get_running_loop())


async def close_cache() -> None:
    """Close this event loop's shared cache; idempotent. `get_cache` makes a new one."""
    cache = _caches.pop(asyncio.get_running_loop(), None)
    if cache is not None:
        await cache.close()


# A forked child must not use its parent's connections.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_caches.clear)
