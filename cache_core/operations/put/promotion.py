"""Promotion: shares an answer that enough different users got.

Off unless the tuning sets the number of users (`promote_after`). Each user has one vote per
message, context and history: the digest of the last answer that they got. When that many users hold
the same one, it is stored as shared. So no user can promote an answer alone, however often they put
it, and a promoted answer only reveals that so many others asked.

Ids that differ in case, width or outer space have one vote together. Votes are keyed digests, in a
hash of the keyed store; they expire with the longer TTL of L1 and L2, count only under the
message's generation, and are erased by `forget_user`. A caller with many user ids has as many
votes: promotion is as safe as user ids are hard to get.
"""

from __future__ import annotations

from collections.abc import Mapping

from cache_core.backends.base import Hashes, RowWrite
from cache_core.config.tuning import Tuning
from cache_core.model.keys import Keys
from cache_core.model.values import Query

_VOTES_KEPT = 4
"""Votes kept per vote needed, the newest: answers may differ."""

_VOTER = "."
"""Separator of a vote's answer and its voter."""


class Promotion:
    """Counts the users who got an answer.

    Args:
        store: Store of the votes.
        keys: Names and digests of the votes.
    """

    def __init__(self, store: Hashes, keys: Keys) -> None:
        self._store = store
        self._keys = keys

    def index_rows(self, query: Query) -> Mapping[str, str]:
        """Return the row of the user's index by which `forget_user` finds the vote."""
        return {self._keys.votes(query): ""}

    @staticmethod
    def life(tuning: Tuning) -> float:
        """Return the life of a vote, in seconds."""
        return max(tuning.l1_ttl, tuning.l2_ttl)

    async def vote(
        self, query: Query, response: str, generation: str, voter: str, tuning: Tuning
    ) -> bool:
        """Record that the query's user got *response*; return whether enough users did.

        Args:
            query: The user's message.
            response: The answer that they got.
            generation: The message's token: votes from before an invalidation don't count.
            voter: The user's id, in the form in which each has one vote.
            tuning: Gives the number needed.

        Raises:
            BackendError: If the store failed.
        """
        if query.user is None:
            return False
        enough = tuning.promote_after
        name = self._keys.votes(query)
        mine = self._keys.label("answer", f"{generation} {response}")
        life = self.life(tuning)
        vote = f"{mine}{_VOTER}{self._keys.label('voter', voter)}"
        await self._store.put_rows([RowWrite(name, {query.user: vote}, life, _VOTES_KEPT * enough)])
        return len(_voters(await self._store.rows(name), mine)) >= enough

    async def forget(self, query: Query) -> None:
        """Erase the vote of the query's user.

        Raises:
            BackendError: If the store failed.
        """
        if query.user is not None:
            await self._store.delete_rows(self._keys.votes(query), [query.user])


def _voters(votes: Mapping[str, str], answer: str) -> set[str]:
    """Return who voted for *answer*; votes of earlier versions have only the user's own digest."""
    found = {user: vote.partition(_VOTER) for user, vote in votes.items()}
    return {voter or user for user, (voted, _, voter) in found.items() if voted == answer}
