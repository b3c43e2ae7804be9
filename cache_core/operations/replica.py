"""One cache object of its namespace, as seen by its operations."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from cache_core.config.live import LiveTuning
from cache_core.config.settings import Settings
from cache_core.config.tuning import Tuning
from cache_core.observability.advice import sharing_advice
from cache_core.observability.instruments import Instruments
from cache_core.observability.stats import CacheStats
from cache_core.operations.sightings import Sightings


@dataclass(slots=True)
class Counts:
    """Counters of a cache that continue when it is opened again.

    Attributes:
        lookups: Lookups so far; numbers them.
        invalidations: Invalidations requested.
        lost_feedback: Verdicts that could not be recorded.
    """

    lookups: int = 0
    invalidations: int = 0
    lost_feedback: int = 0


@dataclass(frozen=True, slots=True)
class Replica:
    """Dependencies of every operation, open or not.

    Attributes:
        name: Name of this cache among those of its namespace.
        settings: Settings, fixed at the start.
        live: The tuning in force.
        instruments: Record the operations.
        stats: Counts of the operations.
        sightings: Generations that lookups read, for the puts that follow them.
        counts: Counters independent of the instruments.
    """

    name: str
    settings: Settings
    live: LiveTuning
    instruments: Instruments
    stats: CacheStats
    sightings: Sightings
    counts: Counts = field(default_factory=Counts)

    @property
    def tuning(self) -> Tuning:
        """The tuning in force; swapped whole."""
        return self.live.current

    def next_lookup(self) -> str:
        """Return the id of a new lookup."""
        self.counts.lookups += 1
        return f"{self.name}-{self.counts.lookups:x}"

    def metrics(self, namespace: str) -> dict[str, Any]:
        """Return all counts as JSON values; see `MultiLevelCache.get_metrics`."""
        return {
            **self.stats.snapshot(),
            "sharing": sharing_advice(self.stats, self.tuning),
            "churn": self.stats.churn.snapshot(),
            "namespace": namespace,
            "replica": self.name,
        }
