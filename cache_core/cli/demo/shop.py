"""Knowledge base of the demo's shop, public and private."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources

SHOP = "Northway"
"""Fictional shop for bikes and outdoor gear."""


@dataclass(frozen=True, slots=True)
class FollowUp:
    """Question that depends on an earlier one.

    Attributes:
        id: The answer's id.
        response: The agent's answer.
        phrasings: Ways to ask it.
    """

    id: str
    response: str
    phrasings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Topic:
    """Subject that customers ask about, and its answer.

    Attributes:
        id: The answer's id.
        intent: The intent label.
        private: Whether the answer is about the asking customer.
        response: The agent's answer; a private one has `{user}` and other placeholders.
        documents: Ids of the answer's documents.
        phrasings: Ways to ask it.
        followups: Possible next questions.
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
    """Knowledge of customer service.

    Attributes:
        documents: Texts by id.
        topics: All topics.
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
    """Return the knowledge base shipped with the demo."""
    source = resources.files("cache_core.cli.demo").joinpath("knowledge.json")
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
