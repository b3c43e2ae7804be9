"""Effect of other TTLs.

A replay does not know everything. It assumes:

- Entries are kept for twice their TTL: an answer that expired longer ago left no trace, so for a
  TTL of more than twice today's the hits won are a lower bound.
- A lookup that would have missed was answered by the agent, put, and started a new life of its
  entry. For L2 that entry is the asker's own question, and is assumed to serve the matches of the
  old one: the hits lost to a shorter TTL are a lower bound.
- An entry with a TTL of its own follows the candidate like the others: the log does not distinguish
  them.
- Older answers would still have been true.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cache_core.config.intents import MAX_TTL
from cache_core.config.tuning import Tuning
from cache_core.model.values import LEVELS, Level
from cache_core.observability.decisions import Decision
from cache_core.policy.freshness import ENOUGH, OUTDATED

_FACTORS = (1 / 24, 1 / 12, 1 / 8, 1 / 4, 1 / 2, 3 / 4, 1.0, 1.25, 1.5, 2.0)
_AGE_BINS = 24

_MINUTE, _HOUR, _DAY = 60.0, 3_600.0, 86_400.0
_ROUND = (
    _MINUTE, 5 * _MINUTE, 15 * _MINUTE, 30 * _MINUTE, _HOUR, 2 * _HOUR, 6 * _HOUR, 12 * _HOUR,
    _DAY, 2 * _DAY, 7 * _DAY, 14 * _DAY, 30 * _DAY,
)  # fmt: skip
"""TTLs that are recommended: people do not set 4,937 seconds."""


@dataclass(frozen=True)
class AgeBin:
    """Hits by age of their entries: *low* <= age < *high*, in seconds."""

    low: float
    high: float
    hits: int


@dataclass(frozen=True)
class TtlEstimate:
    """Effect of one TTL on the recorded traffic.

    Attributes:
        ttl_seconds: The TTL.
        hits: Number of lookups that the tier would have answered.
        hits_lost: Number of its recorded hits with an entry that would have been too old.
        hits_won: Number of recorded misses, `expired`, with an entry that would not have been.
        tier_hit_rate: Share of *hits* among the lookups that asked the tier, 0 to 1.
        hit_rate: Hit rate of all lookups that could have a response, 0 to 1. A hit that L1 loses is
            still one if L2 has the answer.
    """

    ttl_seconds: float
    hits: int
    hits_lost: int
    hits_won: int
    tier_hit_rate: float
    hit_rate: float


@dataclass(frozen=True)
class TtlReport:
    """Hits of a tier by the age of their entries, and the effects of other TTLs.

    Attributes:
        level: The tier.
        ttl_seconds: The TTL in force.
        hits, expired: Numbers of recorded hits, and of misses with an expired entry.
        ages: Hits by age; the last bin includes all that were older.
        estimates: Effects by TTL, ascending, including the one in force.
    """

    level: Level
    ttl_seconds: float
    hits: int
    expired: int
    ages: list[AgeBin]
    estimates: list[TtlEstimate]


@dataclass(frozen=True)
class TtlRecommendation:
    """TTL of a tier at which answers are seldom outdated, by what fresh answers showed.

    Attributes:
        seconds: The TTL; `None` without enough comparisons.
        by_intent: The same for each intent with enough comparisons; *seconds* is the shortest.
        reason: Sentences for the owner.
    """

    seconds: float | None
    by_intent: Mapping[str, float]
    reason: str


@dataclass(frozen=True, slots=True)
class _Event:
    """Lookup that found an entry of the tier, live or expired."""

    at: float
    age: float
    entry: tuple[str, ...]
    hit: bool
    answered: bool
    kept_by_l2: bool


@dataclass(frozen=True, slots=True)
class _Recorded:
    """Traffic under the TTL in force: the tier, its events, and numbers of lookups."""

    level: Level
    ttl: float
    events: Sequence[_Event]
    hits: int
    responses: int
    asked: int
    lookups: int


def ttls(
    decisions: Sequence[Decision],
    *,
    tuning: Tuning,
    level: Level,
    candidates: Sequence[float] | None = None,
) -> TtlReport:
    """Return the effects of other TTLs of a tier on the recorded lookups.

    Args:
        decisions: Decisions of the log, oldest first.
        tuning: The tuning in force; its TTL is always among the estimates.
        level: The tier.
        candidates: TTLs in seconds; default: from 1/24 to twice today's.

    Raises:
        ValueError: If the tier is unknown, or a TTL is not above 0.
    """
    if level not in LEVELS:
        msg = f"level={level!r} is refused: one of {', '.join(LEVELS)}"
        raise ValueError(msg)
    ttl = tuning.ttl(level)
    if candidates is None:
        candidates = [min(MAX_TTL, ttl * factor) for factor in _FACTORS]
    if any(not value > 0 for value in candidates):
        msg = "a TTL must be more than 0 seconds"
        raise ValueError(msg)
    lookups = [item for item in decisions if item.outcome != "bypass"]
    events = [event for item in lookups if (event := _event(item, level, tuning)) is not None]
    hits = sum(event.hit for event in events)
    recorded = _Recorded(
        level,
        ttl,
        events,
        hits,
        responses=sum(item.outcome == "hit" for item in lookups),
        asked=sum(_asks(item, level) for item in lookups),
        lookups=len(lookups),
    )
    return TtlReport(
        level=level,
        ttl_seconds=ttl,
        hits=hits,
        expired=len(events) - hits,
        ages=_ages([event.age for event in events if event.hit], ttl),
        estimates=[_estimate(value, recorded) for value in sorted({*candidates, ttl})],
    )


def recommend_ttl(
    decisions: Sequence[Decision],
    freshness: Sequence[Mapping[str, Any]],
    *,
    tuning: Tuning,
    level: Level,
) -> TtlRecommendation:
    """Return the TTL at which answers are outdated for 1 % of the time that they are served.

    Args:
        decisions: Decisions of the log, oldest first.
        freshness: `get_metrics()["freshness"]` of each replica: comparisons of fresh answers with
            those that they replaced. Of an intent, the replica with the most of them counts.
        tuning: The tuning in force.
        level: `l1` or `l2`, the tiers of answers.
    """
    compared: dict[str, int] = {}
    by_intent: dict[str, float] = {}
    for replica in freshness:
        for intent, found in replica.items():
            # read from a replica's report, a count is a float
            number = round(sum(found.get(name, 0) for name in _COMPARED))
            if number > compared.get(intent, 0):
                compared[intent] = number
                if found.get("recommended_ttl"):
                    by_intent[intent] = _rounded(found["recommended_ttl"])
    if not by_intent:
        most = max(compared.values(), default=0)
        return TtlRecommendation(
            None, {}, f"It takes {ENOUGH} comparisons of a fresh answer with the one that it "
            f"replaces, of one intent; there are {most} (Answers checked again makes more).",
        )  # fmt: skip
    seconds = min(by_intent.values())
    report = ttls(decisions, tuning=tuning, level=level, candidates=[seconds])
    then = next(item for item in report.estimates if item.ttl_seconds == seconds)
    reason = (
        f"Answers are outdated for at most {OUTDATED:.0%} of the time, by "
        f"{sum(compared[intent] for intent in by_intent):,} comparisons. "
    )
    if seconds < report.ttl_seconds:
        reason += f"It would have lost {then.hits_lost:,} of {report.hits:,} hits."
    elif seconds > report.ttl_seconds:
        won = f"{then.hits_won:,} of {report.expired:,} misses with an expired entry"
        reason += f"It would have won {won}." if report.expired else "No entry had expired yet."
    else:
        reason += "It is in force."
    return TtlRecommendation(seconds, by_intent, reason)


_COMPARED = ("unchanged_at_expiry", "unchanged_before", "changed")


def _rounded(seconds: float) -> float:
    return max((value for value in _ROUND if value <= seconds), default=_ROUND[0])


def _event(item: Decision, level: Level, tuning: Tuning) -> _Event | None:
    answers = level in {"l1", "l2"}
    answered = item.outcome == "hit"
    hit_age = item.age_seconds if answers and item.level == level else item.ages.get(level)
    age = item.expired.get(level) if hit_age is None else hit_age
    if age is None:
        return None
    owner = "" if item.scope == "shared" else item.user
    message = item.matched if level == "l2" and hit_age is not None else item.message
    return _Event(
        at=item.at,
        age=age,
        entry=(message, item.context, item.history, owner if answers else ""),
        hit=hit_age is not None,
        answered=answered,
        kept_by_l2=level == "l1" and not item.history and age <= tuning.l2_ttl,
    )


def _asks(item: Decision, level: Level) -> bool:
    if level == "l1":
        return True
    if level == "l2":
        return item.level != "l1"
    return item.outcome != "hit"


def _estimate(value: float, recorded: _Recorded) -> TtlEstimate:
    ttl, responses = recorded.ttl, recorded.responses
    created: dict[tuple[str, ...], float] = {}
    lost = won = 0
    answers = recorded.level in {"l1", "l2"}
    for event in recorded.events:
        made = event.at - event.age
        # under a longer TTL some of the recorded puts did not happen, under a shorter one more did
        if event.entry in created:
            other = created[event.entry]
            made = max(made, other) if value < ttl else other
        if value == ttl:
            live = event.hit
        else:
            live = event.at - made <= value and (event.hit or value > ttl)
        if live and not event.hit:
            won += 1
            responses += answers and not event.answered
            created[event.entry] = made
        elif event.hit and not live:
            lost += 1
            if event.kept_by_l2:
                continue
            responses -= answers
            created[event.entry] = event.at
    found = recorded.hits - lost + won
    return TtlEstimate(
        ttl_seconds=value,
        hits=found,
        hits_lost=lost,
        hits_won=won,
        tier_hit_rate=found / recorded.asked if recorded.asked else 0.0,
        hit_rate=responses / recorded.lookups if recorded.lookups else 0.0,
    )


def _ages(ages: Sequence[float], ttl: float) -> list[AgeBin]:
    width = ttl / _AGE_BINS
    counts = [0] * _AGE_BINS
    for age in ages:
        counts[min(_AGE_BINS - 1, int(age / width))] += 1
    return [
        AgeBin(number * width, (number + 1) * width, count) for number, count in enumerate(counts)
    ]
