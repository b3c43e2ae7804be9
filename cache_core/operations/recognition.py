"""Recognition of the same answer where neither names nor texts are equal: by facts and vectors.

It takes milliseconds, and a model: nothing that a user waits for may ask for it.
"""

from __future__ import annotations

from cache_core.backends.embedder.encoder import PACKAGED_MODEL
from cache_core.model.exceptions import BackendError
from cache_core.policy.answers import AnswerText, Verdict, certain, judged
from cache_core.tiers.guards.answers import compare
from cache_core.tiers.semantic.vectors import Vectors


class Recognition:
    """Compares answers.

    Args:
        vectors: The model of L2; `None` without L2.
    """

    def __init__(self, vectors: Vectors | None) -> None:
        # Cosines of another model have another scale, for which no bounds were chosen.
        chosen = vectors is not None and _name(vectors) == PACKAGED_MODEL
        self._vectors = vectors if chosen else None

    async def verdict(self, one: AnswerText, other: AnswerText) -> Verdict:
        """Return whether two answers are the same; unknown where nothing tells."""
        sure = certain(one, other)
        if sure is not None:
            return "same" if sure else "different"
        if not (self._reads(one.text) and self._reads(other.text)):
            return "unknown"
        facts = compare(one.text, other.text)
        if facts == "conflict":
            return "different"
        similarity = await self._similarity(one.text, other.text)
        return "unknown" if similarity is None else judged(similarity, agree=facts == "agree")

    def _reads(self, text: str) -> bool:
        """Return whether the model is there and reads the whole *text*."""
        if self._vectors is None or not self._vectors.embedder.ready:
            return False
        embedder = self._vectors.embedder
        return embedder.fits(text) and embedder.knows(text)

    async def _similarity(self, one: str, other: str) -> float | None:
        """Return the cosine of two answers; `None` if the model did not answer in time."""
        if self._vectors is None:
            return None
        try:
            # Not recorded: instruments show what lookups and puts wait for, and it costs no money.
            ours = await self._vectors.embed(one, recorded=False)
            theirs = await self._vectors.embed(other, recorded=False)
        except BackendError:
            return None
        return float(ours @ theirs)


def _name(vectors: Vectors) -> str:
    return vectors.embedder.model.rpartition("/")[2]
