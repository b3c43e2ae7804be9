"""MCP's response cache on the cache, for clients in any number of processes.

`CacheConfig(store=GlasscacheResponseStore(Gate(cache)), partition=...)`: the partition, which the
application takes from a verified credential, is the user that a response is private to. What a
client caches are lists and resources, not the results of tools.
"""

from __future__ import annotations

import hashlib
import json
import time
from typing import Any

import mcp_types
from mcp.client.caching import CacheEntry, CacheKey

from glasscache.integrations.gate import Gate
from glasscache.integrations.keyed import KeyedValues


class GlasscacheResponseStore:
    """Store of responses, each found by its method, parameters and partition alone.

    Args:
        gate: The cache; its user has no meaning here.
    """

    def __init__(self, gate: Gate) -> None:
        self._values = KeyedValues(gate, "mcp")

    async def get(self, key: CacheKey) -> CacheEntry | None:
        """Return a stored response; `None` for none."""
        text = await self._values.get(_name(key), _partition(key))
        return None if text is None else _entry(json.loads(text))

    async def set(self, key: CacheKey, entry: CacheEntry) -> None:
        """Store a response as long as it is fresh."""
        lives = (entry.expires_at or 0.0) - time.time()
        if lives <= 0:
            return
        stored = {
            "type": type(entry.value).__name__,
            "value": entry.value.model_dump(mode="json", by_alias=True),
            "scope": entry.scope,
            "expires_at": entry.expires_at,
        }
        await self._values.set(
            _name(key), _partition(key), json.dumps(stored), lives, [_digest(key)]
        )

    async def delete(self, key: CacheKey) -> None:
        """Invalidate a response."""
        await self._values.clear(_digest(key))

    async def clear(self) -> None:
        """Invalidate all responses, of every partition."""
        await self._values.clear()


def _name(key: CacheKey) -> str:
    return json.dumps([key.method, key.params_key])


def _partition(key: CacheKey) -> str:
    return f"mcp {key.partition}"


def _digest(key: CacheKey) -> str:
    written = json.dumps([key.method, key.params_key, key.partition])
    return hashlib.sha256(written.encode()).hexdigest()


def _entry(stored: dict[str, Any]) -> CacheEntry | None:
    """Return a response as its type; `None` for a type that this version does not have."""
    kind = getattr(mcp_types, stored["type"], None)
    if kind is None:
        return None
    value = kind.model_validate(stored["value"])
    return CacheEntry(value, stored["scope"], stored["expires_at"])
