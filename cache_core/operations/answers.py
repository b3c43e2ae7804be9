"""Answers to be stored, as a put or a computation gives them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from cache_core.model.documents import Taken, taken
from cache_core.model.values import Answer, Entry, Level, LookupResult, Source
from cache_core.operations.arguments import (
    MAX_INTENT_CHARS,
    check_answer_id,
    check_optional,
    check_put,
    check_sharing,
)


class What(NamedTuple):
    """An answer, as of the call that puts it.

    Attributes:
        response: What the agent said; `None` or empty for none.
        intent: The message's label.
        documents: What retrieval returned.
        no_text: The type of a response that is no text, and therefore not stored.
        answer_id: The caller's name of the answer; `None` without one.
        finish_reason: The model's reason for its end; `None` if unknown.
    """

    response: str | None = None
    intent: str | None = None
    documents: Taken = Taken()
    no_text: str = ""
    answer_id: str | None = None
    finish_reason: str | None = None

    @property
    def offered(self) -> tuple[Level, ...]:
        """The tiers that are offered a part of it."""
        levels: list[Level] = ["l1", "l2"] if self.response or self.no_text else []
        if self.intent:
            levels.append("l3")
        if self.documents.values is not None or self.documents.left_out:
            levels.append("l4")
        return tuple(levels)

    def left_out(self, most_bytes: int) -> dict[Level, str]:
        """Return the tiers whose part cannot be stored, and why.

        Args:
            most_bytes: Size of the largest response that is stored, in UTF-8.
        """
        found: dict[Level, str] = {}
        response = self.response or ""
        if self.no_text:
            found["l1"] = found["l2"] = "unsupported"
        elif 4 * len(response) > most_bytes and (
            len(response.encode("utf-8", "surrogatepass")) > most_bytes
        ):
            found["l1"] = found["l2"] = "too_large"
        if len(self.intent or "") > MAX_INTENT_CHARS:
            found["l3"] = "too_large"
        if self.documents.left_out:
            found["l4"] = self.documents.left_out
        return found

    def entry(self, left_out: Mapping[Level, str]) -> Entry:
        """Return it without what is left out; an empty value stands for that."""
        documents = [] if "l4" in left_out else self.documents.values
        return Entry(
            response="" if "l1" in left_out else self.response or None,
            intent="" if "l3" in left_out else self.intent or None,
            rag_results=documents,
            tagged=self.documents.tagged,
        )


class How(NamedTuple):
    """Options of a put; each as for `MultiLevelCache.put`."""

    shared: bool | None = None
    share_documents: bool | None = None
    ttl: float | None = None
    tags: tuple[str, ...] = ()
    cost_usd: float | None = None
    personal: tuple[str, ...] = ()
    source: Source = "put"
    renewed: bool = False


def computed_put(
    answer: Answer,
    otherwise: Answer,
    personal: tuple[str, ...],
    lookup: LookupResult,
    most_bytes: int,
) -> tuple[What, How]:
    """Return what of a computed answer is to be stored, and how.

    Args:
        answer: As the function returned it.
        otherwise: What the caller said of it, where the answer says nothing.
        personal: Names of the user.
        lookup: The lookup that found no answer, or an old one.
        most_bytes: Size of the largest documents that are stored.

    Raises:
        TypeError, ValueError: For an answer that `MultiLevelCache.put` refuses.
    """
    # Before anything of it is unpacked: the letters of a str would be tags.
    check_put(None, answer.intent, answer.ttl, answer.tags, answer.cost_usd)
    check_answer_id(answer.answer_id)
    check_optional("finish_reason", answer.finish_reason)
    check_sharing(answer.shared, answer.share_documents)
    taken(None, answer.document_ids, 0)
    answer = _completed(answer, otherwise)
    how = How(answer.shared, answer.share_documents, answer.ttl, tuple(answer.tags),
              answer.cost_usd, personal)  # fmt: skip
    if lookup.stored_for == "shared" and how.shared is None:
        how = how._replace(shared=True, renewed=True)
    return _what(answer, lookup.intent, most_bytes), how


def _completed(answer: Answer, otherwise: Answer) -> Answer:
    """Return *answer* with what it leaves open taken from *otherwise*, and the tags of both."""

    def either(field: str) -> Any:
        value = getattr(answer, field)
        return getattr(otherwise, field) if value is None else value

    open_fields = ("shared", "share_documents", "ttl", "cost_usd")
    return replace(
        answer,
        **{field: either(field) for field in open_fields},
        intent=answer.intent or otherwise.intent,
        tags=(*otherwise.tags, *answer.tags),
        document_ids=(*otherwise.document_ids, *answer.document_ids),
    )


def _what(answer: Answer, known_intent: str | None, most_bytes: int) -> What:
    """Return what of a computed answer is to be stored; whatever it holds, this does not raise.

    Args:
        answer: As `compute` returned it; its other fields were checked.
        known_intent: The label that the lookup found.
        most_bytes: As for `documents.taken`.
    """
    try:
        documents = taken(answer.rag_results, answer.document_ids, most_bytes)
    except TypeError:
        # It is no list of them, but may be one: its name invalidates the answer anyway.
        kind = type(answer.rag_results).__name__
        named = taken([answer.rag_results], answer.document_ids, 0).ids
        documents = Taken(ids=named, left_out="unsupported", kind=kind, given=True)
    response: Any = answer.response
    intent = answer.intent or known_intent
    if response is None or isinstance(response, str):
        return What(
            response, intent, documents, answer_id=answer.answer_id,
            finish_reason=answer.finish_reason,
        )  # fmt: skip
    return What(None, intent, documents, no_text=type(response).__name__)
