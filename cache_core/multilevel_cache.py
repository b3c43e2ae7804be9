"""The cache: four tiers behind one object."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import warnings
import weakref
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal
from weakref import WeakSet

from cache_core.backends.approver.base import Approve
from cache_core.backends.base import Embedder, WrapIndex, WrapStore
from cache_core.backends.clock import Clock
from cache_core.backends.forking import leave_to_parent
from cache_core.config.live import StartedWith
from cache_core.config.settings import Settings, load_settings
from cache_core.config.tuning import Sharing
from cache_core.model.documents import taken
from cache_core.model.exceptions import ConfigurationError
from cache_core.model.keys import NAMESPACE_PATTERN
from cache_core.model.question.snapshot import at_once, take
from cache_core.model.sealing import make_sealer
from cache_core.model.values import (
    BYPASS_REASONS,
    PUT_REASONS,
    Answer,
    BypassReason,
    Context,
    Documents,
    Invalidation,
    LookupResult,
    TierExplanation,
    Turn,
    Where,
    WithheldReason,
)
from cache_core.observability.instruments import Instrument
from cache_core.observability.verdicts import Verify
from cache_core.operations.answers import How, What
from cache_core.operations.arguments import (
    Asked,
    ask,
    check_answer_id,
    check_flag,
    check_function,
    check_intents,
    check_label,
    check_message,
    check_optional,
    check_parts,
    check_put,
    check_sharing,
    check_text,
    check_threshold,
    check_type,
    warm_item,
    wishes,
)
from cache_core.operations.compute.calling import Compute, terms_of
from cache_core.operations.compute.run import Wanted
from cache_core.operations.invalidate.outbox import Request
from cache_core.operations.sightings import Sightings
from cache_core.policy.cacheable import Cacheable
from cache_core.runtime.assembly import Given, check_redis_pool
from cache_core.runtime.hosting import host, in_loop
from cache_core.runtime.lifecycle import Engine, Family
from cache_core.runtime.operated import OperatedCache

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

    It may be used in any event loops and threads. In the first one it is open itself; for others,
    and once that one ended, it is open in a thread of its own, which takes a hit 0.1 ms longer.

    Args:
        redis_url: A Redis server or Cluster; default `REDIS_URL`, else the embedded store.
        redis_pool: A connection pool or client of redis.asyncio to use instead, also of a Cluster
            or of a Sentinel's master; it is not closed. A URL is taken as *redis_url*.
        semantic_threshold: Least cosine similarity of a semantic hit, 0..1. Default 0.95.
        embedding_model: A sentence-transformers model, or an object of the `Embedder` protocol.
            Default `all-MiniLM-L6-v2`.
        namespace: Caches with different namespaces share nothing. `[A-Za-z0-9_.-]`, 1..64.
        sharing: Whose answers every user may get: nobody's (`private`), those of *shared_intents*
            (`intents`), also what enough users got (`auto`), or `all`. Default: `intents` if
            *shared_intents* is given, else `private`.
        shared_intents: Intents whose answers are the same for every user.
        settings: Fixed settings; default: from the environment.
        instruments: Who watches; default: Prometheus metrics and OpenTelemetry spans.
        verify: Called with a message and the response that L2 served for it, for a small random
            share of semantic hits after they were served; returns whether a fresh answer agrees.
        approve: Called before serving, with a message, a stored one that is near, and the answer
            stored for that, while the nearest question is less similar than the threshold by
            `approve_margin` at most, or the policy is not sure of it. `True` serves the answer,
            `False` makes a miss. A plain function is called in a thread, a coroutine function is
            awaited; neither may depend on anything but its arguments.
        cacheable: Called with a message and its fresh response; returns `True` to store it, `False`
            not to, `None` to leave that to the rules for refusals, errors, truncated and empty
            answers. It must not wait.
        clock: Time by which entries age in the embedded store; for tests and replays.
        wrap_store, wrap_index: Called with the keyed store and with the vector index, whenever they
            are made; return what to use in their place, such as the doubles of
            `cache_core.testing` around them.

    Raises:
        ConfigurationError: For a value that cannot work; it names the value and what is expected.
        TypeError: For a *redis_pool* that is no asyncio pool or client.
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
        approve: Approve | None = None,
        cacheable: Cacheable | None = None,
        clock: Clock | None = None,
        wrap_store: WrapStore | None = None,
        wrap_index: WrapIndex | None = None,
    ) -> None:
        if redis_url is not None:
            check_text("redis_url", redis_url)
        check_text("namespace", namespace)
        check_threshold(semantic_threshold)
        check_parts(
            settings=settings,
            embedding_model=None if isinstance(embedding_model, str) else embedding_model,
            instruments=instruments,
            verify=verify,
            approve=approve,
            cacheable=cacheable,
            clock=clock,
            wrap_store=wrap_store,
            wrap_index=wrap_index,
        )
        intents = check_intents(shared_intents)
        if NAMESPACE_PATTERN.fullmatch(namespace) is None:
            msg = f"namespace={namespace!r} is refused: letters, digits, '_', '.', '-', 1 to 64"
            raise ConfigurationError(msg)
        if isinstance(redis_pool, str):
            redis_url, redis_pool = redis_pool, None
        if redis_pool is not None:
            check_redis_pool(redis_pool)
        model = embedding_model if isinstance(embedding_model, str) else None
        if settings is None:
            settings = load_settings(redis_url=redis_url, embedding_model=model)
        elif redis_url or model:
            checked = load_settings(redis_url=redis_url, embedding_model=model)
            changed = {"redis_url": redis_url, "embedding_model": model}
            settings = settings.model_copy(
                update={name: getattr(checked, name) for name, value in changed.items() if value}
            )
        arguments = {
            "semantic_threshold": semantic_threshold,
            "sharing": sharing,
            "shared_intents": intents or None,
        }
        # Keys that cannot work are reported here rather than at the first lookup.
        make_sealer(settings.encryption_keys)
        self.namespace = namespace
        self.settings = settings
        self._started_with = StartedWith(
            _changed_constants,
            {name: value for name, value in arguments.items() if value is not None},
        )
        self._given = Given(
            redis_pool=redis_pool,
            embedder=None if isinstance(embedding_model, (str, type(None))) else embedding_model,
            clock=clock,
            instruments=instruments,
            verify=verify,
            approve=approve,
            cacheable=cacheable,
            wrap_store=wrap_store,
            wrap_index=wrap_index,
        )
        self._logged_unknown: set[str] = set()
        self._family = Family()
        self._hosted = None
        self._hosting = threading.Lock()
        self._engine = self._make_engine(self._given)
        _made.add(self)
        weakref.finalize(self, _drop, self._family.engines, namespace).atexit = False

    def _make_engine(self, given: Given) -> Engine:
        return Engine(self.settings, self.namespace, self._started_with, given, self._family)

    def _host(self) -> Engine:
        """Return the engine that is open in the thread for other event loops."""
        own = self._engine
        own.leave()
        with self._hosting:
            if self._hosted is None:
                if own.home is None:
                    log.info(
                        "the event loop that the cache %r was open in has ended: it goes on in a "
                        "thread of its own. Close a cache before its loop ends to have it open in "
                        "the next one",
                        self.namespace,
                    )
                self._hosted = self._make_engine(self._given.again())
                host().guests.add(self._hosted)
            return self._hosted

    def _forked(self) -> None:
        """Start over in a forked child: what is open belongs to the parent."""
        leave_to_parent(self._engine, self._hosted)
        self._given = self._given.again()
        self._hosted = None
        self._hosting = threading.Lock()
        self._family.engines.clear()
        self._family.sightings = Sightings()
        self._family.stats.begin_anew()
        self._engine = self._make_engine(self._given)

    # ------------------------------------------------------------------------------ lookup

    @at_once
    def get_multilevel(
        self,
        message: str,
        user_id: str | None = None,
        *,
        context: Context = None,
        history: Sequence[Turn] | None = None,
        standalone: str | None = None,
    ) -> Coroutine[Any, Any, str | None]:
        """Return the cached response to *message*, or `None`. Arguments as for `lookup`."""
        asked = ask(message, user_id, take(context, history, standalone), self.settings)
        return self._response(asked)

    async def _response(self, asked: Asked) -> str | None:
        result = await self._on_current(lambda cache: cache.lookup(asked, handed_out=False))
        return result.response

    @at_once
    def lookup(
        self,
        message: str,
        user_id: str | None = None,
        *,
        context: Context = None,
        history: Sequence[Turn] | None = None,
        standalone: str | None = None,
        allow_stale: bool = False,
        max_age: float | None = None,
        max_wrong: float | None = None,
        no_lookup: bool = False,
        no_store: bool = False,
    ) -> Coroutine[Any, Any, LookupResult]:
        """Return what is known for *message*: a response, or an intent, documents, and why not.

        Args:
            message: What the user said.
            user_id: Whose private answers may be read besides the shared ones; `None`: only those.
                An id that is blank or a placeholder, as "None" or "anonymous", is taken for `None`.
                More than 1,024 characters bypass, as a message that is too large does.
            context: What else shaped the answer and rarely changes, as text or a JSON mapping:
                system prompt, model, tools, locale. Answers never cross contexts. More than 65,536
                characters bypass.
            history: The earlier turns, each a str, `{"role", "content"}`, a (role, content) pair or
                a message object. Roles, contents, names and tool calls count; ids, times and usage
                do not. A message with a history is matched only exactly, and only after the same
                turns. More than 64 MiB, or 20,000 single values, bypass.
            standalone: The message rewritten to need no history; replaces both.
            allow_stale: Also return a response that expired less than the tuning's *stale_seconds*
                ago, marked `stale`: for when computing a new one failed. It saves nothing.
            max_age: Greatest age in seconds of a response, or documents, for this call; an older
                one is a miss for the reason `too_old`, and the put that follows replaces it.
            max_wrong: Share of hits like this one that may be wrong, 0 to 0.2, instead of the
                tuning's *max_wrong*; 0 for the answers to this very message alone. It serves
                nothing less similar than the tuning does: where that has the policy off, it can
                only be stricter than the threshold.
            no_lookup: Return nothing, as a bypass for the reason `declined`: for a "regenerate"
                button, whose put replaces what is stored.
            no_store: Keep no captured text of this call; its answer is for the caller not to put.

        Raises:
            TypeError: For an argument of another type.
            ValueError: For an age below 0 or over 30 days, or a share out of range.
        """
        where = take(context, history, standalone)
        if allow_stale is not False:
            check_flag("allow_stale", allow_stale)
        wants = wishes(max_age, max_wrong, no_lookup, no_store)
        asked = ask(message, user_id, where, self.settings, wants)
        return self._on_current(
            lambda cache: cache.lookup(asked, handed_out=True, allow_stale=allow_stale)
        )

    @at_once
    def get_or_compute(
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
        document_ids: Sequence[str] = (),
        max_age: float | None = None,
        max_wrong: float | None = None,
        no_lookup: bool = False,
        no_store: bool = False,
    ) -> Coroutine[Any, Any, str]:
        """Return the cached response, or compute and store it.

        Concurrent calls for the same message, user, context and history share one computation, in
        this process and among all that use the same store. A cancelled caller does not disturb the
        others; a process that dies is replaced after `compute_lease` seconds; while the store is
        unavailable, each process computes for itself.

        With *stale_seconds* in the tuning, an expired answer is returned when computing fails, if
        it expired no longer ago; with *refresh_share*, a hit in the last part of an answer's life
        has *compute* called again in the background, once.

        Args:
            message, user_id, context, history, standalone: As for `lookup`.
            compute: Makes the response: a function or coroutine function of no argument, or of the
                `LookupResult`, whose intent and documents save it those steps. Returns the
                response, or an `Answer` with what else is to be stored. A plain function is called
                in a thread, with the caller's context variables, and may wait. Whatever it returns
                is returned, even if it cannot be stored: no text, or an `Answer` that `put`
                refuses.
            intent, shared, share_documents, ttl, tags, cost_usd, personal, document_ids: As for
                `put`.
            max_age, max_wrong: As for `lookup`.
            no_lookup: Compute again, whatever is stored, and replace it: a "regenerate" button.
            no_store: Store nothing of this call, neither the answer nor a captured text; what is
                stored is returned nevertheless. Such a call shares no computation: a hundred
                concurrent ones compute a hundred times.

        Raises:
            Exception: Whatever *compute* raises, unless a stale answer may be returned instead;
                nothing is stored then. Callers who shared the computation get a copy each.
        """
        where = take(context, history, standalone)
        check_function("compute", compute)
        check_put(None, intent, ttl, tags, cost_usd, personal)
        taken(None, document_ids, 0)
        check_sharing(shared, share_documents)
        own = Answer(
            "", intent, None, shared, share_documents, ttl=ttl, tags=tuple(tags), cost_usd=cost_usd,
            document_ids=tuple(document_ids),
        )  # fmt: skip
        said = tuple(personal)
        wants = wishes(max_age, max_wrong, no_lookup, no_store)
        asked = ask(message, user_id, where, self.settings, wants)
        return self._computed(Wanted(asked, compute, own, said, terms_of(own, said)))

    async def _computed(self, wanted: Wanted) -> str:
        wanted = replace(wanted, asked=await wanted.asked.settled())
        if not self._engine.settle():
            here = asyncio.get_running_loop()
            wanted = replace(wanted, compute=in_loop(here, wanted.compute))
        return await self._on_current(lambda cache: cache.compute(wanted))

    # ------------------------------------------------------------------------------ put

    @at_once
    def put(
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
        document_ids: Sequence[str] = (),
        answer_id: str | None = None,
        finish_reason: str | None = None,
        lookup: LookupResult | None = None,
    ) -> Coroutine[Any, Any, None]:
        """Store what answers *message*; readable when this returns.

        What cannot be stored within a second is dropped and counted. An answer that was computed
        before its message was invalidated is not stored: the lookup before it says when that was.
        It is the one given as *lookup*; else that of this task; else the oldest of this message and
        user that no put has followed yet.

        Args:
            message, user_id, context, history, standalone: As for the lookup that it answers.
            response: What the agent said; `None` or empty stores no response.
            intent: The message's label; one of more than 256 characters is not stored.
            rag_results: The documents that retrieval returned, in a list or an iterator, which is
                read here. They are copied before this first waits. Documents that would not come
                back equal and of the same types, or are too large, are left out and counted; the
                rest is stored. `invalidate_document` finds the answer by every field in them that
                names something: `id`, `source`, `metadata.doc_id`, `node.ref_doc_id`, `file_path`.
            shared: Whether every user may read the response; default: as *sharing* says.
            share_documents: Whether every user may read the documents; default: as the response.
            ttl: Seconds that this answer lives, instead of each tier's TTL; up to 30 days.
            tags: What `invalidate_tag` finds the answer by.
            cost_usd: What the answer cost, and a hit saves, in USD; default: the tuning's prices.
            personal: Names of the user. An answer that holds one, or looks personal otherwise, is
                not shared by *sharing* or promotion; `shared=True` shares it anyway.
            document_ids: Ids of the documents that the answer came from, besides those in
                *rag_results*: for documents that do not say, and where none are stored.
            answer_id: The application's own name of this answer, such as an FAQ's: what has the
                same name is the same answer, in whatever words. L2 learns from it; see
                docs/answer-quality.md.
            finish_reason: The model's reason for the answer's end, such as `stop` or `length`; a
                response that it refused or did not end is not stored, nor one that is an error or
                empty. See docs/answer-quality.md.
            lookup: What `lookup` returned, of this cache or of another on the same store: needed
                only where lookups of the same message by the same user overlap in different tasks,
                or where another process stores what was computed.

        Raises:
            TypeError: For an argument of another type, such as one document instead of a list.
            ValueError: For a TTL or cost out of range.
        """
        check_put(response, intent, ttl, tags, cost_usd, personal)
        check_sharing(shared, share_documents)
        check_answer_id(answer_id)
        check_optional("finish_reason", finish_reason)
        if lookup is not None:
            check_type("lookup", lookup, LookupResult)
        documents = taken(rag_results, document_ids, self.settings.max_value_bytes)
        where = take(context, history, standalone)
        how = How(shared, share_documents, ttl, tuple(tags), cost_usd, tuple(personal))
        what = What(response, intent, documents, answer_id=answer_id, finish_reason=finish_reason)
        return self._put(ask(message, user_id, where, self.settings), what, how, lookup)

    async def _put(self, asked: Asked, what: What, how: How, lookup: LookupResult | None) -> None:
        await self._on_current(lambda cache: cache.put(asked, what, how, lookup))

    @at_once
    def warm_cache(
        self,
        queries: Iterable[tuple[str, str | None, str]],
        *,
        context: Context = None,
        intent: str | None = None,
        ttl: float | None = None,
        tags: Sequence[str] = (),
        progress: Callable[[int], None] = lambda _: None,
    ) -> Coroutine[Any, Any, int]:
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
        check_function("progress", progress)
        how = How(shared=True, ttl=ttl, tags=tuple(tags), source="warm")
        return self._warm(items, take(context, None, None), intent, how, progress)

    async def _warm(
        self,
        items: Sequence[tuple[str, str | None, str]],
        where: Where,
        intent: str | None,
        how: How,
        progress: Callable[[int], None],
    ) -> int:
        try:
            await self.ready()
        except ConfigurationError as error:
            log.warning("warming without L2: %s", error)
        return await self._on_current(lambda cache: cache.warm(items, where, intent, how, progress))

    async def bypass(
        self, reason: BypassReason | WithheldReason, *, of: Literal["lookup", "put"] = "lookup"
    ) -> None:
        """Count a request that the cache is not asked for, or a reply that is not stored.

        For adapters: a request that bypasses is a lookup with the outcome `bypass`, a reply that is
        not stored is a put with that outcome; each has its one reason.

        Args:
            reason: One of `BYPASS_REASONS`, or of `PUT_REASONS` for a put.
            of: What is not made.

        Raises:
            ValueError: For another reason, or another operation.
        """
        known = {"lookup": BYPASS_REASONS, "put": PUT_REASONS}.get(of)
        if known is None or reason not in known:
            msg = f"reason={reason!r} of={of!r} is refused: one of BYPASS_REASONS or PUT_REASONS"
            raise ValueError(msg)
        asked = Asked("", None, Where(), reason)
        if of == "put":
            await self._put(asked, What(), How(), None)
        else:
            await self._on_current(lambda cache: cache.lookup(asked, handed_out=False))

    # ------------------------------------------------------------------------------ invalidate

    async def invalidate(
        self, query: str, user_id: str | None = None, *, dry_run: bool = False
    ) -> Invalidation:
        """Invalidate a message's answers: all tiers, users, contexts and replicas.

        Also those of every stored message that L2 would have served for it. Answers being computed
        while this happens are not stored.

        Args:
            query: The message.
            user_id: Only this user's own answers.
            dry_run: Only count them.
        """
        check_flag("dry_run", dry_run)
        check_message(query, user_id, None, self.settings)
        if user_id is not None:
            check_label("user_id", user_id)
        return await self._invalidate(Request("message", query, user_id), dry_run=dry_run)

    async def invalidate_document(self, doc_id: str, *, dry_run: bool = False) -> Invalidation:
        """Invalidate every answer to a message whose documents included *doc_id*.

        Ids are compared in Unicode's NFC. `found_nothing` of the result says that there was none.
        """
        return await self._invalidate_label("document", doc_id, dry_run=dry_run)

    async def invalidate_tag(self, tag: str, *, dry_run: bool = False) -> Invalidation:
        """Invalidate every answer to a message that was put with *tag*."""
        return await self._invalidate_label("tag", tag, dry_run=dry_run)

    async def _invalidate_label(
        self, kind: Literal["document", "tag"], value: str, *, dry_run: bool
    ) -> Invalidation:
        check_flag("dry_run", dry_run)
        label = check_label(kind, value)
        done = await self._invalidate(Request(kind, label), dry_run=dry_run)
        if done.found_nothing and kind not in self._logged_unknown:
            self._logged_unknown.add(kind)
            log.warning(
                "an invalidation found nothing that was put with this %s: either no answer came "
                "from it, or it was put under another name. Logged once; see "
                "Invalidation.found_nothing",
                kind,
            )
        return done

    async def forget_user(self, user_id: str) -> Invalidation:
        """Erase everything of a user, in every tier and replica; `counts` says how much of what.

        What is private to them, what they put for all users, their votes, the decisions and
        verdicts on them, with captured texts. What stays for 61 days is the name of one token, a
        digest: it keeps what is being computed for them from being stored.
        """
        user = check_label("user_id", user_id)
        return await self._invalidate(Request("user", user))

    async def invalidate_writer(self, user_id: str, *, dry_run: bool = False) -> Invalidation:
        """Invalidate all that a user's puts stored, for them or for everybody.

        For when a user turned out to feed the cache with wrong answers. Of each message that they
        stored something for all users for, every answer goes.
        """
        check_flag("dry_run", dry_run)
        user = check_label("user_id", user_id)
        return await self._invalidate(Request("writer", user), dry_run=dry_run)

    async def _invalidate(self, request: Request, *, dry_run: bool = False) -> Invalidation:
        return await self._on_engine(lambda engine: engine.invalidate(request, dry_run=dry_run))

    # ------------------------------------------------------------------------------ explain

    @at_once
    def explain(
        self,
        message: str,
        user_id: str | None = None,
        *,
        context: Context = None,
        history: Sequence[Turn] | None = None,
        standalone: str | None = None,
    ) -> Coroutine[Any, Any, list[TierExplanation]]:
        """Return what each tier would say to *message*, and why; counts nothing.

        Arguments as for `lookup`.
        """
        asked = ask(message, user_id, take(context, history, standalone), self.settings)
        return self._on_current(lambda cache: cache.explain(asked))


def _drop(engines: list[Engine], namespace: str) -> None:
    held = [engine for engine in engines if engine.holds_something]
    if held:
        warnings.warn(
            f"the cache {namespace!r} was dropped without being closed: await cache.close(), or "
            "open it with 'async with'",
            ResourceWarning,
            stacklevel=2,
        )
    for engine in held:
        engine.drop()


_made: WeakSet[MultiLevelCache] = WeakSet()


class _Shared:
    """The cache that `get_cache` returns, and the event loops that it was returned in."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cache: MultiLevelCache | None = None
        self._users: WeakSet[asyncio.AbstractEventLoop] = WeakSet()

    def join(self) -> MultiLevelCache:
        """Return the cache, for the running loop too."""
        with self._lock:
            if self._cache is None:
                self._cache = MultiLevelCache()
            self._users.add(asyncio.get_running_loop())
            return self._cache

    def peek(self) -> MultiLevelCache | None:
        """Return the cache if the running loop has it."""
        with self._lock:
            return self._cache if asyncio.get_running_loop() in self._users else None

    def leave(self) -> MultiLevelCache | None:
        """Return the cache if the running loop was the last one that had it."""
        with self._lock:
            self._users.discard(asyncio.get_running_loop())
            if any(not loop.is_closed() for loop in self._users):
                return None
            cache, self._cache = self._cache, None
            self._users.clear()
            return cache


_shared = _Shared()


async def get_cache() -> MultiLevelCache:
    """Return this process's shared cache, initialised; configured by the environment."""
    cache = _shared.join()
    await cache.initialize()
    return cache


def shared_cache() -> MultiLevelCache | None:
    """Return what `get_cache` returned in this event loop; `None` before."""
    return _shared.peek()


async def close_cache() -> None:
    """Close the shared cache for this event loop; idempotent.

    It goes on in the loops that have it and did not close it. After the last one `get_cache` makes
    a new one.
    """
    cache = _shared.leave()
    if cache is not None:
        await cache.close()


def _forked() -> None:
    """Give a forked child a shared cache of its own, and have the other ones start over."""
    global _shared  # noqa: PLW0603 - somebody may have held the parent's lock
    leave_to_parent(_shared)
    _shared = _Shared()
    for cache in list(_made):
        cache._forked()  # noqa: SLF001 - of this module


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
