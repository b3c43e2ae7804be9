"""State of an open cache, for instruments, dashboards and other replicas."""

from __future__ import annotations

import time

from cache_core.backends.breaker import transitions
from cache_core.model.values import Level
from cache_core.observability.instruments import CacheState
from cache_core.observability.verdicts import Verifier
from cache_core.operations.invalidate.outbox import Outbox
from cache_core.operations.invalidate.retries import Worklist
from cache_core.operations.replica import Replica
from cache_core.runtime.assembly import Parts
from cache_core.runtime.unavailable import lost

_LOADING_SECONDS = 300.0
"""Seconds after which a model that still loads counts as down: something holds it up."""


class State:
    """State of an open cache, read from its parts.

    Args:
        parts: What the cache is made of.
        steps: Its pending invalidations.
        outbox: Keeps the invalidations that a backend has not confirmed.
        verifier: Checks a share of the hits of L2; `None` for none.
        replica: This cache.

    Attributes:
        entries: Stored entries per tier, where the store can count them.
        loop_lag: Longest delay of the event loop since it was last set to 0, in seconds.
    """

    def __init__(
        self,
        parts: Parts,
        steps: Worklist,
        outbox: Outbox,
        verifier: Verifier | None,
        replica: Replica,
    ) -> None:
        self._parts = parts
        self._steps = steps
        self._outbox = outbox
        self._verifier = verifier
        self._replica = replica
        self.entries: dict[Level, int] = {}
        self.loop_lag = 0.0
        self._opened = time.monotonic()

    def now(self) -> CacheState:
        """Return the state as of now."""
        breakers = self._parts.breakers
        # An approver is asked when there is a doubt only, so it may seem down for hours.
        backends = {
            name: breaker.state == "closed"
            for name, breaker in breakers.items()
            if name != "approver"
        }
        semantic = self._parts.semantic
        if semantic is not None:
            backends["embedder"] = backends["embedder"] and semantic.embedder.ready
            index = semantic.index.breaker.backend
            backends[index] = backends[index] and semantic.engine.connected
        backends.update(dict.fromkeys(self._parts.missing, False))
        return CacheState(
            backends=backends,
            breakers={name: breaker.state for name, breaker in breakers.items()},
            transitions=transitions(breakers),
            entries=dict(self.entries),
            tuning=self._replica.tuning,
            pending_invalidations=self._steps.pending,
            dropped={
                "churn": self._replica.stats.dropped,
                "decisions": self._parts.decisions.dropped,
                "history": self._replica.stats.hours.dropped,
                **lost(self._replica.counts, self._outbox),
                "semantic_puts": semantic.tier.waiting.dropped if semantic is not None else 0,
                "verification": self._verifier.dropped if self._verifier is not None else 0,
                "vectors": semantic.engine.dropped if semantic is not None else 0,
            },
            loop_lag=self.loop_lag,
            loading=self._loading(),
            servers=getattr(self._parts.store, "run_ids", ()),
        )

    def _loading(self) -> tuple[str, ...]:
        """Return the backends that do not work yet, and will without intervention."""
        semantic = self._parts.semantic
        if semantic is None or semantic.embedder.ready or semantic.embedder.failed:
            return ()
        late = time.monotonic() - self._opened > _LOADING_SECONDS
        return () if late else ("embedder",)
