"""Worth of the next verdict: what is known of wrong hits, and what it would add. No Streamlit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from cache_core.observability.decisions import Decision
from cache_core.observability.judged import BINS, LEAST_IN_BIN, Evidence, Share, bin_of, is_exact
from cache_core.observability.verdicts import Verdict


@dataclass(frozen=True, slots=True)
class Worth:
    """Worth of a verdict on one pair.

    Attributes:
        now: Wrong share of the recorded hits.
        if_right: The same if this pair is judged right.
        similarity: Lower end of the pair's hundredth of similarity.
        judged: Effective verdicts in that hundredth.
        hits: Share of the semantic hits in it, 0 to 1.
    """

    now: Share
    if_right: Share
    similarity: float
    judged: float
    hits: float

    def within(self, limit: float) -> bool:
        """Return whether the verdicts show that at most *limit* of the hits are wrong."""
        return self.now.enough and self.now.high is not None and self.now.high <= limit


def worth(decisions: Sequence[Decision], verdicts: Sequence[Verdict], item: Decision) -> Worth:
    """Return the worth of a verdict on *item*.

    Args:
        decisions, verdicts: All recorded ones, oldest first.
        item: Lookup of a pair.
    """
    exact, similar = 0, Counter[int]()
    for one in decisions:
        if one.outcome != "hit":
            continue
        if is_exact(one):
            exact += 1
        elif one.unvetoed is not None:
            similar[bin_of(one.unvetoed)] += 1
    place = bin_of(item.unvetoed or 0.0)
    evidence = Evidence(verdicts)
    known = evidence.bins.get(place)
    right = Verdict(
        item.at, item.lookup_id, "correct", "review", item.level, item.unvetoed, item.message,
        item.matched, item.user, item.intent,
    )  # fmt: skip
    return Worth(
        evidence.share(exact, similar, exact),
        Evidence([*verdicts, right]).share(exact, similar, exact),
        place / BINS,
        known.effective if known else 0.0,
        similar[place] / total if (total := similar.total()) else 0.0,
    )


def in_words(found: Worth, limit: float) -> str:
    """Return what the next verdict is worth, as Markdown.

    Args:
        found: Its worth.
        limit: Share of wrong hits to stay below, 0 to 1.
    """
    between = f"{found.similarity:.2f} and {min(1.0, found.similarity + 1 / BINS):.2f}"
    here = f"{found.judged:,.0f} verdicts between {between}"
    if found.judged < LEAST_IN_BIN:
        here += f"; {LEAST_IN_BIN:.0f} make it count as judged"
    if found.within(limit):
        return (
            f"**You have enough verdicts for {limit:.0%}**: at most {found.now.high:.2%} of the "
            f"recorded hits are wrong. More of them only show whether a lower threshold is safe. "
            f"({here}.)"
        )
    if not found.hits:
        return (
            "No recorded hit is as similar as this pair: a verdict shows whether a lower threshold "
            f"is safe. {here}."
        )
    high = 1.0 if found.now.high is None else found.now.high
    then = 1.0 if found.if_right.high is None else found.if_right.high
    gain = f" If this answer is right: {then:.2%}." if then < high - 5e-5 else ""
    return (
        f"**At most {high:.2%} of the recorded hits are wrong** (95% confidence); the aim is "
        f"{limit:.0%}.{gain} {found.hits:.0%} of the semantic hits are as similar as this pair: "
        f"{here}."
    )
