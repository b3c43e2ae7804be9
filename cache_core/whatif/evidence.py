"""How often hits are wrong, by similarity, and how sure that is.

Users complain of what is wrong and reviewers look at what is near the threshold: their verdicts
are no random sample of the hits. Within a hundredth of similarity they are taken for one, and the
hundredths are then weighted by the traffic, not by the verdicts. Nothing is assumed of how the
wrong share changes from one hundredth to the next: a changed number scores higher than a true
paraphrase.

Verdicts on the same pair of questions say the same thing over and over: they count by Kish's
effective number, which for verdicts on pairs all different is their number.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cache_core.verdicts import Verdict
from cache_core.whatif.simulation import BINS

Z = 1.96
"""Standard errors to either side of an estimate: 95 % between the two bounds, and 97.5 % of the
time the truth is under the upper one."""

LEAST_IN_BIN = 5.0
"""Effective verdicts below which a hundredth of similarity counts as not judged at all."""

LEAST_EVIDENCE = 100
"""Effective verdicts below which no share of wrong hits is called known."""

MOST_UNJUDGED = 0.02
"""Share of the semantic hits, 0..1, that may lie where there are no verdicts."""


def wilson(wrong: float, total: float) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a share; (0, 1) without any."""
    if total <= 0:
        return 0.0, 1.0
    share = wrong / total
    centre = share + Z * Z / (2 * total)
    spread = Z * math.sqrt(share * (1 - share) / total + Z * Z / (4 * total * total))
    scale = 1 + Z * Z / total
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


@dataclass(frozen=True, slots=True)
class Bin:
    """Verdicts on hits of like similarity.

    Attributes:
        verdicts: Their number.
        effective: Kish's effective number.
        share: Wrong ones of them, 0..1.
        low, high: Wilson's 95 % interval.
    """

    verdicts: int
    effective: float
    share: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Share:
    """The wrong share of a mix of hits.

    Attributes:
        share: The estimate, 0..1; `None` without any evidence.
        low, high: The 95 % interval; where nothing was judged everything may be wrong.
        evidence: Effective verdicts behind it.
        enough: Whether it may be relied upon.
        unjudged: Share of the semantic hits where there are no verdicts, 0..1.
    """

    share: float | None
    low: float | None
    high: float | None
    evidence: int
    enough: bool
    unjudged: float


class Evidence:
    """What verdicts say, by similarity.

    The last verdict on a lookup counts. An exact hit is right unless a verdict says that it was
    not: only those are wrong.

    Args:
        verdicts: Oldest first.
    """

    def __init__(self, verdicts: Iterable[Verdict]) -> None:
        last = {item.lookup_id: item for item in verdicts}
        judged: dict[int, list[Verdict]] = defaultdict(list)
        self.exact_wrong = 0
        for item in last.values():
            if item.level == "l1" or item.matched == item.message:
                self.exact_wrong += not item.correct
            elif item.similarity is not None:
                judged[min(BINS, int(item.similarity * BINS + 1e-9))].append(item)
        self.bins = {number: _bin(items) for number, items in judged.items()}

    def share(self, exact: int, similar: Mapping[int, int], exact_known: int) -> Share:
        """Return the wrong share of a mix of hits.

        The bins' intervals are put together by the method of variance estimates recovery (Zou and
        Donner), which keeps their lopsidedness: no wrong verdict does not mean no wrong hit. What
        was not judged is added whole.

        Args:
            exact: Exact hits.
            similar: Semantic hits by hundredth of similarity.
            exact_known: Exact hits that the verdicts on exact hits come from.
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
            return Share(None, None, None, 0, False, unjudged)
        low = max(0.0, share - math.sqrt(below))
        high = min(1.0, share + math.sqrt(above) + unknown)
        # The hits that nobody judged are wrong as often as the others, for want of better.
        share = min(high, share / (1 - unknown)) if unknown < 1 else share
        return Share(share, low, high, evidence, enough, unjudged)


def _bin(items: list[Verdict]) -> Bin:
    pairs = Counter((item.message, item.matched, item.user) for item in items)
    effective = len(items) ** 2 / sum(count * count for count in pairs.values())
    share = sum(not item.correct for item in items) / len(items)
    low, high = wilson(share * effective, effective)
    return Bin(len(items), effective, share, low, high)
