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
from glasscache.testing.model import FakeModel, Received, Said

__all__ = [
    "ChaosError",
    "ChaosProxy",
    "ChaosStore",
    "ChaosVectors",
    "FakeModel",
    "Fault",
    "Faults",
    "HashEmbedder",
    "ManualClock",
    "Mode",
    "Received",
    "RecordingInstrument",
    "Said",
]
