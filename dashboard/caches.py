"""The app's own caches on the agents' store, and the thread in which they live."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any, TypeVar

from cache_core.exceptions import BackendError, ConfigurationError
from cache_core.multilevel_cache import MultiLevelCache
from cache_core.settings import Settings, without_secrets
from dashboard.background import Background
from dashboard.figures import REASONS
from dashboard.words import SourceAwayError

_SECONDS = 5.0

Result = TypeVar("Result")


class Caches:
    """One without a semantic tier, which opens in a moment; one with all, which loads the model.

    They count nothing. `run` raises `SourceAwayError` when what its work needs cannot be reached.

    Args:
        settings: Of the agents' cache.
        namespace: Of it.
    """

    def __init__(self, settings: Settings, namespace: str) -> None:
        self.settings = settings
        self._namespace = namespace
        self._background = Background()
        self._light: MultiLevelCache | None = None
        self._full: MultiLevelCache | None = None
        self._opening = asyncio.Lock()

    @property
    def where(self) -> str:
        """The store, as it may be shown."""
        if self.settings.redis_url:
            return without_secrets(self.settings.redis_url)
        return str(self.settings.dir)

    @property
    def kind(self) -> str:
        """What the store is."""
        return "Redis" if self.settings.redis_url else "embedded store"

    def run(self, work: Coroutine[Any, Any, Result], timeout: float = _SECONDS) -> Result:
        """Return what *work* returns.

        Args:
            work: Runs in the caches' thread.
            timeout: Seconds after which it is cancelled.
        """
        try:
            return self._background.run(work, timeout)
        except (BackendError, TimeoutError) as error:
            why = REASONS.get(str(error), str(error))
            raise SourceAwayError(
                f"The {self.kind} at {self.where} does not answer: {why}."
            ) from None

    async def light(self) -> MultiLevelCache:
        """Return the cache without a semantic tier."""
        async with self._opening:
            if self._light is None:
                self._light = self._made(self.settings.tiers - {"l2"})
                await self._light.initialize()
            if not self._light.is_open:
                raise SourceAwayError(
                    f"The {self.kind} at {self.where} cannot be reached. It is tried again."
                )
            return self._light

    async def full(self) -> MultiLevelCache:
        """Return the cache with all tiers, its model loaded."""
        await self.light()
        async with self._opening:
            if self._full is None:
                self._full = self._made(self.settings.tiers)
                await self._full.initialize()
            # Without the extra L2 is off, and `explain` says so.
            with contextlib.suppress(ConfigurationError):
                await self._full.ready()
            await self._full.stand_in()
            return self._full

    def close(self) -> None:
        """Close the caches and the thread; idempotent."""
        for cache in (self._full, self._light):
            if cache is not None:
                self._background.run(cache.close(), _SECONDS)
        self._light = self._full = None
        self._background.close()

    def _made(self, tiers: frozenset[str]) -> MultiLevelCache:
        # It serves no lookups: no replica, to whoever counts them.
        own = self.settings.model_copy(update={"tiers": tiers, "heartbeat": False})
        return MultiLevelCache(settings=own, namespace=self._namespace, instruments=())
