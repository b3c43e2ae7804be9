"""Every way to invalidate the answer to "alpha beta"."""

from __future__ import annotations

from cache_core import Invalidation, MultiLevelCache


async def take_away(cache: MultiLevelCache, how: str) -> Invalidation:
    """Invalidate ann's answer to "alpha beta", with document `d` and tag `t`, in one of seven ways.

    Args:
        cache: The cache.
        how: `message`, `own`, `user`, `document`, `tag`, `writer` or `similar`.
    """
    match how:
        case "message":
            return await cache.invalidate("alpha beta")
        case "own":
            return await cache.invalidate("alpha beta", "ann")
        case "user":
            return await cache.forget_user("ann")
        case "document":
            return await cache.invalidate_document("d")
        case "tag":
            return await cache.invalidate_tag("t")
        case "writer":
            return await cache.invalidate_writer("ann")
        case "similar":
            # The test's embedder knows a bag of words: this one is like "alpha beta".
            return await cache.invalidate("beta alpha")
    raise ValueError(how)
