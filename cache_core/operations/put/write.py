"""The path of one put: a generation, the indexes, then every tier's part."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from cache_core.backends.base import Keyed, RowWrite, Write
from cache_core.backends.deadline import Deadline
from cache_core.config.intents import INTENT_PATTERN
from cache_core.config.lifetimes import TOKEN_SECONDS, kept_seconds
from cache_core.config.settings import Settings
from cache_core.config.tuning import Tuning
from cache_core.model import envelope
from cache_core.model.exceptions import BackendError
from cache_core.model.generations import origin, token
from cache_core.model.keys import Keys
from cache_core.model.logs import RateLimited, place_of
from cache_core.model.remedies import log_failure
from cache_core.model.values import Entry, Generation, Level, Query, Scope, Sighting
from cache_core.observability.records import PartRecord
from cache_core.operations.changes import RESPONSES, Withdraw, answer_label
from cache_core.operations.promotion import Ballot, Promotion, promotion_label
from cache_core.operations.put.scopes import NewAnswer
from cache_core.operations.sightings import known
from cache_core.tiers.base import Tier
from cache_core.tiers.journal import Journal
from cache_core.tiers.keyed import may_mark

if TYPE_CHECKING:  # it needs the `semantic` extra
    from cache_core.tiers.semantic.tier import SemanticTier

log = RateLimited(logging.getLogger("glasscache"))

_ARRIVING_SECONDS = 600.0
"""Seconds that a put may wait for the model; what lists it lives longer by as many."""

_INDEXED = 100_000
"""Entries that an index of a document, tag or user remembers; the newest."""


class Writer:
    """Stores answers.

    Args:
        store: Keeps generations and indexes.
        keys: Their names.
        tiers: Those that are on.
        journal: Log of broad invalidations.
        semantic: L2; `None` when it is off.
        settings: For the budgets and limits.
        withdraw: Invalidates promoted answers everywhere.
    """

    def __init__(
        self,
        store: Keyed,
        keys: Keys,
        tiers: Mapping[Level, Tier],
        journal: Journal,
        semantic: SemanticTier | None,
        settings: Settings,
        withdraw: Withdraw,
    ) -> None:
        self._store = store
        self._keys = keys
        self._tiers = tiers
        self._journal = journal
        self._semantic = semantic
        self._settings = settings
        self._withdraw = withdraw
        self._promotion = Promotion(store, keys)

    async def put(
        self,
        query: Query,
        answer: NewAnswer,
        tuning: Tuning,
        seen: Sighting | None,
        seconds: float,
    ) -> list[PartRecord]:
        """Store *answer* in every tier; return one finished call per tier.

        Args:
            query: The message it answers.
            answer: What to store.
            tuning: For the TTLs.
            seen: What the lookup before it saw; `None` if it is no result of a lookup, and so of
                the generation in force now.
            seconds: That it may take; what is stored by then is.
        """
        levels = [level for level in answer.scopes if level in self._tiers]
        finished: dict[Level, PartRecord] = {}
        try:
            async with Deadline(seconds):
                if seen is None:
                    await self._journal.catch_up()
                position = self._journal.position if seen is None else seen.position
                life = self._life(answer, levels, tuning)
                answer, generation, seen = await self._voted(query, answer, tuning, seen, life)
                if generation is None:
                    return [_finished(level, "bypass", "invalidated") for level in levels]
                created = answer.entry.created if answer.restored else self._store.now()
                entry = answer.entry._replace(created=created, writer=query.user or "")
                records = self._index_records(query, answer, levels, life)
                waits = "l2" in levels and not query.history and not self._model_ready
                arrival, finished = await self._arrival(query, answer, levels, tuning, life)
                # An invalidation from now on finds it; an earlier one is found here.
                await self._store.put_rows([*records, *arrival])
                read_to = await self._held(query, answer, levels, position, seen, tuning)
                if read_to is None:
                    await self._leave_nothing_forgotten(query, answer, levels, generation)
                    return [_finished(level, "bypass", "invalidated") for level in levels]
                labels = tuple(dict.fromkeys(label for _, label in self._labels(query, answer)))
                entry = entry._replace(known=read_to, labels=labels)
                later = position if waits else None

                async def store(level: Level) -> None:
                    finished[level] = await self._put(
                        level, query, entry, generation, answer, tuning, later
                    )

                await self._withdraw_own(query, answer, levels)
                await asyncio.gather(*(store(level) for level in levels if level not in finished))
                await self._leave_nothing_forgotten(query, answer, levels, generation)
                if answer.entry.source == "promotion":
                    await self._confirm(query, answer, generation, tuning)
        except (TimeoutError, BackendError) as error:
            reason = error.reason if isinstance(error, BackendError) else "timeout"
            if isinstance(error, BackendError):
                log_failure("an answer could not be stored and was dropped", error)
            else:
                log.limited("put", "an answer could not be stored in time and was dropped")
            rest = [level for level in levels if level not in finished]
            finished |= {level: _finished(level, "dropped", reason) for level in rest}
        return [finished[level] for level in levels]

    async def _voted(
        self, query: Query, answer: NewAnswer, tuning: Tuning, seen: Sighting | None, life: float
    ) -> tuple[NewAnswer, Generation | None, Sighting | None]:
        """Count an answer's vote; return it as it is then, its generation, and what it came after.

        It is for everybody, if this is the user by whom enough got it; and it is not held against
        it that it took another answer back from them.
        """
        generation = await self._generation(query, seen, life)
        if generation is None or not answer.votes:
            contested = generation is not None and await self._contested(query, answer, generation)
            return answer, None if contested else generation, seen
        ballot = await self._vote(query, answer, generation, tuning)
        if ballot == "promotes":
            scopes: dict[Level, Scope] = {**answer.scopes, "l1": "shared", "l2": "shared"}
            entry = answer.entry._replace(source="promotion")
            answer = replace(answer, entry=entry, scopes=scopes, by_policy=("l1", "l2"))
        elif ballot == "withdraws":
            before = known()
            await self._withdraw(promotion_label(self._keys, self._keys.votes(query)))
            mine = [token for token in known() if token not in before]
            seen = None if seen is None else seen._replace(known=(*seen.known, *mine))
            generation = await self._generation(query, seen, life)
            answer = replace(answer, withdrew=True)
            if generation is not None:
                # The first vote was under the generation that has just ended.
                await self._vote(query, answer, generation, tuning)
        return answer, generation, seen

    async def _contested(self, query: Query, answer: NewAnswer, generation: Generation) -> bool:
        """Return whether an answer was promoted elsewhere, and a user here got another one."""
        promoted = answer.restored and answer.entry.source == "promotion"
        under = generation.message or ""
        return promoted and await self._promotion.contested(query, answer.entry, under)

    async def _vote(
        self, query: Query, answer: NewAnswer, generation: Generation, tuning: Tuning
    ) -> Ballot:
        entry = answer.entry if answer.candidate else None
        under = generation.message or ""
        return await self._promotion.vote(query, entry, under, answer.voter, tuning)

    async def _confirm(
        self, query: Query, answer: NewAnswer, generation: Generation, tuning: Tuning
    ) -> None:
        """Take back what was promoted while others voted against it."""
        name = self._keys.votes(query)
        if answer.restored:
            # Its votes stay where it came from.
            under = generation.message or ""
            await self._promotion.restore(query, answer.entry, under, tuning)
        elif await self._promotion.has_fallen(name, tuning.promote_after):
            await self._withdraw(promotion_label(self._keys, name))

    async def _withdraw_own(self, query: Query, answer: NewAnswer, levels: Sequence[Level]) -> None:
        """Delete the user's own older parts of what is for everybody: they would be found first."""
        kept: tuple[Level, ...] = ("l2", "l3") if query.history else ("l3",)
        shared = [
            level for level in levels if answer.scopes[level] == "shared" and level not in kept
        ]
        if query.user is None or not shared or answer.restored:
            return
        own = entry_names(self._keys, query, dict.fromkeys(shared, "user"), shared)
        await self._store.delete(list(own))

    def _life(self, answer: NewAnswer, levels: Sequence[Level], tuning: Tuning) -> float:
        """Return for how many seconds something of *answer* is kept, and has to be found."""
        lives = [kept_seconds(answer.entry, level, tuning) for level in levels]
        if answer.votes:
            lives.append(self._promotion.life(tuning))
        # It is written a little later than what lists it; what waits for the model, much later.
        later = self._settings.put_budget + 1.0
        return max(lives) + (later if self._model_ready else _ARRIVING_SECONDS)

    async def _generation(
        self, query: Query, seen: Sighting | None, life: float
    ) -> Generation | None:
        """Return the generation in force, or `None` if *seen* was invalidated since.

        Args:
            query: The message.
            seen: What the lookup before saw.
            life: Seconds that a token must be kept for what is stored under it.
        """
        store = self._store
        message, *others = self._keys.generations(query)
        tokens: list[str | None] = [await store.write_new(Write(message, token("p"), life))]
        if others:
            tokens += await store.read(others)
            # A token must outlive the entries that carry it.
            for place, name in enumerate(others, 1):
                if (held := tokens[place]) is not None:
                    tokens[place] = await store.write_new(Write(name, held, TOKEN_SECONDS))
        current = Generation(*tokens)
        goes_on = seen is None or await self._goes_on(seen, current, query.user)
        return current if goes_on else None

    async def _goes_on(self, seen: Sighting, current: Generation, user: str | None) -> bool:
        """Return whether an answer computed under *seen* may be stored under *current*."""
        if seen.forgotten:
            # Tokens are in the log of invalidations before they are given.
            given = await self._invalidated_since(seen)
            return given is not None and all(origin(now) not in given for now in current if now)
        before = seen.generation or Generation(None)

        def same(then: str | None, now: str | None) -> bool:
            return then == now or now in seen.known

        # What somebody else's lookup saw says nothing of this user's tokens.
        if seen.user == user and not (
            same(before.own, current.own) and same(before.user, current.user)
        ):
            return False
        if same(before.message, current.message):
            return True
        if not (current.message or "").startswith("p"):
            return False
        # Another put may have begun the generation meanwhile; an invalidation may not.
        if before.message is None:
            return True
        # The one before has expired, with all that was stored under it; unless it was replaced by
        # an invalidation, whose token was lost.
        return before.message.startswith("p") and await self._invalidated_since(seen) == set()

    async def _invalidated_since(self, seen: Sighting) -> set[str] | None:
        """Return the tokens of the invalidations that *seen* came before; `None` if unknown."""
        found, _ = await self._journal.since(seen.position)
        if found is None:
            return None
        return {item.token for item in found} - set(seen.known)

    @property
    def _model_ready(self) -> bool:
        return self._semantic is None or self._semantic.ready

    async def _arrival(
        self,
        query: Query,
        answer: NewAnswer,
        levels: Sequence[Level],
        tuning: Tuning,
        life: float,
    ) -> tuple[list[RowWrite], dict[Level, PartRecord]]:
        """Return the rows that make the question known to L2's invalidations.

        Without them nothing is stored in L2: the second result is its finished call then.
        """
        if "l2" not in levels or self._semantic is None:
            return [], {}
        try:
            # The other tiers' parts are stored even if the embedder does not answer.
            async with Deadline(self._settings.put_budget / 2):
                scope = answer.scopes["l2"]
                return await self._semantic.similar.arrival(query, scope, tuning, life), {}
        except (TimeoutError, BackendError) as error:
            failure = error if isinstance(error, BackendError) else BackendError("timeout")
        log_failure("l2: an answer could not be stored and was dropped", failure)
        return [], {"l2": _finished("l2", "dropped", failure.reason)}

    async def _held(
        self,
        query: Query,
        answer: NewAnswer,
        levels: Sequence[Level],
        position: str,
        seen: Sighting | None,
        tuning: Tuning,
    ) -> str | None:
        """Return up to where invalidations were read; `None` if one since *position* concerns it.

        That is one of a label of the answer, or of a message for which L2 would serve it.

        Args:
            query: The message.
            answer: To it.
            levels: That store it.
            position: Up to where invalidations were known before it was computed.
            seen: What the lookup before it saw: what it came after does not hold against it.
            tuning: For thresholds and guards.
        """
        found, read_to = await self._journal.since(position)
        if found is None:
            return None
        before = _known(seen)
        others = [item for item in found if item.token not in before]
        labels = {label for _, label in self._labels(query, answer)}
        if any(not labels.isdisjoint(item.labels) for item in others):
            return None
        if self._semantic is None or "l2" not in levels or query.history:
            return read_to
        overtaken = await self._semantic.similar.overtaken(
            query, answer.entry.intent, answer.scopes["l2"], others, tuning
        )
        return None if overtaken else read_to

    async def _leave_nothing_forgotten(
        self, query: Query, answer: NewAnswer, levels: Sequence[Level], generation: Generation
    ) -> None:
        """Erase what was stored while its user was being forgotten.

        It would not be served, but the erasure has already read what it erases.
        """
        if query.user is None:
            return
        store, keys = self._store, self._keys
        if (await store.read([keys.user_generation(query.user)]))[0] == generation.user:
            return
        names = list(entry_names(keys, query, answer.scopes, levels))
        marker = keys.marker(query)
        *found, mark = await store.read([*names, marker])
        # Another user's may be there by now.
        theirs = [
            name
            for name, value in zip(names, found, strict=True)
            if value is not None and envelope.may_be_by(value, query.user)
        ]
        await store.delete([*theirs, marker] if may_mark(mark, query.user) else theirs)
        await store.delete_rows(keys.vectors(query.user, query.context), [query.tag])
        if answer.votes:
            await self._promotion.forget(query)
        if answer.scopes.get("l2") == "shared" and self._semantic is not None:
            await self._semantic.similar.forget_rows(query.context, [query.tag], query.user)

    def _index_records(
        self, query: Query, answer: NewAnswer, levels: Sequence[Level], life: float
    ) -> list[RowWrite]:
        """Return the records by which the entries are found to be invalidated or forgotten.

        They are written before the entries: a crash between the two can leave a record of nothing,
        never an entry without a record. They live as long as what they list.
        """
        keys = self._keys
        names = entry_names(keys, query, answer.scopes, levels)

        def record(kind: str, label: str, rows: Mapping[str, str]) -> RowWrite:
            # Several puts, of other users or contexts, may have the same row.
            return RowWrite(keys.index(kind, label), rows, life, _INDEXED, longest=True)

        records = [record("message", query.tag, names)]
        private = {name: query.tag for name, scope in names.items() if scope == "user"}
        if private and query.user is not None:
            # Not entries, but the user's anyway.
            private[keys.vectors(query.user, query.context)] = ""
            private[keys.marker(query)] = ""
            records.append(record("user", query.user, private))
        shared = {name: query.tag for name, scope in names.items() if scope == "shared"}
        copies = {
            name: tag for name, tag in shared.items() if keys.level_and_scope(name)[0] in RESPONSES
        }
        listed = {"writer": shared, "answer": copies}
        for kind, label in self._labels(query, answer):
            records.append(record(kind, label, listed.get(kind, {query.tag: ""})))
        return records

    def _labels(self, query: Query, answer: NewAnswer) -> list[tuple[str, str]]:
        """Return kind and digest of all that takes the answer with it when it is invalidated."""
        digest = self._keys.label
        found = [("document", digest("document", item)) for item in answer.documents]
        found += [("tag", digest("tag", item)) for item in answer.tags]
        found += answer.labels
        if query.user is not None and "shared" in answer.scopes.values():
            found.append(("writer", query.user))
        # What is private goes with its own message alone.
        if answer.scopes.get("l1", answer.scopes.get("l2")) == "shared":
            label = answer_label(self._keys, query, answer.entry)
            found += [("answer", label)] if label else []
            if answer.entry.source == "promotion":
                found.append(("answer", promotion_label(self._keys, self._keys.votes(query))))
        return found

    async def _put(
        self,
        level: Level,
        query: Query,
        entry: Entry,
        generation: Generation,
        answer: NewAnswer,
        tuning: Tuning,
        later: str | None,
    ) -> PartRecord:
        """Store one tier's part; with *later* L2 waits for its model, and is held from there on."""
        scope = answer.scopes[level]
        left_out = answer.left_out.get(level, "")
        if left_out and level == "l2":
            return _finished(level, "bypass", left_out)
        by_policy = level in answer.by_policy
        intent = entry.intent or ""
        if scope == "shared" and answer.scopes.get("l3") == "user":
            # A label that is private does not travel with an answer that is not.
            intent = intent if INTENT_PATTERN.fullmatch(intent) else ""
        entry = entry._replace(
            intent=intent or None,
            generation=generation.stamp(scope) or "",
            writer_token=generation.user,
            by_policy=by_policy,
            source=entry.source if by_policy or entry.source != "promotion" else "put",
            left_out=left_out,
            # What a message asks for is the same tomorrow.
            until=None if level == "l3" else entry.until,
        )
        try:
            if level == "l2" and later is not None and self._semantic is not None:
                # It has not made itself known, even if the model is there by now.
                why_not = self._semantic.waiting.add(query, entry, scope, tuning, later)
            else:
                why_not = await self._tiers[level].put(query, entry, scope, tuning)
        except BackendError as error:
            log_failure(f"{level}: an answer could not be stored and was dropped", error)
            return _finished(level, "dropped", error.reason)
        except Exception as error:  # noqa: BLE001 - the agent must not fail because of us
            log.limited("bug", "%s: unexpected %s; please report it", level, place_of(error))
            return _finished(level, "dropped", "backend_error")
        if left_out:
            return _finished(level, "bypass", left_out)
        if not why_not:
            said = "withdrawn" if answer.withdrew and level in RESPONSES else ""
            said = "personal" if level in answer.withheld else said
            if level == "l4" and entry.rag_results and not answer.documents:
                said = "no_ids"
            return _finished(level, "stored", "promoted" if entry.source == "promotion" else said)
        outcomes = {"queued": "queued", "overloaded": "dropped"}
        return _finished(level, outcomes.get(why_not, "bypass"), why_not)

    def refused(self, answer: NewAnswer, reason: str, outcome: str = "bypass") -> list[PartRecord]:
        """Return one finished call per tier, for an answer that is not stored."""
        levels = [level for level in answer.scopes if level in self._tiers]
        return [_finished(level, outcome, reason) for level in levels]


def entry_names(
    keys: Keys, query: Query, scopes: Mapping[Level, Scope], levels: Sequence[Level]
) -> dict[str, str]:
    """Return the key of each tier's entry, with its scope."""
    return {keys.entry(level, query, query.scope(scopes[level])): scopes[level] for level in levels}


def _known(seen: Sighting | None) -> set[str | None]:
    """Return the tokens of the invalidations that what was seen came after."""
    return set() if seen is None else {*seen.known, *(seen.generation or ())}


def _finished(level: Level, outcome: str, reason: str) -> PartRecord:
    return PartRecord(level, outcome, reason)
