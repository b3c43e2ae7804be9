"""Effect of the learned policy before it decides, from what the decision log says of it.

Each lookup that L2 searched for has the least `max_wrong` at which the policy would have served the
nearest question, with what was learned until then. A replay assumes:

- What L1 answered is a hit under the policy, too: it was stored, or what was near enough to be
  served in its place is near enough again.
- A hit that the policy would not have served is put, so that the same message is a hit from then
  on, until the answer expires.
- The neighbours are those of the log. Under the policy more questions hit, so fewer are stored:
  where the nearest one would be missing, what served that one stands for it, if the similarity to
  it, estimated from the two, is one that the policy may serve.
- Intents with a `max_wrong` of their own are replayed by the proposed one, too.

Lookups from before the first one with a figure do not count.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from cache_core.config.tuning import Tuning
from cache_core.observability.decisions import Decision
from cache_core.observability.verdicts import Verdict
from cache_core.operations.learning import Label
from cache_core.policy.limits import LEAST_SIMILARITY
from cache_core.whatif.simulation import combine, is_fixed

SHARES = (0.0025, 0.005, 0.01, 0.02, 0.05)
"""Shares that are shown where no other one is asked for."""

ENOUGH = 200
"""Lookups with a figure below which the effect is not known well enough to rely on."""


@dataclass(frozen=True, slots=True)
class Judged:
    """Lookups that the policy would have served, and what is known of their answers.

    Attributes:
        lookups: Number of them.
        judged: Of these, with a verdict or a fresh answer to compare.
        wrong: Of the judged ones, wrong.
    """

    lookups: int = 0
    judged: int = 0
    wrong: int = 0


@dataclass(frozen=True, slots=True)
class ShadowEstimate:
    """Effect of one share on the recorded traffic.

    Attributes:
        max_wrong: The share.
        lookups: Lookups since the first with a figure that could have had a response.
        searched: Of these, with a figure of the policy.
        unknown: Of these, that L2 searched for, without one.
        hits_now, hits: Of *searched*, hits as recorded, and under the policy.
        newly, kept: Of *hits*, those that were no hits, and those served as they were.
        lost: Of *hits_now*, no hits under the policy.
        fixed_hits: Hits that no policy changes, most of them of L1.
        expected_wrong: Share of wrong ones among *newly* and *kept*, 0 to 1, as the policy expects
            it; `None` without any.
    """

    max_wrong: float
    lookups: int
    searched: int
    unknown: int
    hits_now: int
    hits: int
    newly: Judged
    kept: Judged
    lost: int
    fixed_hits: int
    expected_wrong: float | None

    @property
    def enough(self) -> bool:
        """True if there are figures of enough lookups to rely on."""
        return self.searched >= ENOUGH

    @property
    def hit_rate_now(self) -> float:
        """Share of hits as recorded, 0 to 1."""
        return self._rate(self.hits_now)

    @property
    def hit_rate(self) -> float:
        """Share of hits under the policy, 0 to 1."""
        return self._rate(self.hits)

    def _rate(self, hits: int) -> float:
        if not self.searched:
            return self.fixed_hits / self.lookups if self.lookups else 0.0
        # Those that are known are a random sample.
        stand_for = (self.searched + self.unknown) / self.searched
        return (self.fixed_hits + hits * stand_for) / self.lookups


def shadows(
    decisions: Sequence[Decision],
    verdicts: Iterable[Verdict],
    labels: Iterable[Label],
    *,
    tuning: Tuning,
    shares: Sequence[float] = SHARES,
) -> list[ShadowEstimate]:
    """Return what the policy would have served at each share of wrong hits.

    Args:
        decisions: Decisions of the log, oldest first.
        verdicts: Verdicts on lookups, oldest first.
        labels: Labels of misses.
        tuning: The tuning in force, for the TTL.
        shares: Values of `max_wrong`, 0 to 1.
    """
    counted, right = _recorded(decisions), _known(verdicts, labels)
    return [
        _estimate(share, counted, _served(share, counted, tuning.l2_ttl), right) for share in shares
    ]


def shadows_by_intent(
    decisions: Sequence[Decision],
    verdicts: Iterable[Verdict],
    labels: Iterable[Label],
    *,
    tuning: Tuning,
    max_wrong: float,
) -> dict[str, ShadowEstimate]:
    """Return what the policy would have served at one share, for each intent.

    The log has the intent of what was served. That of a miss is taken from other lookups of its
    nearest question, or of its own; lookups of which none is known have the intent "".

    Args:
        decisions, verdicts, labels, tuning: As for `shadows`.
        max_wrong: The share, 0 to 1.

    Returns:
        By intent, those with the most lookups first, "" last.
    """
    counted, right = _recorded(decisions), _known(verdicts, labels)
    served = _served(max_wrong, counted, tuning.l2_ttl)
    intents = _intents(counted)
    groups: dict[str, list[Decision]] = {}
    for item in counted:
        groups.setdefault(intents[item.lookup_id], []).append(item)
    ordered = sorted(groups, key=lambda name: (not name, -len(groups[name]), name))
    return {
        name: _estimate(
            max_wrong, groups[name], served.only({item.lookup_id for item in groups[name]}), right
        )
        for name in ordered
    }


def _recorded(decisions: Sequence[Decision]) -> list[Decision]:
    """Return the lookups since the first with a figure that could have had a response."""
    known = (at for at, item in enumerate(decisions) if item.least_max_wrong is not None)
    return [item for item in decisions[next(known, 0) :] if item.outcome != "bypass"]


def _known(verdicts: Iterable[Verdict], labels: Iterable[Label]) -> dict[str, bool]:
    right = {item.lookup_id: item.right for item in labels}
    return right | {item.lookup_id: item.correct for item in verdicts}


def _intents(decisions: Iterable[Decision]) -> dict[str, str]:
    """Return the intent of each lookup, as far as the log tells it."""
    items = list(decisions)
    of = {
        (item.context, words): item.intent
        for item in items
        for words in (item.message, item.matched)
        if item.intent and words
    }
    return {
        item.lookup_id: item.intent
        or of.get((item.context, item.matched))
        or of.get((item.context, item.message), "")
        for item in items
    }


def _moved(item: Decision) -> bool:
    """Return whether the policy may change a lookup: what L1 answered, say, it does not."""
    return item.level != "l1" and not is_fixed(item)


def _estimate(
    share: float, counted: Sequence[Decision], served: _Served, right: Mapping[str, bool]
) -> ShadowEstimate:
    moved = [item for item in counted if _moved(item)]
    searched = [item for item in moved if item.least_max_wrong is not None]
    return ShadowEstimate(
        max_wrong=share,
        lookups=len(counted),
        searched=len(searched),
        unknown=len(moved) - len(searched),
        hits_now=sum(item.outcome == "hit" for item in searched),
        hits=len(served.newly) + len(served.kept) + len(served.again),
        newly=_judged(served.newly, right),
        kept=_judged(served.kept, right),
        lost=len(served.lost),
        fixed_hits=sum(item.outcome == "hit" for item in counted)
        - sum(item.outcome == "hit" for item in moved),
        expected_wrong=_expected([*served.newly, *served.kept]),
    )


_Name: TypeAlias = tuple[str, str, str]
"""Context, message and user; without a user, everybody's."""


