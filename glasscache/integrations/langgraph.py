"""LangGraph's node cache on the cache: `builder.compile(cache=GlasscacheNodeCache(Gate(cache)))`.

The key of a node is made of its whole input unless its `CachePolicy(key_func=...)` says otherwise:
a state with ids or times in it is never the same twice. A value is its user's, see `Gate`.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any

from langgraph.cache.base import BaseCache

from glasscache.integrations.gate import Gate
from glasscache.integrations.keyed import KeyedValues

FullKey = tuple[tuple[str, ...], str]


class GlasscacheNodeCache(BaseCache):
    """Cache of the results of nodes, sync and async.

    Args:
        gate: The cache.
    """

    def __init__(self, gate: Gate) -> None:
        super().__init__()
        self._gate = gate
        self._values = KeyedValues(gate, "langgraph")

    async def aget(self, keys: Sequence[FullKey]) -> dict[FullKey, Any]:
        """Return the values that are stored, by their keys."""
        user = self._gate.user()
        found = {key: await self._values.get(_written(key), user) for key in keys}
        return {key: self._read(value) for key, value in found.items() if value is not None}

    async def aset(self, pairs: Mapping[FullKey, tuple[Any, int | None]]) -> None:
        """Store values, each with its TTL in seconds."""
        user = self._gate.user()
        for key, (value, ttl) in pairs.items():
            places = [json.dumps(key[0])]
            await self._values.set(_written(key), user, self._write(value), ttl, places)

    async def aclear(self, namespaces: Sequence[tuple[str, ...]] | None = None) -> None:
        """Invalidate all values, or those of some namespaces."""
        if namespaces is None:
            await self._values.clear()
        for namespace in namespaces or ():
            await self._values.clear(json.dumps(namespace))

    def get(self, keys: Sequence[FullKey]) -> dict[FullKey, Any]:
        """Return the values that are stored, by their keys."""
        return self._gate.now(self.aget(keys))

    def set(self, pairs: Mapping[FullKey, tuple[Any, int | None]]) -> None:
        """Store values, each with its TTL in seconds."""
        self._gate.now(self.aset(pairs))

    def clear(self, namespaces: Sequence[tuple[str, ...]] | None = None) -> None:
        """Invalidate all values, or those of some namespaces."""
        self._gate.now(self.aclear(namespaces))

    def _write(self, value: Any) -> str:
        kind, body = self.serde.dumps_typed(value)
        return f"{kind} {base64.b64encode(body).decode()}"

    def _read(self, text: str) -> Any:
        kind, _, body = text.partition(" ")
        return self.serde.loads_typed((kind, base64.b64decode(body)))


def _written(key: FullKey) -> str:
    return json.dumps(key)
