"""What sharing the answers of an intent would have done."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from cache_core.decisions import Decision
from cache_core.tuning import Tuning


@dataclass(frozen=True)
class SharingEstimate:
    """What sharing one intent would have done to the recorded traffic.

    Attributes:
        intent: The label; empty for answers that have none, which cannot be shared by intent.
        misses_other_scope: Lookups without a response, though another user had the answer to the
            very same message.
        share_of_misses: Of all lookups without a response, 0..1.
        hit_rate_if_shared: Of all lookups that could have a response, 0..1, had this intent alone
            been shared.
        saved_usd: What those lookups would have saved more.
    """

    intent: str
    misses_other_scope: int
    share_of_misses: float
    hit_rate_if_shared: float
    saved_usd: float


def sharing(decisions: Iterable[Decision], *, tuning: Tuning) -> list[SharingEstimate]:
    """Return what sharing each intent would have done, the one with the most misses first.

    Intents that the tuning shares already are left out.

    What a replay cannot know: whether the answers speak of their users, and must stay private; and
    who would have found another user's answer to a *similar* question. The hits won are a lower
    bound.
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
