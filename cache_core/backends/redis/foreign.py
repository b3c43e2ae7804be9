"""Foreign keys under the cache's names: of another type, or too large to read."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

from cache_core.backends.redis.coalescing import Coalescer
from cache_core.backends.redis.line import Commands
from cache_core.backends.redis.replies import is_wrong_type, text_of
from cache_core.model.exceptions import BackendError
from cache_core.model.logs import RateLimited
from cache_core.model.tasks import background

log = RateLimited(logging.getLogger("glasscache"))

Kind: TypeAlias = Literal["string", "hash", "stream", "zset", "vectorset"]

LARGEST_BYTES = 16 * 1_048_576
"""No value of the cache is larger; a read that timed out may have met one that is."""

_MOST_ROWS = 200_000
_INSPECTED = 512


class ForeignKeys:
    """Deletes foreign keys under the cache's names, which would fail every access.

    Args:
        patient: Runs commands that no lookup waits for.
        largest_bytes: Maximal size of a value of the cache.
    """

    def __init__(
        self, patient: Coalescer[Commands, list[Any]], largest_bytes: int = LARGEST_BYTES
    ) -> None:
        self._patient = patient
        self._largest_bytes = largest_bytes
        self._inspecting: asyncio.Task[None] | None = None
        self.removed: set[str] = set()
        """Deleted large values that no read has reported yet."""

    async def close(self) -> None:
        """Stop inspecting."""
        if self._inspecting is not None:
            self._inspecting.cancel()
            await asyncio.gather(self._inspecting, return_exceptions=True)

    def report_once(self, keys: Sequence[str], found: Sequence[str | None]) -> list[str | None]:
        """Return *found* with the empty text for removed values, each once."""
        reported = list(found)
        for place, key in enumerate(keys):
            if key in self.removed:
                self.removed.discard(key)
                reported[place] = "" if reported[place] is None else reported[place]
        return reported

    async def mended(
        self,
        kind: Kind,
        keys: Sequence[str],
        lane: Coalescer[Commands, list[Any]],
        commands: Commands,
    ) -> list[Any]:
        """Run *commands*; once more after deleting *keys* that are not of *kind*."""
        try:
            return await lane.submit(commands)
        except BackendError as error:
            if not is_wrong_type(error):
                raise
        await self.remove_others(kind, keys)
        return await lane.submit(commands)

    async def remove_others(self, kind: Kind, keys: Sequence[str]) -> None:
        """Delete those of *keys* that are not of *kind*."""
        types = await self._patient.submit([("TYPE", key) for key in keys])
        other = [
            key
            for key, found in zip(keys, types, strict=True)
            if text_of(found) not in {kind, "none"}
        ]
        if other:
            log.limited("keys", "redis: %d keys were no %s of this cache's and were deleted",
                        len(other), kind)  # fmt: skip
            await self._delete(other)

    async def _delete(self, keys: Sequence[str]) -> None:
        await self._patient.submit([("UNLINK", key) for key in keys])

    def inspect_soon(self, keys: Sequence[str], hashes: Sequence[str]) -> None:
        """Check in the background whether a read timed out because of large values."""
        if self._inspecting is None or self._inspecting.done():
            # Detached from the caller's context (no span): no lookup waits for it.
            self._inspecting = asyncio.get_running_loop().create_task(
                self._inspect(keys[:_INSPECTED], hashes[:_INSPECTED]),
                context=background(),
            )

    async def _inspect(self, keys: Sequence[str], hashes: Sequence[str]) -> None:
        with contextlib.suppress(BackendError):
            commands: Commands = [("STRLEN", key) for key in keys]
            commands += [("HLEN", key) for key in hashes]
            # Separately, because a key of another type fails its own command.
            found = await asyncio.gather(
                *(self._patient.submit([command]) for command in commands), return_exceptions=True
            )
            sizes = [0 if isinstance(item, BaseException) else int(item[0]) for item in found]
            large = [
                key for key, size in zip(keys, sizes, strict=False) if size > self._largest_bytes
            ]
            hashed = dict(zip(hashes, sizes[len(keys) :], strict=True))
            large += [key for key, rows in hashed.items() if rows > _MOST_ROWS]
            for key, rows in hashed.items():
                if 0 < rows <= _INSPECTED and await self._has_large_row(key):
                    large.append(key)
            if large:
                log.limited(
                    "values",
                    "redis: %d values larger than %d bytes were no values of this cache's and "
                    "were deleted",
                    len(large),
                    self._largest_bytes,
                )
                await self._delete(large)
                self.removed.update(key for key in large if key not in hashed)

    async def _has_large_row(self, key: str) -> bool:
        [names] = await self._patient.submit([("HKEYS", key)])
        if not names:
            return False
        lengths = await self._patient.submit([("HSTRLEN", key, name) for name in names])
        return max(map(int, lengths)) > self._largest_bytes
