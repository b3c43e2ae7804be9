"""Promotion: shares an answer that enough different users got, with `sharing="auto"`.

Each user has one vote per message and context: the digest of the last answer that they got. An
answer becomes everybody's while all of this holds:

- at least `promote_after` different users got it, letter for letter;
- their votes come from as many parts of an hour, and span one: a burst is a script, not a crowd;
- there are four of them for each user who got another answer, or one that is private or personal.

It is taken back from everybody once that no longer holds, and never replaces an answer that was
shared on purpose. So no user can promote an answer alone, however often they put it, and a promoted
answer only reveals that so many others asked.

Ids that differ in case, width, outer space or invisible characters have one vote together. Votes
are keyed digests, in a hash of the keyed store; they expire with the longer TTL of L1 and L2, count
only under the message's generation, and are erased by `forget_user`. A caller with many user ids
has as many votes: promotion is as safe as user ids are hard to get. Nor can votes show that an
answer is private if many users have the same private answer.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Literal, NamedTuple

from cache_core.backends.base import Keyed, RowWrite
from cache_core.config.lifetimes import kept_seconds
from cache_core.config.tuning import Tuning
from cache_core.model import envelope
from cache_core.model.keys import Keys
from cache_core.model.values import Entry, Level, Query
from cache_core.policy.answers import by_caller

SPAN = 3_600.0
"""Seconds that the votes for an answer must span."""

AGAINST = 4
"""Users who must have got an answer for each who got another one."""

_PART = 4
"""Votes taken in each part of the span. The rest of a crowd would say the same, and would displace
the votes of the parts before."""

_VOTES_KEPT = 2 * _PART
"""Votes kept per vote needed, the newest: those of two spans."""

_INDEXED = 100_000
"""Rows that a user's index remembers; the newest."""

_VOTE = re.compile(r"([0-9a-f]{32}|-)\.([0-9a-f]{32})\.([0-9]{1,12})\.([\w.]{1,64})", re.ASCII)
_NEITHER = "-"
"""The vote of a user whose answer cannot become everybody's."""

_PROMOTED = "promoted"
"""Row of the answer that the votes made everybody's, in the form of a vote of nobody."""

_NOBODY = "0" * 32

_LEVELS: tuple[Level, ...] = ("l1", "l2")
"""Tiers that keep what is promoted."""

Ballot = Literal["", "promotes", "withdraws"]
"""Effect of a vote on what is shared."""


class Vote(NamedTuple):
    """One user's vote.

    Attributes:
        answer: Digest of the answer; `-` for one that cannot become everybody's.
        voter: Digest of the user's id without its spelling.
        cast: The store's time, in seconds.
        generation: The message's token.
    """

    answer: str
    voter: str
    cast: int
    generation: str

    @classmethod
    def parse(cls, text: str) -> Vote | None:
        """Return the vote in a row; `None` for others, such as those of 0.1, which had no time."""
        found = _VOTE.fullmatch(text)
        return cls(found[1], found[2], int(found[3]), found[4]) if found is not None else None

    def __str__(self) -> str:
        return f"{self.answer}.{self.voter}.{self.cast}.{self.generation}"


class Poll(NamedTuple):
    """The votes under one generation.

    Attributes:
        votes: By the digest of the user's scope.
        promoted: Digest of the answer that they made everybody's, if they did.
    """

    votes: Mapping[str, Vote]
    promoted: str | None

    def chosen(self, enough: int, now: float) -> str | None:
        """Return the answer that the votes make everybody's; `None` without one.

        Args:
            enough: Users needed.
            now: The store's time, in seconds.
        """
        by_voter: dict[str, dict[str, int]] = {}
        for vote in self.votes.values():
            by_voter.setdefault(vote.voter, {})[vote.answer] = vote.cast
        # A voter with several spellings, and several answers, is against each of them.
        clear = [next(iter(of.items())) for of in by_voter.values() if len(of) == 1]
        ranked = Counter(answer for answer, _ in clear if answer != _NEITHER).most_common(1)
        if not ranked:
            return None
        ((answer, count),) = ranked
        if count < max(enough, AGAINST * (len(by_voter) - count)):
            return None
        # A clock that was set back leaves votes from the future.
        times = [cast for voted, cast in clear if voted == answer and cast <= now]
        parts = {_part(cast, enough) for cast in times}
        spread = len(parts) >= enough and max(times) - min(times) >= SPAN
        return answer if spread else None


