"""Watch over a staged change: takes it back when it breaks a limit, confirms it at its end.

The stage is in the tuning's trail, so every replica watches, the one that made the change or not.
Whoever sees the end first claims the next version; the others lose that race and do nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging

from cache_core.backends.base import Timed
from cache_core.backends.log import PAGE, Log
from cache_core.config.live import LiveTuning
from cache_core.config.stage import WATCH
from cache_core.model.exceptions import TuningConflict
from cache_core.observability.decisions import DecisionLog
from cache_core.observability.staged import StageEvidence
from cache_core.observability.verdicts import Verdict

log = logging.getLogger("glasscache")


class Staging:
    """Watch over the staged change in force.

    Args:
        live: The tuning.
        store: Has the clock.
        decisions: Log of the lookups.
        verdicts: Log of the verdicts on hits.
    """

    def __init__(
        self, live: LiveTuning, store: Timed, decisions: DecisionLog, verdicts: Log[Verdict]
    ) -> None:
        self._live = live
        self._store = store
        self._decisions = decisions
        self._verdicts = verdicts
        self._seen: StageEvidence | None = None
        self._read_to = self._verdicts_to = ""

    async def tend(self) -> None:
        """Take back or confirm the staged change, if it is time to.

        Raises:
            BackendError: If the store is unavailable; the stage then waits.
        """
        staged = self._live.staged
        if staged is None or staged.stage is None or staged.until is None:
            self._seen = None
            return
        # before the logs are read: what was logged until then counts
        over = self._store.now() >= staged.until
        seen = self._seen
        if seen is None or seen.version != staged.version:
            seen = self._begin(staged.version)
        await self._read(seen)
        if seen.broken(staged.stage):
            # a verdict may have been taken back, or a user erased, since it was read
            seen = self._begin(staged.version)
            await self._read(seen)
        broken = seen.broken(staged.stage)
        # another replica that ends it first has said why
        with contextlib.suppress(TuningConflict):
            if broken:
                done = await self._live.take_back(broken)
                log.warning("tuning %s (now version %d)", done.note, done.version)
            elif over:
                await self._live.confirm(author=WATCH, note=str(seen))

    def _begin(self, version: int) -> StageEvidence:
        """Return evidence without anything in it, to read the logs from their start."""
        self._seen = StageEvidence(version)
        self._read_to = self._verdicts_to = ""
        return self._seen

    async def _read(self, seen: StageEvidence) -> None:
        """Count what was logged since the last time."""
        more = True
        while more:
            page = await self._decisions.after(self._read_to, PAGE)
            seen.add(page.decisions, ())
            self._read_to, more = page.position, page.more
            # lets lookups run between two pages: the embedded store reads without yielding
            await asyncio.sleep(0)
        while rows := await self._verdicts.since(self._verdicts_to):
            self._verdicts_to = rows[-1][0]
            seen.add((), [item for _, item in rows if item is not None])
