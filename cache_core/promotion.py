"""An answer that enough different users got becomes one for all: evidence instead of a rule.

Off unless the tuning says how many (`promote_after`). Each user has one vote per message, context
and history: the digest of the last answer that they got. When that many users hold the same one, it
is stored as shared. So nobody can promote an answer alone, however often it is put; and that
somebody gets it tells no more than that so many others asked.

Votes are keyed digests, in a hash of the keyed store; they expire with the longer TTL of L1 and L2,
count only under the message's generation, and go with `forget_user`. Whoever commands many users
can vote for all of them: it is as safe as it is hard to get a user id.
"""

from __future__ import annotations

from collections.abc import Mapping

from cache_core.keys import Keys
from cache_core.models import Query
from cache_core.stores.base import KeyValueStore, RowWrite
from cache_core.tuning import Tuning

_VOTES_KEPT = 4
"""Votes kept per vote needed: of answers that differ, the newest."""


class Promotion:
    """Counts who got which answer.

    Args:
        store: Keeps the votes.
        keys: Names them, and makes the digests.
    """

    def __init__(self, store: KeyValueStore, keys: Keys) -> None:
        self._store = store
        self._keys = keys

    def index_rows(self, query: Query) -> Mapping[str, str]:
        """Return what the index of the user must know, for `forget_user` to find the vote."""
        return {self._keys.votes(query): ""}

    async def vote(self, query: Query, response: str, generation: str, tuning: Tuning) -> bool:
        """Note that the query's user got *response*; return whether enough others did, too.

        Args:
            query: The message, of a user.
            response: What they got.
            generation: The message's token: votes from before an invalidation don't count.
            tuning: Says how many are enough.

        Raises:
            BackendError: If the store failed.
        """
        if query.user is None:
            return False
        enough = tuning.promote_after
        name = self._keys.votes(query)
        mine = self._keys.label("answer", f"{generation} {response}")
        life = max(tuning.l1_ttl, tuning.l2_ttl)
        await self._store.put_rows([RowWrite(name, {query.user: mine}, life, _VOTES_KEPT * enough)])
        votes = await self._store.rows(name)
        return sum(vote == mine for vote in votes.values()) >= enough
