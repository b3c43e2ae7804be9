"""Evidence of a lookup: its record, with the tiers' answers.

Its texts and digests are for the cache's own sinks; instruments only get the record.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from cache_core.config.tuning import Tuning
from cache_core.model.logs import RateLimited
from cache_core.model.values import Entry, Hit, Level, LookupResult, Miss, Query, Where
from cache_core.observability.records import LookupRecord, TierRecord

log = RateLimited(logging.getLogger("glasscache"), longest=3600.0)

INTENT_AND_DOCUMENTS: tuple[Level, ...] = ("l3", "l4")
"""Tiers without a response."""


@dataclass(slots=True)
class TierAnswer:
    """One tier that was asked: its record, and its answer unless it failed."""

    record: TierRecord
    answer: Hit | Miss | None
    hit: Hit | None
    """The answer, if it is one."""


class Found:
    """Answers of the tiers that were needed, in tier order."""

    __slots__ = ("asked",)

    def __init__(self, asked: Sequence[TierAnswer] = ()) -> None:
        self.asked = asked

    def of(self, level: Level) -> TierAnswer | None:
        """Return a tier's answer, if it was needed."""
        for item in self.asked:
            if item.record.level == level:
                return item
        return None

    @property
    def answered(self) -> TierAnswer | None:
        """The tier that has the response: none is needed after it."""
        last = self.asked[-1] if self.asked else None
        if last is None or last.hit is None or last.record.level in INTENT_AND_DOCUMENTS:
            return None
        return last

    def hit(self, level: Level) -> Hit | None:
        """Return a tier's hit."""
        for item in self.asked:
            if item.record.level == level:
                return item.hit
        return None

    @property
    def nearest(self) -> Hit | Miss | None:
        """L1's hit; else L2's answer, which may be a miss with the nearest question."""
        exact = self.hit("l1")
        if exact is not None:
            return exact
        semantic = self.of("l2")
        return semantic.answer if semantic is not None else None


def entry_of(answer: Hit | Miss) -> Entry | None:
    """Return the entry of a tier's answer; of a miss the nearest one."""
    return answer.nearest if isinstance(answer, Miss) else answer.entry


class Evidence(NamedTuple):
    """A finished lookup, with the message and what was found for it.

    Attributes:
        record: The record, as the instruments got it.
        query: The message.
        where: Its context and history.
        found: The tiers' answers.
        result: The caller's result.
        tuning: The tuning in force.
    """

    record: LookupRecord
    query: Query
    where: Where
    found: Found
    result: LookupResult
    tuning: Tuning


class Sink(Protocol):
    """Part of the cache that processes finished lookups of its tiers.

    Attributes:
        dropped: Number of lookups, or of tasks that they caused, that it lost.
    """

    dropped: int

    def note(self, evidence: Evidence) -> None:
        """Process a finished lookup, quickly: the caller waits for it."""
        ...


def hand_out(evidence: Evidence, sinks: Sequence[Sink]) -> None:
    """Hand a finished lookup to every sink; one that fails loses it, and raises nothing."""
    for sink in sinks:
        try:
            sink.note(evidence)
        except Exception as error:  # noqa: BLE001 - the answer is there
            sink.dropped += 1
            # Without the error's text, which may quote the message.
            kind = f"{type(sink).__qualname__}: unexpected {type(error).__name__}"
            log.limited(kind, "%s; please report it", kind)
