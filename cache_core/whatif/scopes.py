"""Effect of sharing the answers of an intent."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from cache_core.config.tuning import Tuning
from cache_core.observability.decisions import Decision


@dataclass(frozen=True)
class SharingEstimate:
    """Effect of sharing one intent on the recorded traffic.

    Attributes:
        intent: The label; empty for answers without one, which cannot be shared by intent.
        misses_other_scope: Number of lookups without a response although another user had the
            answer to the very same message.
        share_of_misses: Their share of all lookups without a response, 0 to 1.
        hit_rate_if_shared: Hit rate of all lookups that could have a response, 0 to 1, had only
            this intent been shared.
        saved_usd: Additional saving of those lookups.
    """

    intent: str
    misses_other_scope: int
    share_of_misses: float
    hit_rate_if_shared: float
    saved_usd: float


def sharing(decisions: Iterable[Decision], *, tuning: Tuning) -> list[SharingEstimate]:
    """Return the effect of sharing each intent, the one with the most misses first.

    Intents that the tuning shares already are omitted.

    A replay cannot know whether the answers depend on their users and must stay private. It cannot
    count hits on *similar* questions of other users either: the hits won are a lower bound.
    """
    hits = lookups = 0
    missed: dict[str, int] = defaultdict(int)
    saved: dict[str, float] = defaultdict(float)
    price = tuning.saves("l1", None)
    for item in decisions:
        if item.outcome == "bypass":
            continue
        lookups += 1
        if item.outcome == "hit":
            hits += 1
        elif "other_scope" in item.reasons and not tuning.shares(item.intent or None):
            missed[item.intent] += 1
            saved[item.intent] += max(0.0, price - item.saved_usd)
    return [
        SharingEstimate(
            intent=intent,
            misses_other_scope=count,
            share_of_misses=count / (lookups - hits),
            hit_rate_if_shared=(hits + count) / lookups,
            saved_usd=saved[intent],
        )
        for intent, count in sorted(missed.items(), key=lambda pair: (-pair[1], pair[0]))
    ]
