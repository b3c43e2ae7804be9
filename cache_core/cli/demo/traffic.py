"""Simulated customers: their questions, in an order that a seed determines.

A few customers, questions and phrasings make most of the traffic (Zipf), and even so the typed
text differs a little. Every request carries the right answer, so that each answer can be checked.
"""

from __future__ import annotations

import heapq
import itertools
from bisect import bisect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import TypeVar

from cache_core.cli.demo.shop import Knowledge, Topic

USERS = 200
ZIPF = 0.9
FOLLOW_UP_SHARE = 0.2
"""Share of the questions with possible follow-ups that get one."""

_FOLLOW_UP_DELAY = (6, 18)
_ASKED_MOST = (
    "shipping.time", "returns.how", "store.hours", "order_status.where", "shipping.cost",
    "returns.window", "payment.methods", "returns.refund_time", "membership.cost",
    "products.gale5_range", "my_account.points", "order_status.refund",
)  # fmt: skip
_NAMES = [
    "ada",
    "bea",
    "cleo",
    "dora",
    "enzo",
    "finn",
    "gwen",
    "hugo",
    "iris",
    "jude",
    "kaya",
    "liam",
    "mira",
    "nils",
    "olga",
    "piet",
    "rosa",
    "sven",
    "tara",
    "yuri",
]
_INITIALS = "bdfgklmprs"
_WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday")
_MONTHS = ("March", "April", "May", "June")
_GREETINGS = ("Hi, ", "Hello, ", "Good morning, ")

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Request:
    """Message of a customer, with the truth about it.

    Attributes:
        user_id: The asking user.
        message: The text.
        history: The turns before it, as `{"role", "content"}`; empty for a first question.
        answer_id: Id of the right answer.
        intent: The intent label.
        private: Whether the answer is about this customer only.
        response: The right answer.
        documents: Ids of the answer's documents.
    """

    user_id: str
    message: str
    history: tuple[Mapping[str, str], ...]
    answer_id: str
    intent: str
    private: bool
    response: str
    documents: tuple[str, ...]


class Traffic:
    """Endless requests; the same ones in the same order for the same seed.

    Args:
        knowledge: The knowledge base.
        seed: Seed of users, questions, times and phrasings. Popularity and the facts about each
            customer are the same for every seed.
    """

    def __init__(self, knowledge: Knowledge, seed: int = 0) -> None:
        self._random = Random(seed)
        self.users = [f"{name}.{initial}" for initial in _INITIALS for name in _NAMES]
        self._topics = _by_popularity(knowledge)
        self._topic_weights = _zipf(len(self._topics))
        self._user_weights = _zipf(len(self.users))
        self.owners = {
            personal(topic.response, user): user
            for topic in knowledge.topics
            if topic.private
            for user in self.users
        }
        """The only permitted reader of each private answer."""

    def __iter__(self) -> Iterator[Request]:
        later: list[tuple[int, int, Request]] = []
        for number in itertools.count():
            if later and later[0][0] <= number:
                yield heapq.heappop(later)[2]
                continue
            topic = _pick(self._random, self._topics, self._topic_weights)
            request = self._ask(topic, _pick(self._random, self.users, self._user_weights))
            if topic.followups and self._random.random() < FOLLOW_UP_SHARE:
                due = number + self._random.randint(*_FOLLOW_UP_DELAY)
                heapq.heappush(later, (due, number, self._follow_up(topic, request)))
            yield request

    def _ask(self, topic: Topic, user: str) -> Request:
        response = personal(topic.response, user) if topic.private else topic.response
        message = self._word(topic.phrasings)
        return Request(
            user, message, (), topic.id, topic.intent, topic.private, response, topic.documents
        )

    def _follow_up(self, topic: Topic, parent: Request) -> Request:
        chosen = self._random.choice(topic.followups)
        return Request(
            user_id=parent.user_id,
            message=self._word(chosen.phrasings),
            history=(
                {"role": "user", "content": parent.message},
                {"role": "assistant", "content": parent.response},
            ),
            answer_id=chosen.id,
            intent=parent.intent,
            private=parent.private,
            response=personal(chosen.response, parent.user_id)
            if parent.private
            else chosen.response,
            documents=parent.documents,
        )

    def _word(self, phrasings: Sequence[str]) -> str:
        return reword(_pick(self._random, phrasings, _zipf(len(phrasings))), self._random)


def personal(response: str, user: str) -> str:
    """Return a private response with the facts about *user* filled in."""
    facts = Random(user)
    return response.format(
        user=user.partition(".")[0].title() + " " + user[-1].upper() + ".",
        order=f"NW-{facts.randint(10_000, 99_999)}",
        amount=f"{facts.randint(12, 480)}.{facts.choice(('00', '50', '90'))} euros",
        date=f"{facts.choice(_WEEKDAYS)}, {facts.randint(1, 28)} {facts.choice(_MONTHS)}",
    )


def reword(phrasing: str, random: Random) -> str:
    """Return *phrasing* as people type it: half of the time with one small change."""
    polite = "please" in phrasing.casefold()
    greeted = phrasing.casefold().startswith(("hi", "hello", "good"))
    match random.randrange(10):
        case 0:
            return phrasing.casefold()
        case 1:
            return phrasing.rstrip("?!. ")
        case 2:
            return phrasing.rstrip("?!. ") + "??"
        case 3 if not polite:
            return phrasing.rstrip("?!. ") + " please?"
        case 4 if not greeted:
            return random.choice(_GREETINGS) + phrasing[0].lower() + phrasing[1:]
        case _:
            return phrasing


def _by_popularity(knowledge: Knowledge) -> list[Topic]:
    """Return the topics, most popular first."""
    topics = list(knowledge.topics)
    Random("popularity").shuffle(topics)
    rank = {name: number for number, name in enumerate(_ASKED_MOST)}
    return sorted(topics, key=lambda topic: rank.get(topic.id, len(rank)))


def _zipf(count: int) -> list[float]:
    """Return the cumulative weights of *count* ranks."""
    return list(itertools.accumulate((rank + 1) ** -ZIPF for rank in range(count)))


def _pick(random: Random, items: Sequence[Item], running: Sequence[float]) -> Item:
    return items[bisect(running, random.random() * running[-1])]
