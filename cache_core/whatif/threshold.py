"""Effect of other similarity thresholds, and a recommendation."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from cache_core.config.tuning import Tuning
from cache_core.observability.decisions import Decision
from cache_core.observability.judged import LEAST_EVIDENCE, Evidence, Z, is_exact
from cache_core.observability.verdicts import Verdict
from cache_core.whatif.simulation import Simulation

GRID = tuple(round(0.5 + number / 100, 2) for number in range(51))
"""Thresholds that are tried: 0.50 to 1.00 in steps of 0.01."""

_RECORDED = 16
"""Most recorded thresholds that are added to the grid; each costs a little time."""


@dataclass(frozen=True)
class ThresholdEstimate:
    """Effect of one threshold on the recorded traffic.

    Attributes:
        threshold: Lowest similarity of a semantic hit, 0 to 1.
        hits, lookups: Number of lookups with a response, and of those that could have had one.
        hit_rate: Share of hits among them, 0 to 1.
        wrong_share: Share of wrong hits among the hits, 0 to 1; `None` without evidence.
        wrong_low, wrong_high: The share's 95 % interval.
        evidence: Number of effective verdicts.
        enough: Whether the evidence suffices to rely on it.
        saved_usd: Saving of the hits, and of intents and documents without a hit.
        latency_ms: Mean time of a lookup: today's times of exact hits, semantic hits and the
            others, in their new shares. It excludes the agent's time after a miss.
    """

    threshold: float
    hits: int
    lookups: int
    hit_rate: float
    wrong_share: float | None
    wrong_low: float | None
    wrong_high: float | None
    evidence: int
    enough: bool
    saved_usd: float
    latency_ms: float


@dataclass(frozen=True)
class Recommendation:
    """The threshold with the most hits whose wrong share keeps within the owner's limit.

    Attributes:
        threshold: The threshold to set; `None` if the evidence permits none.
        estimate: The effect of that threshold.
        current: The effect of today's threshold.
        reasons: Sentences for the owner.
    """

    threshold: float | None
    estimate: ThresholdEstimate | None
    current: ThresholdEstimate
    reasons: list[str]


def thresholds(
    decisions: Sequence[Decision],
    verdicts: Iterable[Verdict],
    *,
    tuning: Tuning,
    grid: Sequence[float] = GRID,
) -> list[ThresholdEstimate]:
    """Return the effect of each threshold on the recorded lookups, ascending.

    Args:
        decisions: Decisions of the log, oldest first.
        verdicts: Verdicts on lookups, of this log or an older one.
        tuning: The tuning in force; its threshold is added to the grid. Intents with a threshold of
            their own keep it.
        grid: Thresholds to try, 0 to 1.

    `cache_core.whatif.simulation` lists the assumptions.
    """
    wanted = {*grid, tuning.semantic_threshold}
    # at the thresholds in force during the recording, it is known what was stored
    recorded = Counter(item.threshold for item in decisions).most_common(_RECORDED)
    values = sorted({*wanted, *(value for value, _ in recorded)})
    found = Simulation(values, tuning).run(decisions)
    known = sum(item.outcome == "hit" and is_exact(item) for item in decisions)
    estimates = _Estimates(found.lookups, Evidence(verdicts), known, _Times(decisions))
    exact, same = found.by_threshold(found.exact), found.by_threshold(found.same)
    similar = {place: found.by_threshold(counts) for place, counts in found.similar.items()}
    saved = found.by_threshold(found.saved_usd)
    return [
        estimates.of(
            value,
            int(exact[number]),
            int(same[number]),
            {place: int(count[number]) for place, count in similar.items() if count[number]},
            saved[number] + found.fixed_usd,
        )
        for number, value in enumerate(values)
        if value in wanted
    ]


def recommend(
    decisions: Sequence[Decision],
    verdicts: Iterable[Verdict],
    *,
    tuning: Tuning,
    max_wrong_share: float = 0.01,
    grid: Sequence[float] = GRID,
) -> Recommendation:
    """Return the threshold with the most hits that keeps the wrong share within *max_wrong_share*.

    Not only the estimate but the upper bound of the 95 % interval must stay within it; of equal hit
    rates the higher threshold wins.

    Args:
        decisions, verdicts, tuning, grid: Arguments of `thresholds`.
        max_wrong_share: Share of wrong hits that the owner accepts, 0 to 1.

    Raises:
        ValueError: If *max_wrong_share* is not between 0 and 1.
    """
    estimates = thresholds(decisions, verdicts, tuning=tuning, grid=grid)
    return recommend_from(estimates, tuning=tuning, max_wrong_share=max_wrong_share)


def recommend_from(
    estimates: Sequence[ThresholdEstimate], *, tuning: Tuning, max_wrong_share: float
) -> Recommendation:
    """Return `recommend`'s result from *estimates*, the result of `thresholds`."""
    if not 0 <= max_wrong_share <= 1:
        msg = f"max_wrong_share={max_wrong_share!r} is refused: a share from 0 to 1"
        raise ValueError(msg)
    current = next(item for item in estimates if item.threshold == tuning.semantic_threshold)
    if not current.lookups:
        return Recommendation(None, None, current, ["No lookups are recorded yet."])
    judged = [item for item in estimates if item.enough and item.wrong_high is not None]
    kept = [item for item in judged if (item.wrong_high or 0.0) <= max_wrong_share]
    if not any(item.evidence for item in kept):
        return Recommendation(None, None, current, _refusal(current, judged, max_wrong_share))
    best = max(kept, key=lambda item: (item.hit_rate, item.threshold))
    return Recommendation(
        best.threshold, best, current, _reasons(best, current, estimates, max_wrong_share)
    )