class Promotion:
    """Counts the users who got an answer.

    Args:
        store: Store of the votes.
        keys: Names and digests of the votes.
    """

    def __init__(self, store: Keyed, keys: Keys) -> None:
        self._store = store
        self._keys = keys

    @staticmethod
    def life(tuning: Tuning) -> float:
        """Return the life of a vote, in seconds."""
        return max(tuning.l1_ttl, tuning.l2_ttl)

    async def vote(
        self, query: Query, entry: Entry | None, generation: str, voter: str, tuning: Tuning
    ) -> Ballot:
        """Record what the query's user got; return what that changes.

        Args:
            query: The user's message.
            entry: The answer that they got; `None` if it cannot become everybody's.
            generation: The message's token: votes from before an invalidation don't count.
            voter: The user's id, in the form in which each has one vote.
            tuning: Gives the number needed.

        Raises:
            BackendError: If the store failed.
        """
        name, enough, now = self._keys.votes(query), tuning.promote_after, self._store.now()
        answer = _NEITHER if entry is None else self._answer(entry)
        mine = Vote(answer, self._keys.label("voter", voter), int(now), generation)
        life = self.life(tuning)
        poll = await self._poll(name, generation)
        if query.user is not None and _counts(mine, query.user, poll, enough):
            index = self._keys.index("user", query.user)
            # The vote can be found by its user before it is there.
            await self._store.put_rows([RowWrite(index, {name: ""}, life, _INDEXED, longest=True)])
            rows = {query.user: str(mine)}
            await self._store.put_rows([RowWrite(name, rows, life, _VOTES_KEPT * enough)])
            poll = await self._poll(name, generation)
        chosen = poll.chosen(enough, now)
        if entry is not None and chosen == answer:
            if await self._is_given(query, generation, tuning):
                return ""
            # Before the answer itself: a vote against it finds that there is one to withdraw.
            await self._record(name, mine, entry, tuning)
            return "promotes"
        differs = poll.promoted not in {None, answer}
        return "withdraws" if chosen is None and differs else ""

    async def contested(self, query: Query, entry: Entry, generation: str) -> bool:
        """Return whether there is a vote against an answer.

        Raises:
            BackendError: If the store failed.
        """
        poll = await self._poll(self._keys.votes(query), generation)
        return any(vote.answer != self._answer(entry) for vote in poll.votes.values())

    async def restore(self, query: Query, entry: Entry, generation: str, tuning: Tuning) -> None:
        """Record that an answer was promoted elsewhere: one vote against it takes it back.

        Raises:
            BackendError: If the store failed.
        """
        vote = Vote(self._answer(entry), _NOBODY, int(self._store.now()), generation)
        await self._record(self._keys.votes(query), vote, entry, tuning)

    async def _record(self, name: str, vote: Vote, entry: Entry, tuning: Tuning) -> None:
        """Record that the votes in the hash *name* make an answer everybody's."""
        rows = {_PROMOTED: str(vote._replace(voter=_NOBODY))}
        # As long as there is something to take back.
        life = max(self.life(tuning), *(kept_seconds(entry, level, tuning) for level in _LEVELS))
        await self._store.put_rows([RowWrite(name, rows, life)])

    async def _is_given(self, query: Query, generation: str, tuning: Tuning) -> bool:
        """Return whether everybody already has an answer that was shared on purpose."""
        names = [self._keys.entry(level, query, query.shared) for level in _LEVELS]
        now = self._store.now()
        for level, name, text in zip(_LEVELS, names, await self._store.read(names), strict=True):
            if text is None:
                continue
            try:
                entry = envelope.decode(text, name, (query.shared,), self._keys.sealer)
            except (envelope.CorruptError, envelope.ForeignError):
                continue  # a lookup deletes and counts it
            life = entry.life(tuning.ttl(level, entry.intent))
            live = entry.generation == generation and envelope.age(entry, now) < life
            if live and not entry.by_policy:
                return True
        return False

    async def has_fallen(self, name: str, enough: int) -> bool:
        """Return whether the votes in the hash *name* no longer carry what they promoted.

        Raises:
            BackendError: If the store failed.
        """
        token = (await self._store.read([self._keys.generation_beside(name)]))[0]
        poll = await self._poll(name, token or "")
        return poll.promoted is not None and poll.chosen(enough, self._store.now()) is None

    async def forget(self, query: Query) -> None:
        """Erase the vote of the query's user.

        Raises:
            BackendError: If the store failed.
        """
        if query.user is not None:
            await self._store.delete_rows(self._keys.votes(query), [query.user])

    def _answer(self, entry: Entry) -> str:
        """Return the digest of an answer: equal texts with different names are different."""
        named = entry.answer if by_caller(entry.answer) else ""
        return self._keys.label("answer", f"{named} {entry.response}")

    async def _poll(self, name: str, generation: str) -> Poll:
        """Return the votes under a generation."""
        rows = await self._store.rows(name)
        votes = {user: vote for user, row in rows.items() if (vote := Vote.parse(row)) is not None}
        votes = {user: vote for user, vote in votes.items() if vote.generation == generation}
        promoted = votes.pop(_PROMOTED, None)
        return Poll(votes, None if promoted is None else promoted.answer)


def promotion_label(keys: Keys, votes: str) -> str:
    """Return the label of answers that the votes in a hash made everybody's."""
    return keys.label("promotion", votes)


def _counts(mine: Vote, user: str, poll: Poll, enough: int) -> bool:
    """Return whether a vote is recorded: not again, and of each part no more than some.

    One against what is promoted counts always, and so does a private answer against others.
    """
    others = poll.votes.values()
    if any((vote.answer, vote.voter) == (mine.answer, mine.voter) for vote in others):
        return False
    dissents = poll.promoted not in {None, mine.answer} or (
        mine.answer == _NEITHER and any(vote.answer != _NEITHER for vote in others)
    )
    part = _part(mine.cast, enough)
    few = sum(_part(vote.cast, enough) == part for vote in others) < _PART
    return dissents or few or user in poll.votes


def _part(cast: float, enough: int) -> int:
    """Return the number of the part of an hour, of *enough* parts, in which a vote was cast."""
    return int(cast * enough // SPAN)
