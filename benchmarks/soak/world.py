"""Ground truth of the soak: the right answer to each question, by user and generation.

All replicas share it through a small file in memory. A process that invalidates something first
raises its generation there, and records it as confirmed only when the cache has reported the
invalidation as complete. An answer names the generations in force when its computation began. So
every answer that the cache serves can be judged by itself.
"""

from __future__ import annotations

import fcntl
import json
import mmap
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Literal

from benchmarks.support.questions import pairs

TOPICS = 60
USERS = 12
CONTEXTS: tuple[str | None, ...] = (None, "You answer in German.")
INTENTS = 12
TAGS = 10
_CELLS = 2 * TOPICS + 2 * TOPICS * USERS + USERS
_BYTES = 16 * _CELLS

Wrong = Literal["", "wrong", "cross_user", "after_invalidation"]


def topics() -> list[tuple[str, str]]:
    """Return as many questions as there are topics, each in two wordings.

    Any two topics have at most one word of their own in common: no model takes one for the other.
    """
    chosen: list[tuple[str, str]] = []
    words: list[set[str]] = []
    for pair in pairs():
        its = set(pair[0].rstrip("?").split()) - {"How", "do", "I", "my"}
        if all(len(its & others) <= 1 for others in words):
            chosen.append(pair)
            words.append(its)
        if len(chosen) == TOPICS:
            break
    return chosen


@dataclass(frozen=True, slots=True)
class Question:
    """Question of a user.

    Attributes:
        text: The message.
        topic: Its topic; two wordings of a topic have the same answer.
        wording: Number of the wording; `None` for a question asked only once.
        user: The asking user.
        context: Number of the context.
        history: The turn before, if it matters.
    """

    text: str
    topic: str
    wording: int | None
    user: int
    context: int
    history: str | None

    @property
    def private(self) -> bool:
        """True if its answer is for this user only."""
        return int(self.topic.split()[-1]) % 2 == 1

    @property
    def intent(self) -> str:
        """The label of its topic; even topics have answers for everybody."""
        return f"intent-{int(self.topic.split()[-1]) % INTENTS}"

    @property
    def user_id(self) -> str:
        """The user id for the cache."""
        return f"user-{self.user}"

    @property
    def where(self) -> dict[str, Any]:
        """The keyword arguments for the cache's calls."""
        return {
            "context": CONTEXTS[self.context],
            "history": [self.history] if self.history else None,
        }


class World:
    """Ground truth shared by processes.

    Args:
        path: Path of the file; the first process creates it.
    """

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.write_bytes(bytes(_BYTES))
        self._file = path.open("r+b")
        self._cells = mmap.mmap(self._file.fileno(), _BYTES)

    def message(self, wording: int) -> int:
        """Return the cell of a message."""
        return wording

    def own(self, wording: int, user: int) -> int:
        """Return the cell of a user's answers to a message."""
        return 2 * TOPICS + wording * USERS + user

    def user(self, user: int) -> int:
        """Return the cell of everything of a user."""
        return 2 * TOPICS + 2 * TOPICS * USERS + user

    def begun(self, cell: int) -> int:
        """Return the number of invalidations of *cell* begun: its generation."""
        return int(struct.unpack_from("<q", self._cells, 16 * cell)[0])

    def confirmed(self, cell: int) -> int:
        """Return the newest generation of *cell* with a confirmed invalidation."""
        return int(struct.unpack_from("<q", self._cells, 16 * cell + 8)[0])

    def raise_(self, cells: Iterable[int]) -> dict[int, int]:
        """Begin a generation of each cell; return them."""
        with self._alone():
            raised = {}
            for cell in cells:
                raised[cell] = self.begun(cell) + 1
                struct.pack_into("<q", self._cells, 16 * cell, raised[cell])
            return raised

    def confirm(self, raised: Mapping[int, int]) -> None:
        """Record that the invalidations that began these generations are complete."""
        with self._alone():
            for cell, generation in raised.items():
                newest = max(generation, self.confirmed(cell))
                struct.pack_into("<q", self._cells, 16 * cell + 8, newest)

    def _alone(self) -> _Lock:
        return _Lock(self._file.fileno())

    # ------------------------------------------------------------------------------ answers

    def cells(self, question: Question) -> list[int]:
        """Return the cells that the answer to *question* depends on."""
        found = [] if question.wording is None else [self.message(question.wording)]
        if question.private:
            found.append(self.user(question.user))
            if question.wording is not None:
                found.append(self.own(question.wording, question.user))
        return found

    def answer(self, question: Question) -> str:
        """Return the current answer, which names all cells it depends on."""
        return json.dumps(
            {
                "topic": question.topic,
                "user": question.user if question.private else None,
                "context": question.context,
                "history": question.history,
                "generations": {str(cell): self.begun(cell) for cell in self.cells(question)},
            }
        )

    def confirmed_before(self) -> bytes:
        """Return all cells now, to judge the result of a lookup that begins now."""
        return self._cells[:]

    def judge(self, question: Question, answer: object, before: bytes) -> Wrong:
        """Return the error of a served answer, if any.

        Args:
            question: The question.
            answer: The answer, made by `answer`.
            before: The cells when the lookup began.
        """
        try:
            found = json.loads(str(answer))
            said = (found["topic"], found["context"], found["history"])
            owner, generations = found["user"], dict(found["generations"])
        except (ValueError, KeyError, TypeError):
            return "wrong"
        if owner is not None and owner != question.user:
            return "cross_user"
        if said != (question.topic, question.context, question.history):
            return "wrong"
        if (owner is None) == question.private:
            return "wrong"
        for cell, generation in generations.items():
            if generation < struct.unpack_from("<q", before, 16 * int(cell) + 8)[0]:
                return "after_invalidation"
        return ""


class _Lock:
    """Holder of a file's lock during a change."""

    def __init__(self, file: int) -> None:
        self._file = file

    def __enter__(self) -> None:
        fcntl.flock(self._file, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        fcntl.flock(self._file, fcntl.LOCK_UN)


class Curiosity:
    """Generator of questions: some topics recur, some are asked only once.

    Args:
        chance: Source of randomness.
        replica: Number of the replica, which makes its one-time questions unique.
    """

    _ONCE = 0.15

    def __init__(self, chance: Random, replica: int) -> None:
        self._chance = chance
        self._topics = topics()
        self._weights = [1 / (1 + rank) ** 0.6 for rank in range(TOPICS)]
        self._next = (replica + 1) * 10_000_000 + chance.randrange(1_000_000)

    def question(self) -> Question:
        """Return the next question."""
        chance = self._chance
        user, context = chance.randrange(USERS), int(chance.random() < 0.2)
        if chance.random() < self._ONCE:
            self._next += 1
            about = "order" if self._next % 2 else "article"
            words = {"order": "Where is my order", "article": "What is the price of article"}
            text = f"{words[about]} {self._next}?"
            return Question(text, f"{about} {self._next}", None, user, context, None)
        topic = chance.choices(range(TOPICS), self._weights)[0]
        variant = int(chance.random() < 0.4)
        history = f"turn {chance.randrange(3)}" if chance.random() < 0.05 else None
        return self.about(topic, variant, user, context, history)

    def about(
        self, topic: int, variant: int, user: int, context: int = 0, history: str | None = None
    ) -> Question:
        """Return a question about a recurring topic."""
        text = self._topics[topic][variant]
        return Question(text, str(topic), 2 * topic + variant, user, context, history)


def wordings(of: Sequence[int]) -> list[int]:
    """Return the wordings of topics."""
    return [wording for topic in of for wording in (2 * topic, 2 * topic + 1)]
