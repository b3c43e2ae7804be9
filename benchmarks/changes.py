"""Outdated answers: traffic in which one in ten popular answers changes half-way.

A simulation of the default policy (threshold, guards, TTLs) with the times of the traffic. An
answer is popular if it is asked for at least twenty times and is not private. Three caches see the
same: one in which a fresh answer only replaces the stored one of its own question, one that also
invalidates every copy of an answer that turns out to have changed, and that one with a
share of the hits on popular answers that look for changes.

    python -m benchmarks.changes TRAFFIC.jsonl
    python -m benchmarks.changes TRAFFIC.jsonl --max-wrong 0.01    with the learned policy
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import random
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np

from benchmarks.policy.simulation import World, embedded
from cache_core.config.tuning import Tuning
from cache_core.model.question.wording import exact_form, loose_form
from cache_core.operations.changes import SIDE_BY_SIDE
from cache_core.policy import decide
from cache_core.policy.evidence import Evidence
from cache_core.policy.limits import LEAST_SIMILARITY
from cache_core.tiers.guards import language

POPULAR = 20
"""Requests from which on an answer counts as popular."""

ONE_IN = 10
SHARES = (0.01, 0.02, 0.05, 0.1)
VERIFIED = 0.1
"""Share of the hits of L2 that get a verdict, where some do."""

MISTAKEN = 0.05
"""Share of verdicts that are wrong themselves, where some are."""

_NEIGHBOURS = 40
_LEAST = LEAST_SIMILARITY - 0.1
"""Similarity of what the policy is asked about, and learns from."""


class Stored(NamedTuple):
    """Stored answer: its name, its version, and when it was put, in seconds."""

    answer: str
    version: int
    created: float


@dataclass(slots=True)
class Verdicts:
    """Verdicts on a share of the hits of L2, of which a share is mistaken."""

    share: float = 0.0
    mistaken: float = 0.0
    draw: random.Random = field(default_factory=lambda: random.Random(0))

    def say(self, evidence: Evidence, *, correct: bool) -> None:
        """Judge a hit, or let it pass."""
        if self.draw.random() < self.share:
            evidence.judge(correct=correct != (self.draw.random() < self.mistaken))


NO_VERDICTS = Verdicts()


@dataclass(slots=True)
class Found:
    """Result of one cache.

    Attributes:
        hits, mismatched, outdated: Hits, and those that were wrong, by why.
        calls: Computations, for misses and checks.
        checks: Computations of the latter kind.
        last: By changed answer, seconds from its change to the last hit with the old one.
    """

    hits: int = 0
    mismatched: int = 0
    outdated: int = 0
    calls: int = 0
    checks: int = 0
    last: dict[str, float] = field(default_factory=dict)


class Cache:
    """Simulated cache.

    Args:
        world: The questions.
        changes: By answer, when it changes.
        withdraws: Whether every copy of an answer that changed goes.
        share: Share of the hits on popular answers that look for changes.
        max_wrong: Share of hits that the learned policy may serve wrong; 0 for the threshold.
        verdicts: On hits of L2.
    """

    def __init__(
        self, world: World, changes: Mapping[str, float], *, withdraws: bool, share: float = 0.0,
        max_wrong: float = 0.0, verdicts: Verdicts = NO_VERDICTS,
    ) -> None:  # fmt: skip
        self._world = world
        self._changes = changes
        self._withdraws = withdraws
        self._share = share
        self._max_wrong = max_wrong
        self._verdicts = verdicts
        self._evidence = Evidence()
        self._candidate: tuple[float, Stored] | None = None
        self._tuning = Tuning()
        self._exact: dict[tuple[Any, ...], Stored] = {}
        self._own: dict[str, dict[str, tuple[int, Stored]]] = defaultdict(dict)
        self._rows: dict[str, int] = {}
        self._shared: list[Stored] = []
        self._places: list[int] = []
        # In the order of the rows: choosing them for each search would copy them all.
        self._vectors = np.zeros_like(world.vectors)
        self._popular: Counter[tuple[str, int]] = Counter()
        self.found = Found()

    def ask(self, row: Mapping[str, Any]) -> None:
        """Look up a request of the traffic, and compute and store its answer after a miss."""
        now = row["t"]
        name = (tuple(row.get("history") or ()), exact_form(row["message"]))
        loose = loose_form(row["message"])
        self._candidate = None
        hit = self._look(row, name, now)
        if hit is None:
            self.found.calls += 1
            self._put(row, name, now)
            return
        self.found.hits += 1
        right = self._judge(hit, row["answer_id"], now)
        if self._candidate is not None:
            self._verdicts.say(self._evidence, correct=right)
            # A check is no miss: it teaches nothing.
            self._candidate = None
        if not self._share:
            return
        self._popular[hit.answer, hit.version] += 1
        whose = self._exact.get((None, *name)), self._of_question(loose)
        if self._popular[hit.answer, hit.version] * self._share >= 1 and hit in whose:
            self._popular[hit.answer, hit.version] = 0
            self.found.calls += 1
            self.found.checks += 1
            self._put(row, name, now)

    def _version(self, answer: str, now: float) -> int:
        return int(now >= self._changes.get(answer, np.inf))

    def _judge(self, hit: Stored, wanted: str, now: float) -> bool:
        if hit.answer != wanted:
            self.found.mismatched += 1
        elif hit.version != self._version(wanted, now):
            self.found.outdated += 1
            self.found.last[wanted] = now - self._changes[wanted]
        else:
            return True
        return False

    def _of_question(self, loose: str) -> Stored | None:
        return self._shared[self._rows[loose]] if loose in self._rows else None

    def _look(self, row: Mapping[str, Any], name: tuple[Any, ...], now: float) -> Stored | None:
        user = row["user_id"]
        for key in ((user, *name), (None, *name)):
            stored = self._exact.get(key)
            if stored is not None and now - stored.created <= self._tuning.l1_ttl:
                return stored
        asked = self._world.place[row["message"]]
        if name[0] or not self._world.readable[asked]:
            return None
        near = self._near(asked) + [
            (float(self._world.vectors[asked] @ self._world.vectors[place]), place, stored)
            for place, stored in self._own[user].values()
        ]
        least = _LEAST if self._max_wrong else self._tuning.semantic_threshold
        live = (
            (similarity, place, stored)
            for similarity, place, stored in sorted(near, key=lambda item: -item[0])
            if similarity >= least
            and now - stored.created <= self._tuning.l2_ttl
            and not self._world.vetoed(asked, place)
        )
        found = [*islice(live, decide.NEIGHBOURS if self._max_wrong else 1)]
        if not found:
            return None
        similarity, nearest, stored = found[0]
        self._candidate = similarity, stored
        if self._max_wrong:
            alike = [decide.Near(at, _key(one), hash(one[:2])) for at, _, one in found]
            doubtful = self._world.doubtful
            given = decide.Given(alike, self._evidence, lambda _: doubtful(asked, nearest))
            if not given.served(decide.allowed_risk(self._evidence, self._max_wrong)):
                return None
        return stored

    def _near(self, asked: int) -> list[tuple[float, int, Stored]]:
        count = len(self._shared)
        if not count:
            return []
        similarities = self._vectors[:count] @ self._world.vectors[asked]
        few = min(_NEIGHBOURS, count)
        nearest = np.argpartition(-similarities, few - 1)[:few]
        return [(float(similarities[at]), self._places[at], self._shared[at]) for at in nearest]

    def _put(self, row: Mapping[str, Any], name: tuple[Any, ...], now: float) -> None:
        answer, loose = row["answer_id"], loose_form(row["message"])
        fresh = Stored(answer, self._version(answer, now), now)
        if self._candidate is not None:
            similarity, stored = self._candidate
            self._evidence.learn(_key(stored), similarity, right=stored[:2] == fresh[:2])
        asked = self._world.place[row["message"]]
        searched = not name[0] and self._world.readable[asked]
        if row["private"]:
            self._exact[row["user_id"], *name] = fresh
            if searched:
                self._own[row["user_id"]][loose] = (asked, fresh)
            return
        # The newer of what its question has in both tiers.
        old = [item for item in (self._exact.get((None, *name)), self._of_question(loose)) if item]
        if self._withdraws and old:
            former = max(old, key=lambda item: item.created)
            aged = now - former.created >= SIDE_BY_SIDE
            if aged and former[:2] != fresh[:2]:
                self._withdraw(former)
        self._exact[None, *name] = fresh
        if not searched:
            return
        if loose not in self._rows:
            self._rows[loose] = len(self._shared)
            self._shared.append(fresh)
            self._places.append(asked)
        at = self._rows[loose]
        self._shared[at], self._places[at] = fresh, asked
        self._vectors[at] = self._world.vectors[asked]

    def _withdraw(self, former: Stored) -> None:
        """Let every copy of an answer end."""
        gone = Stored("", 0, -np.inf)
        self._exact = {key: item for key, item in self._exact.items() if item[:2] != former[:2]}
        self._shared = [gone if item[:2] == former[:2] else item for item in self._shared]


def _key(stored: Stored) -> str:
    """Return the name of an answer as it is now."""
    return f"{stored.answer}\n{stored.version}"


def changing(world: World) -> dict[str, float]:
    """Return one in ten of the popular answers, with the time in the middle of the traffic."""
    counts = Counter(row["answer_id"] for row in world.rows if not row["private"])
    popular = sorted(
        (answer for answer, count in counts.items() if count >= POPULAR),
        key=lambda answer: hashlib.blake2b(answer.encode()).digest(),
    )
    middle = world.rows[len(world.rows) // 2]["t"]
    return dict.fromkeys(popular[: -(-len(popular) // ONE_IN)], middle)


def caches(world: World, changes: Mapping[str, float], max_wrong: float) -> dict[str, Cache]:
    """Return the caches that are compared, by what they do with a fresh answer."""
    make = partial(Cache, world, changes, max_wrong=max_wrong)
    found = {
        "replaces its own": make(withdraws=False),
        "withdraws every copy": make(withdraws=True),
    }
    for share in SHARES:
        found[f"and `recheck_share={share:g}`"] = make(withdraws=True, share=share)
    if max_wrong:
        verified = f"and {VERIFIED:.0%} of the similar hits get a verdict"
        found[verified] = make(withdraws=True, verdicts=Verdicts(VERIFIED))
        found[f"{verified}, {MISTAKEN:.0%} of them wrong"] = make(
            withdraws=True, verdicts=Verdicts(VERIFIED, MISTAKEN)
        )
    return found


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("traffic", type=Path, help="JSON Lines with the columns of `replay`, and t")
    parser.add_argument("--max-wrong", type=float, default=0.0, help="by the learned policy")
    options = parser.parse_args()
    language.load()
    world = asyncio.run(embedded(options.traffic))
    changes = changing(world)
    affected = Counter(
        row["answer_id"] for row in world.rows if row["t"] >= changes.get(row["answer_id"], np.inf)
    )
    print(f"{len(world.rows):,} requests; {len(changes)} answers change, and are asked for "
          f"{affected.total():,} times afterwards")  # fmt: skip
    print("| a fresh answer | hits | mismatched | outdated hits | the old one is served, "
          "hours: median, longest | calls | checks |")  # fmt: skip
    print("|---|---|---|---|---|---|---|")
    for said, cache in caches(world, changes, options.max_wrong).items():
        for row in world.rows:
            cache.ask(row)
        found = cache.found
        hours = [found.last.get(answer, 0.0) / 3_600 for answer in changes]
        print(f"| {said} | {found.hits / len(world.rows):.1%} "
              f"| {found.mismatched} ({found.mismatched / found.hits:.2%}) "
              f"| {found.outdated} ({found.outdated / found.hits:.2%}) "
              f"| {median(hours):.1f}, {max(hours):.1f} | {found.calls:,} "
              f"| {found.checks:,} |")  # fmt: skip


if __name__ == "__main__":
    main()
