"""The demo's shop: what its customer service knows, and which of it is about one customer alone."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources

SHOP = "Northway"
"""A shop for bikes and outdoor gear that does not exist."""


@dataclass(frozen=True, slots=True)
class FollowUp:
    """A question that means something only after another one.

    Attributes:
        id: Of its answer.
        response: What the agent says.
        phrasings: Ways to ask it.
    """

    id: str
    response: str
    phrasings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Topic:
    """One thing that customers ask, and its answer.

    Attributes:
        id: Of the answer.
        intent: Its label.
        private: Whether the answer is about the customer who asks.
        response: What the agent says; a private one has `{user}` and other placeholders.
        documents: Ids of the documents that the answer comes from.
        phrasings: Ways to ask it.
        followups: What customers ask next.
    """

    id: str
    intent: str
    private: bool
    response: str
    documents: tuple[str, ...]
    phrasings: tuple[str, ...]
    followups: tuple[FollowUp, ...]


@dataclass(frozen=True, slots=True)
class Knowledge:
    """What customer service knows.

    Attributes:
        documents: Texts by id.
        topics: What can be asked.
    """

    documents: Mapping[str, str]
    topics: tuple[Topic, ...]

    @property
    def public_intents(self) -> list[str]:
        """Intents whose answers are the same for every customer."""
        return _intents(topic for topic in self.topics if not topic.private)

    @property
    def private_intents(self) -> list[str]:
        """Intents whose answers name the customer."""
        return _intents(topic for topic in self.topics if topic.private)


def load_knowledge() -> Knowledge:
    """Return the knowledge base that comes with the demo."""
    source = resources.files(__name__).joinpath("knowledge.json")
    stored = json.loads(source.read_text(encoding="utf-8"))
    topics = tuple(
        Topic(
            id=item["id"],
            intent=item["intent"],
            private=item["private"],
            response=item["response"],
            documents=tuple(item["documents"]),
            phrasings=tuple(item["phrasings"]),
            followups=tuple(
                FollowUp(next_["id"], next_["response"], tuple(next_["phrasings"]))
                for next_ in item.get("followups", ())
            ),
        )
        for item in stored["answers"]
    )
    return Knowledge(stored["documents"], topics)


def _intents(topics: Iterable[Topic]) -> list[str]:
    return list(dict.fromkeys(topic.intent for topic in topics))
