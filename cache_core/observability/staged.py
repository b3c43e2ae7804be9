"""Evidence on a staged change: what its lookups and verdicts say of its limits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from cache_core.config.stage import Stage
from cache_core.observability.decisions import Decision
from cache_core.observability.judged import Evidence, bin_of, is_exact, pooled, wilson
from cache_core.observability.verdicts import VERDICTS_KEPT, Verdict

LEAST = 3
"""Fewest wrong hits, or failed lookups, that break a limit: one or two may be chance."""

LEAST_LOOKUPS = 10
"""Fewest lookups on which a change is confirmed: fewer show nothing."""

_TRIMMED_LATER = 200
"""Rows that the log may keep beyond its limit: Redis drops them by the hundred."""


class StageEvidence:
    """Counts of the lookups under one version of the tuning, and of the verdicts on its hits.

    Lookups that were counted stay counted when the log drops them, so a share has its denominator.

    Args:
        version: The version.
        kept: Number of lookups that the log keeps.

    Attributes:
        lookups, failed: Number of lookups, and of those that ended as errors; a sampled one counts
            for all that it stands for.
    """

    def __init__(self, version: int, kept: int) -> None:
        self.version = version
        self.lookups = self.failed = 0.0
        self._rows = 0
        self._hits = self._from_l2 = self._exact = 0.0
        self._similar: Counter[int] = Counter()
        self._remembered = kept + _TRIMMED_LATER
        self._recent: dict[str, None] = {}
        self._judged: set[str] = set()
        self._verdicts: dict[str, Verdict] = {}

    def add(self, decisions: Iterable[Decision], verdicts: Iterable[Verdict]) -> None:
        """Count lookups and verdicts; those under other versions are ignored."""
        for item in decisions:
            # a row is written again at the log's end when a user in it was erased
            new = item.lookup_id not in self._recent
            if new and item.tuning_version == self.version and item.outcome != "bypass":
                self._count(item)
        for verdict in verdicts:
            if verdict.tuning_version == self.version and verdict.level:
                self._keep(verdict)
        self._judged |= self._recent.keys() & self._verdicts.keys()

    def forget_verdicts(self) -> None:
        """Drop the verdicts, to read them again: some may have been withdrawn."""
        self._verdicts.clear()

    def _count(self, item: Decision) -> None:
        self._rows += 1
        self.lookups += item.stands_for
        self.failed += item.stands_for * (item.outcome == "error")
        if item.outcome == "hit":
            self._hits += item.stands_for
            self._from_l2 += item.stands_for * (item.level == "l2")
            if is_exact(item):
                self._exact += item.stands_for
            else:
                self._similar[bin_of(item.similarity or 0.0)] += round(item.stands_for)
        self._recent[item.lookup_id] = None
        if len(self._recent) > self._remembered:
            del self._recent[next(iter(self._recent))]

    def _keep(self, verdict: Verdict) -> None:
        known = self._verdicts.get(verdict.lookup_id)
        # feedback overrules only feedback: it would bias the random sample that `verify` judges
        if verdict.source != "feedback" or known is None or known.source == "feedback":
            self._verdicts[verdict.lookup_id] = verdict
        if len(self._verdicts) > VERDICTS_KEPT:
            oldest = next(iter(self._verdicts))
            del self._verdicts[oldest]
            self._judged.discard(oldest)

    @property
    def judged(self) -> int:
        """Number of hits with a verdict."""
        return len(self._verdicts)

    @property
    def wrong(self) -> int:
        """Number of hits whose last verdict is wrong."""
        return sum(not item.correct for item in self._verdicts.values())

    def least_wrong(self) -> float:
        """Return the lower 95 % bound of the wrong share of the hits, 0 to 1.

        It is the larger of two: by the random sample of the hits of L2 that `verify` judged; and by
        the hits that are known to be wrong, were all others right. Of the second, feedback counts
        once per user, all without one as a single user, so that no user alone breaks a limit.
        """
        if not self._hits:
            return 0.0
        sample = [item for item in self._verdicts.values() if item.source == "verify"]
        sampled = 0.0
        if sum(not item.correct for item in sample) >= LEAST:
            sampled = pooled(sample).low * self._from_l2 / self._hits
        wrong = min(self._known_wrong(), self._hits)
        return max(sampled, wilson(wrong, self._hits)[0] if wrong >= LEAST else 0.0)

    def _known_wrong(self) -> int:
        """Return the number of wrong hits among those that were counted."""
        wrong = [
            item
            for item in self._verdicts.values()
            if not item.correct and item.lookup_id in self._judged
        ]
        complained = {item.user for item in wrong if item.source == "feedback"}
        return len(complained) + sum(item.source != "feedback" for item in wrong)

    def most_wrong(self) -> float:
        """Return the upper 95 % bound of the wrong share of the hits, 0 to 1.

        Hits that are not judged count as wrong.
        """
        found = Evidence(self._verdicts.values()).share(
            round(self._exact), self._similar, round(self._exact)
        )
        return 1.0 if found.high is None else found.high

    def failed_share(self) -> tuple[float, float]:
        """Return the 95 % bounds of the share of lookups that failed, 0 to 1."""
        share = self.failed / self.lookups if self.lookups else 0.0
        return wilson(share * self._rows, self._rows)

    def broken(self, stage: Stage) -> str:
        """Return which limit of *stage* is broken, with the numbers; empty if none is."""
        least = self.least_wrong()
        if least > stage.max_wrong:
            return (
                f"at least {least:.1%} of the hits are wrong ({self.wrong:,} of {self.judged:,} "
                f"judged), more than {stage.max_wrong:.1%}"
            )
        least = self.failed_share()[0]
        if self.failed >= LEAST and least > stage.max_errors:
            return (
                f"at least {least:.1%} of the lookups fail ({self.failed:,.0f} of "
                f"{self.lookups:,.0f}), more than {stage.max_errors:.1%}"
            )
        return ""

    def __str__(self) -> str:
        """Return the counts in one line, for a person."""
        judged = "no hit was judged"
        if self.judged:
            judged = f"{self.wrong:,} of {self.judged:,} judged hits wrong"
        lookups = "1 lookup" if round(self.lookups) == 1 else f"{self.lookups:,.0f} lookups"
        return f"{lookups}, {self.failed:,.0f} failed, {judged}"
