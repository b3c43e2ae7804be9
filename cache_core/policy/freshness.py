"""Time for which answers stay true, from fresh ones compared with those that they replace.

Changes are taken for a Poisson process, of which each comparison sees whether there was at least
one since the answer was stored. Its rate is estimated as in Cho and Garcia-Molina, "Estimating
Frequency of Change" (ACM TOIT 3, 2003), with half a change more, so that a few comparisons without
one do not promise that nothing ever changes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

ENOUGH = 20
"""Comparisons below which nothing is recommended."""

OUTDATED = 0.01
"""Share of its served time in which an answer may be outdated, for the recommendation."""

_SHORTEST, _LONGEST = 60.0, 30 * 86_400.0


@dataclass(slots=True)
class Freshness:
    """Comparisons of one intent's answers.

    Attributes:
        unchanged_at_expiry: Answers that were the same when they had expired.
        unchanged_before: Answers that were the same when they were recomputed before that.
        changed: Answers that had changed, expired or not.
        seconds: Ages of all of them together.
        unknown: Comparisons in which nothing told whether the answer had changed.
        failed: Comparisons that the store did not allow, or not completely.
    """

    unchanged_at_expiry: int = 0
    unchanged_before: int = 0
    changed: int = 0
    seconds: float = 0.0
    unknown: int = 0
    failed: int = 0

    def note(self, age: float, *, changed: bool, expired: bool) -> None:
        """Count a comparison with an answer of some *age* in seconds."""
        self.seconds += age
        if changed:
            self.changed += 1
        elif expired:
            self.unchanged_at_expiry += 1
        else:
            self.unchanged_before += 1

    @property
    def ttl(self) -> float | None:
        """TTL in seconds at which answers are outdated for `OUTDATED` of the time; None if unknown.

        With a rate r of changes that is 1 - (1 - exp(-r t)) / (r t) for a TTL of t: about r t / 2.
        """
        compared = self.unchanged_at_expiry + self.unchanged_before + self.changed
        if compared < ENOUGH or not self.seconds:
            return None
        same = (compared - self.changed + 0.5) / (compared + 1)
        rate = -math.log(same) / (self.seconds / compared)
        return min(_LONGEST, max(_SHORTEST, 2 * OUTDATED / rate))

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        ttl = self.ttl
        return {
            "unchanged_at_expiry": self.unchanged_at_expiry,
            "unchanged_before": self.unchanged_before,
            "changed": self.changed,
            "unknown": self.unknown,
            "failed": self.failed,
            "recommended_ttl": None if ttl is None else round(ttl),
        }
