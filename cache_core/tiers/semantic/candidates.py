"""Stored questions near a message: the choice of one to serve, and the reason for none.

State of a candidate, by the last row that applies:

| its entry                                                | `dead`        | `gone` | removed   |
|----------------------------------------------------------|---------------|--------|-----------|
| exists, and none of the following applies                | `None`        |        |           |
| was swept, after it expired or was evicted               | `expired`     | yes    |           |
| is sealed with a key that this process does not have     | `corrupt`     |        |           |
| cannot be read                                           | `corrupt`     |        | yes       |
| has another token than its message, or is on a denylist  | `invalidated` |        | if shared |
| may be one whose invalidation is pending                 | `invalidated` |        |           |
| is older than its TTL and the requested grace            | `expired`     | later  |           |
| is of another day than the question asks for, or is over | `day_over`    |        |           |
| is older than the question's `max_age`                   | `too_old`     |        |           |
| is another user's, and the tuning does not share it      | `other_scope` |        |           |
| has no response                                          | `corrupt`     |        | if shared |

A `gone` entry, `KEEP_FACTOR` TTLs after its put, may be swept at any time and counts as swept. A
guard may veto live and dead entries; they are asked only where it matters, because comparing two
texts costs more than all the rest. `confirmed` is false if the store was unavailable; `approval`
is what the store has as the name of the approved doubt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from cache_core.config.tuning import Tuning
from cache_core.model import envelope
from cache_core.model.question.days import of_other_days
from cache_core.model.values import Entry, Hit, Miss, MissReason, Scope
from cache_core.tiers.guards import veto
from cache_core.tiers.semantic.private_vectors import QUANTISED


@dataclass(slots=True)
class Candidate:
    """Stored question near the message."""

    tag: str
    similarity: float
    scope: Scope
    key: str
    text: str | None
    entry: Entry | None = None
    dead: MissReason | None = None
    gone: bool = False
    guard: str | None = None
    confirmed: bool = True
    approval: str = ""


def rank(near: Candidate) -> float:
    """Return a candidate's sort key: nearest first, a user's own before a shared one as near."""
    return -near.similarity - (QUANTISED if near.scope == "user" else 0.0)


def needed(near: Candidate, tuning: Tuning) -> float:
    """Return the threshold for a candidate's intent."""
    return tuning.threshold(near.entry.intent if near.entry is not None else None)


def guard_of(near: Candidate, asked: str, tuning: Tuning) -> str:
    """Return the guard that vetoes a candidate for the message *asked*; empty if none does."""
    if near.entry is None:
        return ""
    if near.guard is None:
        stored = near.entry.message or ""
        near.guard = veto(asked, stored, tuning.guards) or ""
        # Days are known in more languages than other opposites.
        if not near.guard and "opposites" in tuning.guards and of_other_days(asked, stored):
            near.guard = "opposites"
    return near.guard


def best(candidates: Sequence[Candidate], asked: str, tuning: Tuning, now: float) -> Hit | None:
    """Return the first of *candidates*, nearest first, that may be served for *asked*."""
    for near in candidates:
        if near.entry is None or near.dead or near.similarity < needed(near, tuning):
            continue
        if not guard_of(near, asked, tuning):
            return hit_of(near, tuning, now)
    return None


def in_doubt(candidates: Sequence[Candidate], asked: str, tuning: Tuning) -> Candidate | None:
    """Return the first of *candidates*, nearest first, that may be served once it is approved.

    None that a guard vetoes, nor one whose generation is unknown.
    """
    if not tuning.approve_margin:
        return None
    for near in candidates:
        if near.entry is None or near.dead or not near.confirmed:
            continue
        if near.similarity < tuning.approvable(near.entry.intent):
            continue
        if not guard_of(near, asked, tuning):
            return near
    return None


def hit_of(near: Candidate, tuning: Tuning, now: float) -> Hit:
    """Return the hit of a candidate that has an entry."""
    entry = near.entry or Entry()
    age, ttl = envelope.age(entry, now), entry.life(tuning.ttl("l2", entry.intent))
    return Hit(entry, near.scope, age, ttl, near.similarity, near.tag, near.confirmed)


def hides(found: Sequence[Candidate], count: int, floor: float) -> bool:
    """Return whether live rows may follow these: *count* rows, all dead and all similar."""
    return (
        len(found) == count and all(near.dead for near in found) and found[-1].similarity >= floor
    )


def no_answer(candidates: Sequence[Candidate], asked: str, tuning: Tuning, now: float) -> Miss:
    """Return why none of *candidates*, nearest first, was served for *asked*."""
    guard = partial(guard_of, asked=asked, tuning=tuning)
    # Entries that may be swept at any time count as swept, so that a miss has one reason.
    candidates = [near for near in candidates if not near.gone]
    live = [near for near in candidates if not near.dead]
    similarity = max((near.similarity for near in live), default=None)
    best = next((near for near in live if not guard(near)), None)
    above = [near for near in candidates if near.similarity >= needed(near, tuning)]
    refused = next((near for near in above if not near.dead and guard(near)), None)
    vetoed = "" if refused is None else guard(refused)
    dead = next((near.dead for near in above if near.dead), None)
    reason: MissReason
    if vetoed:
        reason = "unreadable" if vetoed == "language" else "guard_veto"
    elif dead:
        reason = dead
    else:
        reason = "below_threshold" if live else "cold"
    expired = next(
        (near.entry for near in above if near.dead == "expired" and near.entry and not guard(near)),
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
        candidate=best.entry if best is not None and best.scope == "shared" else None,
    )
