"""Caches of the app on the agents' store, and their thread."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any, TypeVar

from cache_core.config.settings import Settings
from cache_core.model.exceptions import BackendError, ConfigurationError
from cache_core.model.reasons import short
from cache_core.model.urls import without_secrets
from cache_core.multilevel_cache import MultiLevelCache
from dashboard.data.background import Background
from dashboard.data.words import SourceUnavailableError

_SECONDS = 5.0

Result = TypeVar("Result")


class Caches:
    """Two caches: one without a semantic tier, opened quickly; one with all, loading the model.

    They count nothing. `run` raises `SourceUnavailableError` if a backend it needs is unavailable.

    Args:
        settings: Settings of the agents' cache.
        namespace: Its namespace.
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
        """The store's address, without secrets."""
        if self.settings.redis_url:
            return without_secrets(self.settings.redis_url)
        return str(self.settings.dir)

    @property
    def kind(self) -> str:
        """The kind of store, in words."""
        return "Redis" if self.settings.redis_url else "embedded store"

    def run(self, work: Coroutine[Any, Any, Result], timeout: float) -> Result:
        """Return the result of *work*.

        Args:
            work: Coroutine for the caches' thread.
            timeout: Seconds after which it is cancelled.
        """
        try:
            return self._background.run(work, timeout)
        except (BackendError, TimeoutError) as error:
            raise SourceUnavailableError(
                f"The {self.kind} at {self.where} does not answer: {short(str(error))}."
            ) from None

    async def light(self) -> MultiLevelCache:
        """Return the cache without a semantic tier."""
        async with self._opening:
            if self._light is None:
                self._light = self._made(self.settings.tiers - {"l2"})
                await self._light.initialize()
            if not self._light.is_open:
                raise SourceUnavailableError(
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
            # without the extra L2 is off, as `explain` reports
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
        # it serves no lookups, so it must not count as a replica
        own = self.settings.model_copy(update={"tiers": tiers, "heartbeat": False})
        return MultiLevelCache(settings=own, namespace=self._namespace, instruments=())
