"""Parts of L2 that an invalidation changes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # these need the `semantic` extra
    from cache_core.tiers.semantic.replication import IndexFeed
    from cache_core.tiers.semantic.similar import SimilarQuestions
    from cache_core.tiers.semantic.waiting import WaitingPuts


@dataclass(frozen=True, slots=True)
class Semantic:
    """Parts of L2 that keep questions.

    Attributes:
        waiting: Puts that wait for the model.
        questions: The vector index and the users' own vectors.
        feed: Log from which other processes build their indexes.
    """

    waiting: WaitingPuts
    questions: SimilarQuestions
    feed: IndexFeed
