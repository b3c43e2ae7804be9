"""Doubles for tests of the cache, and of agents that use it: see docs/testing.md."""

from __future__ import annotations

from cache_core.backends.clock import ManualClock
from cache_core.testing.chaos import ChaosStore, ChaosVectors
from cache_core.testing.embedder import HashEmbedder
from cache_core.testing.faults import ChaosError, Fault, Faults
from cache_core.testing.instrument import RecordingInstrument
from cache_core.testing.proxy import ChaosProxy, Mode

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
