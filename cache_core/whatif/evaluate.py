"""Evaluation of the matching on labelled pairs of questions: recall and false hits, by kind."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from cache_core.backends.embedder.pool import ThreadEmbedder
from cache_core.config.tuning import Tuning
from cache_core.model.question.wording import exact_form
from cache_core.policy.decide import Near, decide
from cache_core.policy.evidence import Evidence
from cache_core.tiers.guards import language, veto
from cache_core.tiers.guards.slots import swapped
from cache_core.whatif.replay import PolicyRule


@dataclass(frozen=True, slots=True)
class Pair:
    """Two questions of which the answer to one is stored when the other is asked.

    Attributes:
        a, b: The asked question and the stored one.
        equivalent: Whether one answer may serve both.
        kind: Group in the report; empty for none.
        a_history, b_history: Earlier turns; a pair with any is matched exactly, or not at all.
    """

    a: str
    b: str
    equivalent: bool
    kind: str = ""
    a_history: tuple[Any, ...] | None = None
    b_history: tuple[Any, ...] | None = None


@dataclass(slots=True)
class Kind:
    """Counts of the pairs of one kind.

    Attributes:
        equivalent, different: Number of pairs.
        recalled: Number of equivalent ones that would be served.
        false: Number of different ones that would be served.
    """

    equivalent: int = 0
    different: int = 0
    recalled: int = 0
    false: int = 0

    def as_json(self) -> dict[str, Any]:
        """Return counts and shares as JSON values; a share of nothing is null."""
        return {
            "equivalent": self.equivalent,
            "different": self.different,
            "recall": round(self.recalled / self.equivalent, 4) if self.equivalent else None,
            "false_hits": round(self.false / self.different, 4) if self.different else None,
        }


@dataclass(slots=True)
class Evaluation:
    """Result of an evaluation.

    Attributes:
        total: Counts of all pairs.
        kinds: The same by kind.
        causes: Number of false hits by what they look like: `exact`, `swapped word`, `similar`.
        held: Number of equivalent pairs that are not served, by what held them back.
    """

    total: Kind = field(default_factory=Kind)
    kinds: dict[str, Kind] = field(default_factory=lambda: defaultdict(Kind))
    causes: Counter[str] = field(default_factory=Counter)
    held: Counter[str] = field(default_factory=Counter)

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            **self.total.as_json(),
            "kinds": {name: kind.as_json() for name, kind in sorted(self.kinds.items())},
            "causes": dict(self.causes.most_common()),
            "held_back": dict(self.held.most_common()),
        }


async def evaluate(
    pairs: Sequence[Pair],
    embedder: ThreadEmbedder,
    tuning: Tuning,
    policy: PolicyRule,
    progress: Callable[[int], None] = lambda _: None,
) -> Evaluation:
    """Return what L1 and L2 would serve, each pair alone in an empty cache.

    Under `learned` that is the prior's judgement of a lone neighbour: what nothing was learned of.

    Args:
        pairs: The labelled pairs.
        embedder: The model, loaded.
        tuning: Gives threshold, guards and the share of wrong hits allowed.
        policy: As for `replay`.
        progress: Called with the number of texts embedded.
    """
    texts = {text for pair in pairs for text in (pair.a, pair.b)}
    await embedder.embed_all(sorted(text for text in texts if embedder.fits(text)), progress)
    found = Evaluation()
    for pair in pairs:
        held = await _held(pair, embedder, tuning, policy)
        for counts in (found.total, found.kinds[pair.kind or "all"]):
            _count(counts, pair, served=not held)
        if held and pair.equivalent:
            found.held[held] += 1
        elif not held and not pair.equivalent:
            found.causes[_cause(pair)] += 1
    return found


def _count(kind: Kind, pair: Pair, *, served: bool) -> None:
    if pair.equivalent:
        kind.equivalent += 1
        kind.recalled += served
    else:
        kind.different += 1
        kind.false += served


async def _held(pair: Pair, embedder: ThreadEmbedder, tuning: Tuning, policy: PolicyRule) -> str:
    """Return what keeps the stored answer from being served; empty if it is served."""
    if tuple(pair.a_history or ()) == tuple(pair.b_history or ()) and (
        exact_form(pair.a) == exact_form(pair.b)
    ):
        return ""
    if pair.a_history or pair.b_history:
        return "has_history"
    if not (embedder.fits(pair.a) and embedder.fits(pair.b)):
        return "truncated"
    guards = () if policy == "threshold" else tuning.guards
    if not all(
        language.readable(text, guards) and embedder.knows(text) for text in (pair.a, pair.b)
    ):
        return "unreadable"
    guard = veto(pair.a, pair.b, guards)
    if guard is not None:
        return f"guard {guard}"
    one, other = await embedder.embed(pair.a), await embedder.embed(pair.b)
    similarity = float(sum(x * y for x, y in zip(one, other, strict=True)))
    if policy != "learned":
        return "" if similarity >= tuning.semantic_threshold else "below_threshold"
    near = [Near(similarity, "", 0)]
    decision = decide(near, Evidence(), tuning.max_wrong, lambda _: swapped(pair.a, pair.b))
    return decision.held


def _cause(pair: Pair) -> str:
    if exact_form(pair.a) == exact_form(pair.b):
        return "exact"
    return "swapped word" if swapped(pair.a, pair.b) else "similar"
