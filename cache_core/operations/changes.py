"""Answers that changed: a fresh one is compared with the stored one that it replaces.

Most wrong answers of a cache are not mismatched but outdated. A fresh answer to a stored message,
after an expiry, a refresh or a regeneration, shows whether the old one is still right. If it is
not, every stored copy of the old answer is outdated, whatever question it was given to. The same
answer in other words leaves the copies where they are: they are found by the fresh one from then
on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import NamedTuple

from cache_core.backends.base import Keyed, RowWrite
from cache_core.backends.deadline import Deadline
from cache_core.config.intents import label_of
from cache_core.config.lifetimes import kept_seconds
from cache_core.config.tuning import Tuning
from cache_core.model import envelope
from cache_core.model.exceptions import BackendError
from cache_core.model.keys import APART, Keys
from cache_core.model.question.wording import loose_form
from cache_core.model.remedies import log_failure
from cache_core.model.values import Entry, Generation, Level, Query, Scope, Sighting
from cache_core.observability.instruments import Instruments
from cache_core.observability.records import ChangeRecord
from cache_core.operations.learning import Learning
from cache_core.operations.recognition import Recognition
from cache_core.operations.sightings import known
from cache_core.policy.answers import AnswerText, Verdict, by_caller

SIDE_BY_SIDE = 30.0
"""Seconds of age up to which two answers may come from computations at the same time: they differ
in their words, and nothing has changed."""

_TELLING = 32
"""Characters of the shortest text by which an answer is known: "Yes." answers many questions."""

RESPONSES: tuple[Level, ...] = ("l1", "l2")
"""Tiers that keep copies of an answer."""

_WORDINGS = 8
"""Other wordings of an answer that are remembered; the newest."""

SharedText = Callable[[Query], Awaitable[str | None]]
"""Returns the envelope that the vector index has of a message."""

Withdraw = Callable[[str], Awaitable[object]]
"""Invalidates every answer with a label."""


class Comparing(NamedTuple):
    """Comparisons of a fresh answer: with its miss's candidate, and with what it replaces.

    Attributes:
        learning, changes: Make them.
        recognition: Makes the vectors for both.
    """

    learning: Learning
    changes: Changes
    recognition: Recognition


class _Copies(NamedTuple):
    """Places of the copies of an answer that a fresh one replaces.

    Attributes:
        labels: Of the old answer, and of its other wordings; none if it has no copies.
        fresh: Label of the fresh answer; empty without one.
        rows: Keys of the fresh answer's entries, with its message.
        seconds: For which those are kept.
    """

    labels: Sequence[str] = ()
    fresh: str = ""
    rows: Mapping[str, str] = MappingProxyType({})
    seconds: float = 0.0


class Changes:
    """Compares fresh answers with stored ones.

    Args:
        store: Has the stored entries and the indexes of answers.
        keys: Their names.
        shared_text: Reads a row of the vector index, where the store does not have its envelope;
            `None` where it has.
        withdraw: Invalidates the old answer everywhere.
        recognition: Compares two answers.
        instruments: Count the comparisons.
    """

    def __init__(
        self,
        store: Keyed,
        keys: Keys,
        shared_text: SharedText | None,
        withdraw: Withdraw,
        recognition: Recognition,
        instruments: Instruments,
    ) -> None:
        self._store = store
        self._keys = keys
        self._shared_text = shared_text
        self._withdraw = withdraw
        self._recognition = recognition
        self._instruments = instruments
        # One for each comparison whose message may still be listed as a copy of the old answer.
        self._listed: set[asyncio.Future[None]] = set()

    async def compare(
        self,
        query: Query,
        entry: Entry,
        scope: Scope,
        tuning: Tuning,
        seen: Sighting | None,
        seconds: float,
    ) -> Sighting | None:
        """Compare a fresh answer with the stored one that it replaces, if there is one.

        Args:
            query: The message.
            entry: The fresh answer.
            scope: Who may read it.
            tuning: For the TTLs.
            seen: What the lookup before it saw; `None` if it follows none.
            seconds: That it may take; without a result the fresh answer just replaces the old one.

        Returns:
            *seen*, against which it is not held that the old answer was invalidated.
        """
        before = known()
        listed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._listed.add(listed)
        try:
            async with Deadline(seconds):
                found = await self._stored(query, scope, seen)
                if found is not None and entry.response:
                    await self._compared(query, entry, scope, found, tuning, listed)
        except (BackendError, TimeoutError) as error:
            self._failed(label_of(entry.intent), error)
        finally:
            self._unlisted(listed)
        mine = [token for token in known() if token not in before]
        return seen._replace(known=(*seen.known, *mine)) if seen is not None and mine else seen

    def _unlisted(self, listed: asyncio.Future[None]) -> None:
        self._listed.discard(listed)
        if not listed.done():
            listed.set_result(None)

    def _failed(self, intent: str, error: Exception) -> None:
        self._instruments.record(ChangeRecord(intent=intent, failed=True))
        late = BackendError("timeout", "Comparing")
        log_failure(
            "copies of an answer that may have changed were not looked for",
            error if isinstance(error, BackendError) else late,
        )

    async def _compared(
        self,
        query: Query,
        entry: Entry,
        scope: Scope,
        found: tuple[Level, Entry],
        tuning: Tuning,
        listed: asyncio.Future[None],
    ) -> None:
        level, old = found
        age = envelope.age(old, self._store.now())
        copies = await self._copies(query, entry, old, tuning) if scope == "shared" else _Copies()
        if age < SIDE_BY_SIDE:
            await self._leave(copies)
            return
        expired = age > old.life(tuning.ttl(level, old.intent))
        record = ChangeRecord(expired=expired, age=age, intent=label_of(old.intent))
        one = AnswerText(entry.response or "", entry.answer)
        other = AnswerText(old.response or "", old.answer)
        verdict = await self._recognition.at_once(one, other)
        if verdict is None and not self._recognition.full:
            self._recognition.start(partial(self._later, one, other, copies, record))
        else:
            await self._settle(verdict or "unknown", copies, record, listed)

    async def _later(
        self, one: AnswerText, other: AnswerText, copies: _Copies, record: ChangeRecord
    ) -> None:
        """Compare two answers by their vectors, once the fresh one is stored."""
        try:
            verdict = await self._recognition.by_vectors(one, other, agree=True)
            await self._settle(verdict, copies, record)
        except asyncio.CancelledError:
            self._instruments.record(ChangeRecord(intent=record.intent, failed=True))
            raise
        except BackendError as error:
            self._failed(record.intent, error)

    async def _settle(
        self,
        verdict: Verdict,
        copies: _Copies,
        record: ChangeRecord,
        listed: asyncio.Future[None] | None = None,
    ) -> None:
        """Withdraw the copies of the old answer unless it is the same; count the comparison."""
        if verdict == "same":
            await self._link(copies)
        else:
            # The put replaces it here: what is done to the other copies must not hit the fresh one.
            await self._leave(copies)
            if listed is not None:
                self._unlisted(listed)
            if copies.labels and self._listed:
                # Other fresh answers that come at the same time may replace copies as well.
                await asyncio.wait(list(self._listed))
            for label in copies.labels:
                rows = await self._store.rows(self._keys.index("answer", label))
                if any(APART not in name for name in rows):
                    await self._withdraw(label)
        # Last, because one that fails is counted as such.
        said = replace(record, changed=verdict == "different", unknown=verdict == "unknown")
        self._instruments.record(said)

    async def _copies(self, query: Query, entry: Entry, old: Entry, tuning: Tuning) -> _Copies:
        """Return where the copies of a shared answer are."""
        label, fresh = (answer_label(self._keys, query, each) for each in (old, entry))
        if label in {"", fresh}:
            return _Copies()
        wordings = await self._store.rows(self._keys.index("wording", label))
        labels = [each for each in (label, *wordings) if each != fresh]
        rows = dict.fromkeys(self._names(query, query.shared).values(), query.tag)
        seconds = max(kept_seconds(entry, level, tuning) for level in RESPONSES)
        return _Copies(labels, fresh, rows, seconds)

    async def _leave(self, copies: _Copies) -> None:
        """Make the fresh answer's entries no copies of the old one."""
        for label in copies.labels:
            await self._store.delete_rows(self._keys.index("answer", label), list(copies.rows))

    async def _link(self, copies: _Copies) -> None:
        """Make the fresh answer one more wording of the old one, which goes with its copies."""
        if not copies.labels:
            return
        index, seconds = self._keys.index, copies.seconds
        writes = [
            RowWrite(index("answer", label), copies.rows, seconds, longest=True)
            for label in copies.labels
        ]
        if copies.fresh:
            others = dict.fromkeys(copies.labels, "")
            writes.append(
                RowWrite(index("wording", copies.fresh), others, seconds, _WORDINGS, True)
            )
        await self._store.put_rows(writes)

    async def _stored(
        self, query: Query, scope: Scope, seen: Sighting | None
    ) -> tuple[Level, Entry] | None:
        """Return the newest live or expired answer of a scope to a message, and its tier.

        None of another generation than the lookup saw: that is newer than what it led to.
        """
        keys, digest = self._keys, query.scope(scope)
        names = self._names(query, digest)
        tokens = keys.generations(query)
        values = await self._store.read([*tokens, *names.values()])
        current = Generation(*values[: len(tokens)])
        stamp = current.stamp(scope)
        if stamp is None or not _saw(seen, current):
            return None
        texts = dict(zip(names, values[len(tokens) :], strict=True))
        if scope == "shared" and "l2" in texts and texts["l2"] is None and self._shared_text:
            texts["l2"] = await self._shared_text(query)
        found: tuple[Level, Entry] | None = None
        for level, text in texts.items():
            entry = self._read(text, names[level], query)
            if entry is None or entry.generation != stamp or not entry.response:
                continue
            if found is None or entry.created > found[1].created:
                found = level, entry
        return found

    def _names(self, query: Query, scope: str) -> dict[Level, str]:
        """Return the keys of the entries that a put to a message replaces."""
        levels: tuple[Level, ...] = ("l1",) if query.history else ("l2", "l1")
        return {level: self._keys.entry(level, query, scope) for level in levels}

    def _read(self, text: str | None, name: str, query: Query) -> Entry | None:
        """Return the entry in a stored text; `None` if it cannot be read."""
        if text is None:
            return None
        try:
            return envelope.decode(text, name, query.readable, self._keys.sealer)
        except (envelope.CorruptError, envelope.ForeignError):
            # A lookup deletes and counts it.
            return None


def _saw(seen: Sighting | None, current: Generation) -> bool:
    """Return whether a lookup came after the last invalidation of its message; without one, yes."""
    if seen is None:
        return True
    before = seen.generation.message if seen.generation is not None else None
    return current.message in {before, *seen.known}


def answer_label(keys: Keys, query: Query, entry: Entry) -> str:
    """Return the label by which every copy of an answer is found; empty for one that has none.

    That is the name that its caller gave it, else its text, if that is long enough to be of one
    answer only; in the question's context, because another one's has nothing to do with it.
    """
    text = entry.response or ""
    if by_caller(entry.answer):
        return keys.label("answer", f"{query.context} {entry.answer}")
    return (
        keys.label("answer", f"{query.context} {loose_form(text)}") if len(text) >= _TELLING else ""
    )