@dataclass(slots=True)
class _Served:
    """Lookups that the policy serves, serves by their own stored words, and no longer serves."""

    newly: list[Decision] = field(default_factory=list)
    kept: list[Decision] = field(default_factory=list)
    again: list[Decision] = field(default_factory=list)
    lost: list[Decision] = field(default_factory=list)

    def only(self, names: set[str]) -> _Served:
        """Return those of some lookups."""
        parts = (self.newly, self.kept, self.again, self.lost)
        return _Served(*([item for item in part if item.lookup_id in names] for part in parts))


def _served(share: float, counted: Sequence[Decision], ttl: float) -> _Served:
    found = _Served()
    stored: dict[_Name, float] = {}
    through: dict[_Name, float] = {}
    for item in counted:
        if item.least_max_wrong is None or not _moved(item):
            continue
        hit = item.outcome == "hit"
        own, everybodys = ((item.context, item.message, user) for user in (item.user, ""))
        near = (item.context, item.matched, item.user if item.scope == "user" else "")
        alike = item.unvetoed or 0.0
        if near in through:
            alike = combine(alike, through[near])
        served = item.least_max_wrong <= share and alike >= LEAST_SIMILARITY
        # What an approver allowed, it allows under the policy, too.
        if served or (hit and "approved" in item.reasons):
            (found.kept if hit else found.newly).append(item)
            if not hit:
                through[own] = through[everybodys] = alike
            continue
        through.pop(own, None)
        through.pop(everybodys, None)
        if own in stored and item.at - stored[own] <= ttl:
            found.again.append(item)
        elif hit:
            found.lost.append(item)
            stored[own] = item.at
    return found


def _judged(served: Sequence[Decision], right: Mapping[str, bool]) -> Judged:
    known = [right[item.lookup_id] for item in served if item.lookup_id in right]
    return Judged(len(served), len(known), known.count(False))


def _expected(served: Sequence[Decision]) -> float | None:
    if not served:
        return None
    return sum(1.0 - (item.chance or 0.0) for item in served) / len(served)
