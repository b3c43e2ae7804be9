"""Exact values of a framework, by their keys: on the cache's store, with its breaker and counts."""

from __future__ import annotations

from collections.abc import Sequence

from glasscache.integrations.gate import Gate


class KeyedValues:
    """Values under keys, found by exactly their key, for frameworks with a store of their own.

    Args:
        gate: The cache.
        kind: Name of what is stored; first part of the tags.
    """

    def __init__(self, gate: Gate, kind: str) -> None:
        self.gate = gate
        self._kind = kind
        # what has a history is never matched by similarity: a key means nothing
        self._where: dict[str, object] = {"context": {"store": kind}, "history": [kind]}

    async def get(self, key: str, user_id: str | None) -> str | None:
        """Return a user's value, or one for all users; `None` if there is none."""
        return await self.gate.cache.get_multilevel(key, user_id, **self._where)  # type: ignore[arg-type]

    async def set(
        self, key: str, user_id: str | None, value: str, ttl: float | None, places: Sequence[str]
    ) -> None:
        """Store a value, for its user, or for all as the gate says.

        Args:
            key, user_id, value: The value.
            ttl: Seconds that it lives; default: the tuning's.
            places: Names by which `clear` finds it.
        """
        tags = [self._kind, *(f"{self._kind}:{place}" for place in places)]
        await self.gate.cache.put(
            key, user_id, value, ttl=ttl, tags=tags, shared=self.gate.shared, **self._where,  # type: ignore[arg-type]
        )  # fmt: skip

    async def clear(self, place: str = "") -> None:
        """Invalidate all values, or those of one place."""
        await self.gate.cache.invalidate_tag(f"{self._kind}:{place}" if place else self._kind)
