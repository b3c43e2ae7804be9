"""Share of wrong hits by similarity, with its uncertainty.

Users complain about wrong hits and reviewers look near the threshold: their verdicts are no random
sample of the hits. Within a hundredth of similarity they are treated as one, and the
hundredths are weighted by the traffic, not by the verdicts. Nothing is assumed about the change
from one hundredth to the next: a changed number scores higher than a true paraphrase.

Verdicts on the same pair of questions repeat each other: they count by Kish's effective number,
which for verdicts on distinct pairs is their number.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from cache_core.observability.decisions import Decision
from cache_core.observability.verdicts import Verdict

BINS = 100
"""Number of bins of similarity: steps of 1/100."""

Z = 1.96
"""Standard errors on either side of an estimate: 95 % lie between the two bounds, and 97.5 % below
the upper one."""

LEAST_IN_BIN = 5.0
"""Fewest effective verdicts of a hundredth of similarity that counts as judged."""

LEAST_EVIDENCE = 100
"""Fewest effective verdicts for a share of wrong hits to count as known."""

MOST_UNJUDGED = 0.02
"""Largest share of the semantic hits, 0 to 1, that may lack verdicts."""


def wilson(wrong: float, total: float) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a share; (0, 1) for a total of 0."""
    if total <= 0:
        return 0.0, 1.0
    share = wrong / total
    centre = share + Z * Z / (2 * total)
    spread = Z * math.sqrt(share * (1 - share) / total + Z * Z / (4 * total * total))
    scale = 1 + Z * Z / total
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def bin_of(similarity: float) -> int:
    """Return the hundredth of a similarity, rounded down."""
    return min(BINS, int(similarity * BINS + 1e-9))


def is_exact(item: Decision) -> bool:
    """Return whether a hit is of the same words, from L1 or, once that expired, from L2."""
    return item.level == "l1" or item.matched == item.message


@dataclass(frozen=True, slots=True)
class Bin:
    """Verdicts on hits of similar similarity.

    Attributes:
        verdicts: Number of verdicts.
        effective: Kish's effective number.
        share: Share of wrong ones, 0 to 1.
        low, high: Wilson's 95 % interval.
    """

    verdicts: int
    effective: float
    share: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Share:
    """Wrong share of a mix of hits.

    Attributes:
        share: The estimate, 0 to 1; `None` without any evidence.
        low, high: The 95 % interval; hits without verdicts may all be right, or wrong.
        evidence: Number of effective verdicts.
        enough: Whether the evidence suffices to rely on it.
        unjudged: Share of the semantic hits without verdicts, 0 to 1.
    """

    share: float | None
    low: float | None
    high: float | None
    evidence: int
    enough: bool
    unjudged: float


class Evidence:
    """Evidence of verdicts, by similarity.

    The last verdict on a lookup counts. An exact hit is right unless a verdict says otherwise.

    Args:
        verdicts: Verdicts, oldest first.
    """

    def __init__(self, verdicts: Iterable[Verdict]) -> None:
        last = {item.lookup_id: item for item in verdicts}
        judged: dict[int, list[Verdict]] = defaultdict(list)
        self.exact_wrong = 0
        for item in last.values():
            if item.level == "l1" or item.matched == item.message:
                self.exact_wrong += not item.correct
            elif item.similarity is not None:
                judged[bin_of(item.similarity)].append(item)
        self.bins = {number: pooled(items) for number, items in judged.items()}

    def share(self, exact: int, similar: Mapping[int, int], exact_known: int) -> Share:
        """Return the wrong share of a mix of hits.

        The bins' intervals are combined by the method of variance estimates recovery (Zou and
        Donner), which keeps their asymmetry: no wrong verdict does not mean no wrong hit. The
        unjudged share is added to the upper bound.

        Args:
            exact: Number of exact hits.
            similar: Number of semantic hits by hundredth of similarity.
            exact_known: Number of exact hits that the verdicts on exact hits come from.
        """
        semantic = sum(similar.values())
        hits = exact + semantic
        if not hits:
            return Share(None, None, None, 0, False, 0.0)
        share = exact * min(1.0, self.exact_wrong / max(1, exact_known)) / hits
        below = above = weight = kish = 0.0
        for number, count in similar.items():
            found = self.bins.get(number)
            if found is None or found.effective < LEAST_IN_BIN:
                continue
            part = count / hits
            weight += part
            kish += part * part / found.effective
            share += part * found.share
            below += (part * (found.share - found.low)) ** 2
            above += (part * (found.high - found.share)) ** 2
        unknown = max(0.0, semantic / hits - weight)
        evidence = int(weight * weight / kish + 1e-9) if kish else 0
        unjudged = unknown * hits / semantic if semantic else 0.0
        enough = not semantic or (evidence >= LEAST_EVIDENCE and unjudged <= MOST_UNJUDGED)
        if semantic and not weight:
            return Share(None, share, min(1.0, share + unknown), 0, False, unjudged)
        low = max(0.0, share - math.sqrt(below))
        high = min(1.0, share + math.sqrt(above) + unknown)
        # assume that unjudged hits are wrong as often as the others
        share = min(high, share / (1 - unknown)) if unknown < 1 else share
        return Share(share, low, high, evidence, enough, unjudged)


def pooled(items: Sequence[Verdict]) -> Bin:
    """Return the verdicts as one bin; there must be at least one."""
    pairs = Counter((item.message, item.matched, item.user) for item in items)
    effective = len(items) ** 2 / sum(count * count for count in pairs.values())
    share = sum(not item.correct for item in items) / len(items)
    low, high = wilson(share * effective, effective)
    return Bin(len(items), effective, share, low, high)
