"""Parts of L2: model, index, replication and tier. Importing this needs the `semantic` extra."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

from cache_core.backends.base import Embedder, VectorIndex
from cache_core.backends.breaker import Breaker
from cache_core.backends.embedder.choosing import shared_embedder
from cache_core.backends.embedder.identity import identity_of
from cache_core.model.question.days import Days
from cache_core.model.tasks import off_loop
from cache_core.observability.observed import ObservedVectors
from cache_core.operations.replica import Replica
from cache_core.runtime.assembly import Given, Parts, suppressed
from cache_core.runtime.vectors import make_index
from cache_core.tiers import guards
from cache_core.tiers.semantic.choosing import Choosing
from cache_core.tiers.semantic.former import FormerAnswers
from cache_core.tiers.semantic.models import KnownModels
from cache_core.tiers.semantic.replication import IndexFeed
from cache_core.tiers.semantic.rows import SharedRows
from cache_core.tiers.semantic.search import SemanticSearch
from cache_core.tiers.semantic.similar import SimilarQuestions
from cache_core.tiers.semantic.tier import SemanticTier
from cache_core.tiers.semantic.vectors import Vectors
from cache_core.tiers.semantic.waiting import WaitingPuts


@dataclass(frozen=True, slots=True)
class SemanticParts:
    """Parts of L2.

    Attributes:
        tier: L2.
        similar: Finds stored questions that L2 would serve for a message, to invalidate them.
        index: Index of shared answers.
        engine: The same without a wrapper.
        embedder: The model.
        breakers: Those of the index and of the embedder.
        feed: Replication from and to other processes' indexes.
        vectors: The model and the index, as L2 asks them.
        former: Answers with vectors of other models.
    """

    tier: SemanticTier
    similar: SimilarQuestions
    index: VectorIndex
    engine: Any
    embedder: Embedder
    breakers: Mapping[str, Breaker]
    feed: IndexFeed
    vectors: Vectors
    former: FormerAnswers


async def assemble_semantic(
    parts: Parts,
    replica: Replica,
    given: Given,
    closing: AsyncExitStack,
) -> SemanticParts:
    """Return the open parts of L2; the model continues to load.

    Args:
        parts: The other parts of the cache.
        replica: The cache.
        given: Parts that are not made here.
        closing: Closes the parts, the last one first.
    """
    settings, store, keys = replica.settings, parts.store, parts.keys
    model = given.embedder
    if model is None:
        model = await off_loop(
            shared_embedder,
            settings.embedding_model,
            settings.embedding_backend,
            settings.torch_threads,
            settings.endpoint,
        )
    # Before it starts to load, so that both use the same files.
    identity = await off_loop(identity_of, model)
    keys.model = keys.model_digest(identity)
    model.start()
    await off_loop(guards.load)
    engine = await make_index(settings, given, store, keys, identity)
    index: VectorIndex = engine if given.wrap_index is None else given.wrap_index(engine)
    await index.open()
    closing.push_async_callback(index.close)
    vectors = ObservedVectors(model, index, settings, replica.instruments, replica.live)
    feed = IndexFeed(store, keys, vectors, engine.place, replica.name)
    similar = SimilarQuestions(store, keys, vectors)
    rows = SharedRows(store, keys, index, feed, similar)
    waiting = WaitingPuts(store, keys, similar, parts.journal, parts.denylist, model)
    choosing = Choosing(keys, parts.evidence, shadows=settings.decisions > 0)
    days = Days(settings.timezone)
    search = SemanticSearch(store, keys, vectors, rows, parts.denylist, days, choosing)
    former = FormerAnswers(
        store, keys, engine, KnownModels(store, keys, identity), own_index=feed.own_index
    )
    alone = "l1" not in settings.tiers
    tier = SemanticTier(store, keys, search, vectors, rows, waiting, alone=alone)
    closing.push_async_callback(suppressed, tier.tend)
    breakers = {index.breaker.backend: index.breaker, "embedder": vectors.breaker}
    return SemanticParts(tier, similar, index, engine, model, breakers, feed, vectors, former)
