"""Stored questions near the one that was asked: which to serve, and why none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cache_core import envelope
from cache_core.models import Entry, Hit, Miss, MissReason, Scope
from cache_core.tiers.private_vectors import QUANTISED
from cache_core.tuning import Tuning


@dataclass(slots=True)
class Candidate:
    """A stored question near the one that was asked."""

    tag: str
    similarity: float
    scope: Scope
    key: str
    text: str | None
    entry: Entry | None = None
    dead: MissReason | None = None
    gone: bool = False
    guard: str = ""
    confirmed: bool = True


def rank(near: Candidate) -> float:
    """Return where a candidate stands, the least first: a user's own before the like shared."""
    return -near.similarity - (QUANTISED if near.scope == "user" else 0.0)


def _needed(near: Candidate, tuning: Tuning) -> float:
    """Return the similarity from which a candidate's answer is served."""
    return tuning.threshold(near.entry.intent if near.entry is not None else None)


def best(candidates: Sequence[Candidate], tuning: Tuning, now: float) -> Hit | None:
    """Return the first of *candidates*, nearest first, that may be served."""
    for near in candidates:
        if near.entry is None or near.dead or near.guard:
            continue
        if near.similarity >= _needed(near, tuning):
            age = envelope.age(near.entry, now)
            own = near.entry.ttl
            ttl = tuning.ttl("l2", near.entry.intent) if own is None else own
            return Hit(near.entry, near.scope, age, ttl, near.similarity, near.tag, near.confirmed)
    return None


def hides(found: Sequence[Candidate], count: int, floor: float) -> bool:
    """Whether live rows may be behind these: dead ones only, as many as asked for, all similar."""
    return (
        len(found) == count and all(near.dead for near in found) and found[-1].similarity >= floor
    )


def no_answer(candidates: Sequence[Candidate], tuning: Tuning, now: float) -> Miss:
    """Return why none of *candidates*, nearest first, was served."""
    # What may be swept at any time counts as swept, so that a miss has one reason.
    candidates = [near for near in candidates if not near.gone]
    live = [near for near in candidates if not near.dead]
    similarity = max((near.similarity for near in live), default=None)
    best = next((near for near in live if not near.guard), None)
    above = [near for near in candidates if near.similarity >= _needed(near, tuning)]
    refused = next((near for near in above if near.guard and not near.dead), None)
    vetoed = "" if refused is None else refused.guard
    dead = next((near.dead for near in above if near.dead), None)
    reason: MissReason
    if vetoed:
        reason = "guard_veto"
    elif dead:
        reason = dead
    else:
        reason = "below_threshold" if live else "cold"
    expired = next(
        (near.entry for near in above if near.dead == "expired" and near.entry and not near.guard),
        None,
    )
    return Miss(
        reason,
        similarity,
        None if best is None else best.similarity,
        vetoed,
        matched="" if best is None else best.tag,
        scope="" if best is None else best.scope,
        expired_age=None if expired is None else envelope.age(expired, now),
        nearest=getattr(refused or best or next(iter(live), None), "entry", None),
    )
