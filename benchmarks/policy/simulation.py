"""Simulation of a cache on labelled traffic, by the product's own rules.

Every question is embedded once, and a policy is tried in seconds instead of a replay's minutes.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cache_core.backends.embedder.choosing import make_embedder
from cache_core.config.settings import load_settings
from cache_core.config.tuning import Tuning
from cache_core.model.question.wording import exact_form, loose_form
from cache_core.policy import curve, decide
from cache_core.policy.answers import Verdict
from cache_core.policy.curve import Belief
from cache_core.policy.decide import Near
from cache_core.policy.evidence import Evidence
from cache_core.policy.limits import LEAST_SIMILARITY
from cache_core.tiers.guards import language, veto
from cache_core.tiers.guards.slots import swapped

PARTS = 5
OBSERVED_FROM = 0.985
"""Threshold of the run that collects labelled neighbours: nearly every question is labelled."""

_FLOOR = LEAST_SIMILARITY - 0.1
_ROUNDS = 60
_FLAT = 2.0
"""Answers that the flat prior weighs as much as."""

Labels = Mapping[str, Sequence[tuple[float, bool]]]
"""Similarity and rightness of each neighbour, by answer."""


@dataclass(slots=True)
class World:
    """Questions of a traffic, embedded, with the guards' vetoes as they are needed."""

    rows: list[dict[str, Any]]
    texts: list[str]
    vectors: Any
    place: dict[str, int] = field(init=False)
    readable: list[bool] = field(init=False)
    vetoes: dict[tuple[int, int], bool] = field(default_factory=dict)
    doubts: dict[tuple[int, int], bool] = field(default_factory=dict)
    _near: dict[int, list[tuple[float, int]]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        guards = Tuning().guards
        self.place = {text: number for number, text in enumerate(self.texts)}
        self.readable = [language.readable(text, guards) for text in self.texts]

    def near(self, asked: int) -> list[tuple[float, int]]:
        """Return the questions near one, itself included, nearest first, with similarities."""
        if asked not in self._near:
            similar = self.vectors @ self.vectors[asked]
            close = np.flatnonzero(similar >= _FLOOR)
            close = close[np.argsort(-similar[close], kind="stable")]
            self._near[asked] = [*zip(similar[close].tolist(), close.tolist(), strict=True)]
        return self._near[asked]

    def vetoed(self, one: int, other: int) -> bool:
        """Return whether a guard vetoes one question's answer for another."""
        if (one, other) not in self.vetoes:
            found = veto(self.texts[one], self.texts[other], Tuning().guards)
            self.vetoes[one, other] = found is not None
        return self.vetoes[one, other]

    def doubtful(self, one: int, other: int) -> bool:
        """Return whether two questions differ by a swapped word."""
        if (one, other) not in self.doubts:
            self.doubts[one, other] = swapped(self.texts[one], self.texts[other])
        return self.doubts[one, other]


@dataclass(slots=True)
class Result:
    """Hits of a run: number of the request, the answer asked for, whether the served one was it."""

    hits: list[tuple[int, str, bool]] = field(default_factory=list)
    labels: dict[str, list[tuple[float, bool]]] = field(default_factory=lambda: defaultdict(list))


class Shares(NamedTuple):
    """Shares of the pairs of answers of which something is said.

    Attributes:
        same: Of the pairs of wordings, those that are taken for the same.
        different: Of the pairs of different answers, those that are taken for different.
        mistaken: Of those, the ones that are taken for the same.
        otherwise: What is said of all others.
    """

    same: float = 1.0
    different: float = 1.0
    mistaken: float = 0.0
    otherwise: Verdict = "unknown"


KNOWN = Shares()
"""Truth about every pair."""


@dataclass(frozen=True, slots=True)
class Told:
    """Recognition of equal answers in a run, in which each may have several wordings.

    Attributes:
        wordings: Wordings of each answer.
        shares: What is said of two answers.
        of_page: What is said of two from the same document, instead.
        pages: Document of each answer that has one.
    """

    wordings: int = 1
    shares: Shares = KNOWN
    of_page: Shares = KNOWN
    pages: Mapping[str, str] = field(default_factory=dict)

    def wording(self, answer: str, request: str) -> str:
        """Return the name of the wording that an answer has at a request."""
        if self.wordings == 1:
            return answer
        return f"{answer}\n{int(self.wordings * _share(answer, request))}"

    def verdict(self, one: str, other: str) -> Verdict:
        """Return whether two wordings are taken for the same answer; of a pair always the same."""
        if one == other:
            return "same"
        place = _share(*sorted((one, other)))
        ours, theirs = answer_of(one), answer_of(other)
        page = self.pages.get(ours)
        common = page is not None and page == self.pages.get(theirs)
        shares = self.of_page if common else self.shares
        if ours == theirs:
            return "same" if place < shares.same else shares.otherwise
        if place < shares.mistaken:
            return "same"
        return "different" if place < shares.mistaken + shares.different else "unknown"


BY_NAME = Told()
"""Each answer has one name and one wording."""


def pages_of(rows: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return the document of each answer, as retrieval would find it: that of its whole topic.

    An answer's id is of a source, a topic and perhaps a value, such as a plan. Small talk comes
    from no document, nor does what is asked beside all topics.
    """
    return {
        row["answer_id"]: ":".join(row["answer_id"].split(":")[:2])
        for row in rows
        if row.get("kind") not in {"chitchat", "oneoff"}
    }


def answer_of(wording: str) -> str:
    """Return the answer that a wording is of."""
    return wording.partition("\n")[0]


def _share(*names: str) -> float:
    """Return a number from 0 to 1 that depends on *names* alone."""
    digest = hashlib.blake2b("\0".join(names).encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") / 2**32


@dataclass(frozen=True, slots=True)
class Rule:
    """A policy of a run: a threshold, or a risk with its evidence.

    Attributes:
        threshold: Least similarity, without a risk.
        guarded: Whether guards veto, and what they cannot read is not matched.
        risk: See `cache_core.policy.decide`.
        evidence: What the run learns.
        told: How it tells equal answers.
    """

    threshold: float = 1.0
    guarded: bool = True
    risk: float | None = None
    evidence: Evidence = field(default_factory=Evidence)
    told: Told = BY_NAME

    def learn(self, stored: str, similarity: float, fresh: str) -> None:
        """Learn what a fresh answer says of the nearest stored one, as the product does."""
        verdict = self.told.verdict(stored, fresh)
        if verdict == "unknown":
            return
        self.evidence.learn(stored, similarity, right=verdict == "same")
        if stored != fresh:
            (self.evidence.link if verdict == "same" else self.evidence.part)(stored, fresh)

    def serves(self, world: World, asked: int, live: Sequence[tuple[float, int, str]]) -> bool:
        """Return whether the nearest of *live* (similarity, question, answer) is served."""
        similarity, nearest, _ = live[0]
        if self.risk is None:
            return similarity >= self.threshold
        near = [Near(at, answer, hash(self.evidence.first(answer))) for at, _, answer in live]
        found = decide.Given(near, self.evidence, lambda _: world.doubtful(asked, nearest))
        return found.served(self.risk)


def simulate(world: World, rule: Rule) -> Result:
    """Return what a cold cache would have served, row by row, with sharing by the private flag."""
    found = Result()
    exact: dict[tuple[Any, ...], str] = {}
    shared: dict[str, int] = {}
    own: dict[str, dict[str, tuple[int, str]]] = defaultdict(dict)
    answers: dict[int, str] = {}
    for number, row in enumerate(world.rows):
        message, user, right = row["message"], row["user_id"], row["answer_id"]
        wanted = rule.told.wording(right, row["request_id"])
        after = tuple(row.get("history") or ())
        name = (after, exact_form(message))
        served = exact.get((user, *name)) or exact.get((None, *name))
        if served is not None:
            found.hits.append((number, right, answer_of(served) == right))
            continue
        asked = world.place[message]
        searched = not after and (world.readable[asked] or not rule.guarded)
        if searched:
            live = [item for item in _near(world, asked, answers, dict(own[user].values()))
                    if not (rule.guarded and world.vetoed(asked, item[1]))]  # fmt: skip
            if live and rule.serves(world, asked, live):
                found.hits.append((number, right, answer_of(live[0][2]) == right))
                continue
            if live:
                similarity, _, answer = live[0]
                found.labels[answer].append((similarity, answer_of(answer) == right))
                rule.learn(answer, similarity, wanted)
        private = bool(row["private"])
        exact[user if private else None, *name] = wanted
        if searched and private:
            own[user][loose_form(message)] = (asked, wanted)
        elif searched:
            answers.pop(shared.get(loose_form(message), asked), None)
            shared[loose_form(message)] = asked
            answers[asked] = wanted
    return found


def _near(
    world: World, asked: int, shared: Mapping[int, str], own: Mapping[int, str]
) -> list[tuple[float, int, str]]:
    """Return the nearest stored questions with their answers, a user's own before a shared one."""
    stored = (
        (similarity, at, answers[at])
        for similarity, at in world.near(asked)
        for answers in (own, shared)
        if at in answers
    )
    return [*islice(stored, decide.NEIGHBOURS)]


def fit(labels: Labels) -> Belief:
    """Return the mixture of curves that explains the labels of all answers best, by EM."""
    flat = curve.flat()
    likelihoods = [_log_likelihoods(found) for found in labels.values()]
    weights = np.array(flat)
    for _ in range(_ROUNDS):
        held = np.log(weights) + np.array(likelihoods)
        held = np.exp(held - held.max(axis=1, keepdims=True))
        held /= held.sum(axis=1, keepdims=True)
        weights = held.sum(axis=0) + _FLAT * np.array(flat)
        weights /= weights.sum()
    return tuple(float(weight) for weight in weights)


def _log_likelihoods(found: Iterable[tuple[float, bool]]) -> Any:
    total = np.zeros(len(curve.GRID))
    for similarity, right in found:
        total += np.log(np.array(curve.likelihoods(similarity, right=right)))
    return total


def part_of(answer: str) -> int:
    """Return the part, 0 to 4, that an answer belongs to."""
    return hashlib.blake2b(answer.encode(), digest_size=1).digest()[0] % PARTS


async def embedded(path: Path) -> World:
    """Return the traffic of *path* with the vectors of its questions."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    texts = sorted({row["message"] for row in rows})
    fixed = load_settings()
    model = make_embedder(fixed.embedding_model, fixed.embedding_backend, fixed.torch_threads)
    await model.wait_ready()
    await model.embed_all(texts, lambda _: None)
    vectors = np.array([await model.embed(text) for text in texts], np.float32)
    model.close()
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return World(rows, texts, vectors)
