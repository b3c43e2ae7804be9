"""Watch over a staged change: takes it back when it breaks a limit, confirms it at its end.

The stage is in the tuning's trail, so every replica watches, the one that made the change or not.
The replica that sees the end first claims the next version; the others lose that race and do
nothing.
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
from cache_core.observability.staged import LEAST_LOOKUPS, StageEvidence
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
        self._reported = False

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
            seen = self._seen = StageEvidence(staged.version, self._decisions.keep)
            self._read_to = self._verdicts_to = ""
            self._reported = False
        await self._read(seen)
        if seen.broken(staged.stage):
            # a verdict may have been withdrawn, or a user erased, since it was read
            seen.forget_verdicts()
            self._verdicts_to = ""
            await self._read(seen)
        against = seen.broken(staged.stage)
        if over and not against and seen.lookups < LEAST_LOOKUPS:
            against = f"too few lookups to judge it ({seen.lookups:,.0f} of {LEAST_LOOKUPS})"
        # another replica that ends it first has said why
        with contextlib.suppress(TuningConflict):
            await self._end(seen, against, over=over)

    async def _end(self, seen: StageEvidence, against: str, *, over: bool) -> None:
        """End the stage, if it is time to; *against* says what speaks against the change."""
        version = seen.version
        looser = await self._live.loosened_by_taking_back(version) if against else []
        if against and not looser:
            done = await self._live.take_back(version, against)
            log.warning("tuning %s (now version %d)", done.note, done.version)
        elif over:
            kept = (
                f"; {against}, but taking it back would loosen {', '.join(looser)}"
                if against
                else ""
            )
            await self._live.confirm(author=WATCH, note=f"{seen}{kept}", expected_version=version)
        elif against and not self._reported:
            self._reported = True
            log.warning(
                "tuning version %d: %s. It is not taken back, because that would loosen %s",
                version, against, ", ".join(looser),
            )  # fmt: skip

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