class _Times:
    """Mean seconds of exact hits, semantic hits and other lookups."""

    def __init__(self, decisions: Iterable[Decision]) -> None:
        count: Counter[str] = Counter()
        seconds: Counter[str] = Counter()
        for item in decisions:
            if item.outcome != "bypass":
                kind = item.level if item.outcome == "hit" else ""
                count[kind] += 1
                seconds[kind] += item.seconds  # type: ignore[assignment]
        mean = {kind: seconds[kind] / number for kind, number in count.items()}
        self.other = mean.get("", mean.get("l2", mean.get("l1", 0.0)))
        self.semantic = mean.get("l2", self.other)
        self.exact = mean.get("l1", self.other)


@dataclass(frozen=True, slots=True)
class _Estimates:
    """Facts of the recorded traffic that are the same at every threshold.

    Attributes:
        lookups: Number of lookups that could have had a response.
        evidence: Verdicts on hits.
        known: Number of recorded exact hits.
        times: Their times, and those of others.
    """

    lookups: int
    evidence: Evidence
    known: int
    times: _Times

    def of(
        self, threshold: float, exact: int, same: int, similar: Mapping[int, int], saved_usd: float
    ) -> ThresholdEstimate:
        """Return the effect of a threshold, given its hits; see `simulation.Replayed`."""
        lookups, times = self.lookups, self.times
        semantic = same + sum(similar.values())
        hits = exact + semantic
        wrong = self.evidence.share(exact + same, similar, self.known)
        seconds = exact * times.exact + semantic * times.semantic + (lookups - hits) * times.other
        return ThresholdEstimate(
            threshold=threshold,
            hits=hits,
            lookups=lookups,
            hit_rate=hits / lookups if lookups else 0.0,
            wrong_share=wrong.share,
            wrong_low=wrong.low,
            wrong_high=wrong.high,
            evidence=wrong.evidence,
            enough=wrong.enough,
            saved_usd=saved_usd,
            latency_ms=1000 * seconds / lookups if lookups else 0.0,
        )


def _reasons(
    best: ThresholdEstimate,
    current: ThresholdEstimate,
    estimates: Sequence[ThresholdEstimate],
    limit: float,
) -> list[str]:
    found = [
        (
            f"At {best.threshold:g}, {best.hit_rate:.1%} of {best.lookups:,} recorded lookups "
            f"would have hit; today's {current.threshold:g} gives {current.hit_rate:.1%}."
        ),
        (
            f"Of those hits {_percent(best.wrong_share)} would have been wrong, with 95% "
            f"confidence at most {_percent(best.wrong_high)}; your limit is {_percent(limit)}."
        ),
        (
            f"That rests on {best.evidence:,} effective verdicts, weighted by the traffic at each "
            "similarity."
        ),
    ]
    more = [item for item in estimates if item.hit_rate > best.hit_rate]
    if more:
        # the nearest threshold that would have hit more shows the obstacle
        nearest = min(more, key=lambda item: abs(item.threshold - best.threshold))
        found.append(
            f"{nearest.threshold:g} would have hit {nearest.hit_rate:.1%}, but "
            + (
                f"up to {_percent(nearest.wrong_high)} of its hits may be wrong."
                if nearest.enough
                else "too few verdicts say whether its hits are right: not enough evidence."
            )
        )
    return found


def _refusal(
    current: ThresholdEstimate, judged: Sequence[ThresholdEstimate], limit: float
) -> list[str]:
    if any(item.evidence for item in judged):
        best = min(
            (item for item in judged if item.evidence), key=lambda item: item.wrong_high or 0
        )
        return [
            (
                f"No threshold keeps within {_percent(limit)} wrong with 95% confidence: the "
                f"best, {best.threshold:g}, may have up to {_percent(best.wrong_high)}."
            ),
            "More verdicts narrow that interval; a higher limit, or one more guard, moves it.",
        ]
    return [
        (
            f"Not enough evidence: {current.evidence:,} effective verdicts at today's "
            f"{current.threshold:g}; at least {needed(limit):,} are needed, spread over the "
            "similarities that the traffic has."
        ),
        (
            "Review semantic hits and pairs near the threshold, or give the agent a verify "
            "function: it checks a random share of the hits."
        ),
    ]


def needed(limit: float) -> int:
    """Return the number of verdicts, all right, that show a wrong share below *limit*.

    It is a lower bound, for semantic hits only, judged at random. More similarities and more wrong
    hits need more verdicts.
    """
    return LEAST_EVIDENCE if limit <= 0 else max(LEAST_EVIDENCE, math.ceil(Z * Z * (1 / limit - 1)))


def _percent(share: float | None) -> str:
    return "an unknown share" if share is None else f"{share:.2%}"
