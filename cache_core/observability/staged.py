"""Evidence on a staged change: what its lookups and verdicts say of its limits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from cache_core.config.stage import Stage
from cache_core.observability.decisions import Decision
from cache_core.observability.judged import Evidence, bin_of, is_exact, pooled, wilson
from cache_core.observability.verdicts import Verdict

LEAST = 3
"""Fewest wrong hits, or failed lookups, that break a limit: one or two may be chance."""


class StageEvidence:
    """Counts of the lookups under one version of the tuning, and of the verdicts on its hits.

    Args:
        version: The version.

    Attributes:
        lookups, failed: Number of lookups, and of those that ended as errors; a sampled one counts
            for all that it stands for.
    """

    def __init__(self, version: int) -> None:
        self.version = version
        self.lookups = self.failed = 0.0
        self._rows = self._exact = 0
        self._similar: Counter[int] = Counter()
        self._verdicts: dict[str, Verdict] = {}

    def add(self, decisions: Iterable[Decision], verdicts: Iterable[Verdict]) -> None:
        """Count lookups and verdicts; those under other versions are ignored."""
        for item in decisions:
            if item.tuning_version != self.version or item.outcome == "bypass":
                continue
            self._rows += 1
            self.lookups += item.stands_for
            self.failed += item.stands_for * (item.outcome == "error")
            if item.outcome == "hit" and is_exact(item):
                self._exact += 1
            elif item.outcome == "hit":
                self._similar[bin_of(item.similarity or 0.0)] += 1
        for verdict in verdicts:
            if verdict.tuning_version == self.version and verdict.level:
                self._verdicts[verdict.lookup_id] = verdict

    @property
    def judged(self) -> int:
        """Number of hits with a verdict."""
        return len(self._verdicts)

    @property
    def wrong(self) -> int:
        """Number of hits whose last verdict is wrong."""
        return sum(not item.correct for item in self._verdicts.values())

    def wrong_share(self) -> tuple[float, float]:
        """Return 95 % bounds of the wrong share of the hits, 0 to 1.

        The lower one is the largest of three: by similarity, as for the recommendation; by the
        random sample that `verify` judged; and by the known wrong hits, were all others right. The
        upper one takes hits that are not judged for wrong.
        """
        hits = self._exact + self._similar.total()
        if not hits:
            return 0.0, 1.0
        evidence = Evidence(self._verdicts.values())
        found = evidence.share(self._exact, self._similar, self._exact)
        sample = [item for item in self._verdicts.values() if item.source == "verify"]
        sampled = pooled(sample).low * self._similar.total() / hits if sample else 0.0
        known = wilson(min(self.wrong, hits), hits)[0]
        return max(found.low or 0.0, sampled, known), 1.0 if found.high is None else found.high

    def failed_share(self) -> tuple[float, float]:
        """Return the 95 % bounds of the share of lookups that failed, 0 to 1."""
        share = self.failed / self.lookups if self.lookups else 0.0
        return wilson(share * self._rows, self._rows)

    def broken(self, stage: Stage) -> str:
        """Return which limit of *stage* is broken, with the numbers; empty if none is."""
        least = self.wrong_share()[0]
        if self.wrong >= LEAST and least > stage.max_wrong:
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
