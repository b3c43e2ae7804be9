"""Recognition of the same answer in other words, and of one that differs in a fact.

`support/answers.json` has answers of a support desk in three wordings each, and near misses:
another number, name or condition, the opposite. The bounds of `cache_core/policy/answers.py` are
chosen on every second answer, and what they give is counted on the others, with the packaged model.

    python -m benchmarks.answers                 a few seconds
    python -m benchmarks.answers --write-docs    and the table in docs/answer-quality.md
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.support.docs_table import ANSWER_QUALITY, markdown, write
from cache_core.backends.base import Vector
from cache_core.backends.embedder.choosing import make_embedder
from cache_core.backends.embedder.encoder import PACKAGED_MODEL
from cache_core.policy.answers import ALIKE, UNLIKE, AnswerText, Verdict, named, same_documents
from cache_core.tiers import guards
from cache_core.tiers.guards.answers import Comparison, compare

ANSWERS = Path(__file__).parent / "support" / "answers.json"
NAME = "answers"
HEADER = ("two answers", "pairs", "same", "different", "unknown")
SAME, SUBJECTS = "the same in other words", "to different questions"

Answers = Sequence[Mapping[str, Any]]


class Pair(NamedTuple):
    """Two answers.

    Attributes:
        differs: In what; `SAME` if in words alone.
        facts: Comparison of their facts.
        similarity: Cosine of their vectors.
        alike: Whether they would be the same answer if they came from the same documents, and no
            fact differed.
    """

    differs: str
    facts: Comparison
    similarity: float
    alike: bool

    def verdict(self, alike: float, unlike: float, *, documents: bool = False) -> Verdict:
        """Return what is said of them with some bounds, as answers from the same documents or not.

        In the order of `cache_core.operations.recognition`.
        """
        if self.facts == "conflict":
            return "different"
        if documents and self.alike:
            return "same"
        if self.similarity < unlike:
            return "different"
        return "same" if self.facts == "agree" and self.similarity >= alike else "unknown"


@dataclass(frozen=True, slots=True)
class Found:
    """Bounds that were chosen on a half of the answers, and the pairs of the other half."""

    alike: float
    unlike: float
    pairs: Sequence[Pair]

    def table(self) -> str:
        """Return how many of each kind are taken for what, as Markdown."""
        counts: dict[str, Counter[Verdict]] = {}
        for pair in self.pairs:
            counts.setdefault(pair.differs, Counter())[pair.verdict(self.alike, self.unlike)] += 1
        kinds = sorted(counts, key=lambda kind: (kind != SAME, kind == SUBJECTS, kind))
        rows = [
            [kind, *(f"{count:,}" for count in (
                found.total(), found["same"], found["different"], found["unknown"]))]
            for kind in kinds if (found := counts[kind])
        ]  # fmt: skip
        return markdown(HEADER, rows)


def measure() -> Found:
    """Return the bounds chosen on every second answer, and the pairs of the others."""
    answers: Answers = json.loads(ANSWERS.read_text(encoding="utf-8"))
    guards.load()
    vectors = asyncio.run(_embedded(answers))
    one, other = ([*_pairs(answers[start::2], vectors)] for start in (0, 1))
    return Found(*_chosen(one), other)


def _chosen(pairs: Sequence[Pair]) -> tuple[float, float]:
    """Return the least bound that takes no different answers for the same, and the other one.

    That is the greatest below which no two wordings of one answer are.
    """
    steps = [step / 100 for step in range(101)]
    wrong = max(pair.similarity for pair in pairs if pair.facts == "agree" and pair.differs != SAME)
    least = min(pair.similarity for pair in pairs if pair.differs == SAME)
    return min(step for step in steps if step > wrong), max(step for step in steps if step < least)


def _pairs(answers: Answers, vectors: Mapping[str, Vector]) -> Iterator[Pair]:
    """Yield each two wordings, each with its near misses, and those of different answers."""

    def pair(differs: str, one: str, other: str) -> Pair:
        similarity = float(vectors[one] @ vectors[other])
        texts = (AnswerText(text, "".join(named(None, ["page"]))) for text in (one, other))
        return Pair(differs, compare(one, other), similarity, same_documents(*texts))

    for answer in answers:
        wordings, others = answer["wordings"], answer["others"]
        yield from (pair(SAME, *two) for two in itertools.combinations(wordings, 2))
        for one, other in itertools.product(wordings, others):
            yield pair(other["differs"], one, other["text"])
    for mine, yours in itertools.combinations(answers, 2):
        for two in itertools.product(mine["wordings"], yours["wordings"]):
            yield pair(SUBJECTS, *two)


async def _embedded(answers: Answers) -> dict[str, Vector]:
    texts = [
        text
        for answer in answers
        for text in (*answer["wordings"], *(other["text"] for other in answer["others"]))
    ]
    model = make_embedder(PACKAGED_MODEL)
    await model.wait_ready()
    await model.embed_all(texts)
    found = {text: await model.embed(text) for text in texts}
    model.close()
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Choose, print, and write the documentation if wanted."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--write-docs", action="store_true", help="write the table into the documentation"
    )
    options = parser.parse_args(arguments)
    found = measure()
    print(f"ALIKE {found.alike} (in force: {ALIKE}), UNLIKE {found.unlike} (in force: {UNLIKE})")
    print(found.table())
    if options.write_docs:
        write(ANSWER_QUALITY, NAME, found.table())


if __name__ == "__main__":
    main()
