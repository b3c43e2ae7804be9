"""Doubles for tests of agents that use the cache: see docs/testing.md."""

from cache_core.testing import (
    ChaosError,
    ChaosProxy,
    ChaosStore,
    ChaosVectors,
    Fault,
    Faults,
    HashEmbedder,
    ManualClock,
    Mode,
    RecordingInstrument,
)

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
