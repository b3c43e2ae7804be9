"""Verdicts by the demo, which knows the right answers, and the threshold that follows from them."""

from __future__ import annotations

import asyncio
from collections import deque

from cache_core import BackendError, MultiLevelCache
from cache_core.cli.demo.agent import Served
from cache_core.observability.decisions import Decision
from cache_core.observability.verdicts import Source
from cache_core.whatif import Recommendation, recommend

_TOGETHER = 50
"""Requests between two rounds of judging; the cache remembers its last 200 decisions."""

_RECENT = 200
_KEPT = 2_000
LIMIT = 0.02
"""Share of wrong hits that the recommendation stays within: 1 % takes a few minutes more."""

_NEAR = 0.6
"""Similarity from which a question that was not answered is judged, too, as in a review."""


class Truth:
    """Judge of the cache's answers.

    Semantic hits get verdicts as from a `verify` function that checks all of them; near misses get
    those of a review.

    Args:
        cache: The cache to judge.

    Attributes:
        verdicts: Number of verdicts given.
        recommendation: The threshold that the verdicts support; `None` before the first round.
    """

    def __init__(self, cache: MultiLevelCache) -> None:
        self._cache = cache
        self._asked: list[tuple[str, str]] = []
        self._answers: dict[str, str] = {}
        self._decisions: deque[Decision] = deque(maxlen=_KEPT)
        self.verdicts = 0
        self.recommendation: Recommendation | None = None

    async def add(self, served: Served) -> None:
        """Judge an answered request, together with others."""
        self._asked.append((served.result.lookup_id, served.request.answer_id))
        if len(self._asked) >= _TOGETHER:
            await self.judge()

    async def judge(self) -> None:
        """Judge the requests since the last round; verdicts that cannot be stored are lost."""
        asked, self._asked = self._asked, []
        recent = {item.lookup_id: item for item in self._cache.recent(_RECENT)}
        try:
            for lookup_id, answer_id in asked:
                if (item := recent.get(lookup_id)) is not None:
                    self._decisions.append(item)
                    await self._judge(item, answer_id)
            verdicts = await self._cache.verdicts()
        except BackendError:
            return
        decisions, tuning = list(self._decisions), self._cache.tuning
        self.recommendation = await asyncio.to_thread(
            recommend, decisions, verdicts, tuning=tuning, max_wrong_share=LIMIT
        )

    async def _judge(self, item: Decision, answer_id: str) -> None:
        right = self._answers.get(item.matched)
        self._answers.setdefault(item.message, answer_id)
        if right is None or item.matched == item.message or item.unvetoed is None:
            return
        hit = item.outcome == "hit"
        if hit or item.unvetoed >= _NEAR:
            source: Source = "verify" if hit else "review"
            self.verdicts += await self._cache.judge(
                item, correct=right == answer_id, source=source
            )
