"""Votes on answers that a test makes older instead of waiting."""

from __future__ import annotations

from typing import Any

from cache_core import MultiLevelCache
from cache_core.backends.base import RowWrite
from cache_core.operations.promotion import SPAN, Vote


async def age_votes(
    cache: MultiLevelCache, message: str, seconds: float = SPAN, **where: Any
) -> None:
    """Make all votes on the answers to a message *seconds* older."""
    keys, store = cache._parts.keys, cache._parts.store
    name = keys.votes(keys.query(message, None, **where))
    rows = {
        user: str(vote._replace(cast=vote.cast - int(seconds)))
        for user, row in (await store.rows(name)).items()
        if (vote := Vote.parse(row)) is not None
    }
    await store.put_rows([RowWrite(name, rows, 86_400.0)])


async def vote(
    cache: MultiLevelCache,
    message: str,
    users: str,
    answer: str,
    seconds: float = SPAN,
    **where: Any,
) -> None:
    """Let each of *users* put an answer, *seconds* after the one before."""
    for user in users.split():
        await age_votes(cache, message, seconds, **where)
        await cache.put(message, user, answer, **where)
