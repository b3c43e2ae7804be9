"""The parts of L2: model, index, feed and tier. Importing this needs the `semantic` extra."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cache_core.breaker import Breaker
from cache_core.embedder import Embedder, shared_embedder
from cache_core.feed import IndexFeed
from cache_core.instrumentation import Instruments
from cache_core.keys import Keys
from cache_core.observed import ObservedEmbedder, ObservedIndex, VectorCheck
from cache_core.recent import RecentInvalidations
from cache_core.settings import Settings
from cache_core.stores.base import KeyValueStore
from cache_core.stores.vectors import VectorIndex, WrapIndex
from cache_core.tiers.semantic import SemanticTier
from cache_core.tiers.similar import SimilarQuestions
from cache_core.vetoes import Vetoes


@dataclass(frozen=True, slots=True)
class SemanticParts:
    """Everything that L2 is made of.

    Attributes:
        tier: L2.
        quiet: The same for `explain`: what it does is not observed.
        similar: Finds what L2 would serve for a message, to invalidate it.
        index: Shared answers, observed.
        chroma: The same, bare.
        embedder: The model.
        feed: From and to other processes' indexes.
    """

    tier: SemanticTier
    quiet: SemanticTier
    similar: SimilarQuestions
    index: ObservedIndex
    chroma: Any
    embedder: ObservedEmbedder
    feed: IndexFeed

    @property
    def breakers(self) -> dict[str, Breaker]:
        """The breakers of Chroma and of the embedder."""
        return {"chroma": self.index.breaker, "embedder": self.embedder.breaker}


async def assemble_semantic(
    settings: Settings,
    keys: Keys,
    store: KeyValueStore,
    directory: Path | None,
    instruments: Instruments,
    replica: str,
    embedding_price: Callable[[], float],
    embedder: Embedder | None,
    vetoes: Vetoes,
    recent: RecentInvalidations,
    wrap_index: WrapIndex | None = None,
) -> SemanticParts:
    """Return the open parts of L2; the model goes on loading.

    Args:
        settings: For the model, the server and the budgets.
        keys: Names.
        store: For private answers and the feed.
        directory: Of the embedded index; `None` to use the server that the settings name.
        instruments: Told of embeddings and searches.
        replica: Name of this process.
        embedding_price: Returns what one embedding costs, in USD.
        embedder: Instead of the one that the settings name.
        vetoes: What must not be served while its invalidation is pending.
        recent: What puts that waited for the model are held against.
        wrap_index: Returns what to use in the place of the index.
    """
    model = embedder or shared_embedder(settings.embedding_model, settings.torch_threads)
    keys.model = keys.label("model", model.model)[:12]
    breaker = Breaker(
        "embedder", failures=settings.breaker_failures, probe_seconds=settings.breaker_probe
    )
    check = VectorCheck()
    observed, patient = (
        ObservedEmbedder(model, instruments, breaker, budget, embedding_price, check)
        for budget in (settings.embedding_budget, settings.put_budget)
    )
    observed.start()
    # Importing Chroma takes most of a second: not on the event loop.
    module = await asyncio.to_thread(importlib.import_module, "cache_core.stores.chroma")
    chroma = module.ChromaIndex(
        namespace=keys.namespace,
        model=observed.model,
        default_context=keys.no_context,
        directory=directory,
        url=settings.chroma_url,
        search_timeout=settings.search_budget,
        max_contexts=settings.max_contexts,
        breaker_failures=settings.breaker_failures,
        breaker_probe=settings.breaker_probe,
    )
    bare: VectorIndex = chroma if wrap_index is None else wrap_index(chroma)
    index = ObservedIndex(bare, instruments)
    await index.open()
    unwatched = ObservedEmbedder(
        model, Instruments(), breaker, settings.embedding_budget, embedding_price, check
    )
    feed = IndexFeed(store, keys, index, chroma.place, replica, unwatched)
    alone = "l1" not in settings.tiers
    similar = SimilarQuestions(store, keys, index, patient)
    # Its vector has been made, and counted, when the put made itself known.
    again = ObservedEmbedder(
        model, Instruments(), breaker, settings.put_budget, embedding_price, check
    )
    tier = SemanticTier(
        store, keys, index, observed, again, feed, similar, recent, vetoes, alone=alone
    )
    quiet = tier.unobserved(bare, unwatched)
    return SemanticParts(tier, quiet, similar, index, chroma, observed, feed)
