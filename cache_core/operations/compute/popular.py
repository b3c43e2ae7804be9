"""Popular answers, of which a share of the hits is used to see whether they changed."""

from __future__ import annotations

from collections import OrderedDict

from cache_core.model.values import LookupResult

_KEPT = 10_000
"""Answers whose hits are counted, those hit last."""


class Popular:
    """Counts the hits of each answer of this process since its last check.

    Whichever question was asked counts; so with a share of 0.02 an answer is due at every fiftieth
    hit, and one that is hit less often never is.
    """

    def __init__(self) -> None:
        self._hits: OrderedDict[int, int] = OrderedDict()

    def due(self, result: LookupResult, share: float) -> bool:
        """Count a hit; return whether its answer is to be checked by it.

        Args:
            result: Of the lookup. Only the answer to this very message can be checked by it, and
                only one that is not private.
            share: Share of the hits that check, more than 0.
        """
        name = hash(result.response)
        hits = self._hits.pop(name, 0) + 1
        due = hits * share >= 1 and result.stored_for in {"shared", "policy"}
        self._hits[name] = 0 if due else hits
        if len(self._hits) > _KEPT:
            self._hits.popitem(last=False)
        return due
