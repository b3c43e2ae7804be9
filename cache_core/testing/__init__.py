"""Doubles for tests of the cache, and of agents that use it: see docs/testing.md."""

from __future__ import annotations

from cache_core.clock import ManualClock
from cache_core.testing.embedder import HashEmbedder
from cache_core.testing.faults import ChaosError, Fault, Faults
from cache_core.testing.instrument import RecordingInstrument
from cache_core.testing.proxy import ChaosProxy, Mode
from cache_core.testing.store import ChaosStore
from cache_core.testing.vectors import ChaosVectors

__all__ = [
    "ChaosError",
    "ChaosProxy",
    "ChaosStore",
    "ChaosVectors",
    "Fault",
    "Faults",
    "HashEmbedder",
    "ManualClock",
    "Mode",
    "RecordingInstrument",
]
