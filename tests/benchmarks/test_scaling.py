"""The needs of a rate of lookups follow from the measured constants by multiplication."""

from __future__ import annotations

import pytest

from benchmarks.scaling import BUSY, KINDS, MIX, MOST_ENTRIES, plan

_CALL = {"process_us": 1000, "redis_us": 100, "chroma_us": 0, "in_bytes": 50, "out_bytes": 75}
_CONSTANTS = {"entry_bytes": 2_000, **dict.fromkeys(KINDS, _CALL)}


def test_each_kind_counts_by_its_share() -> None:
    """Calls of 1 ms keep as many cores busy as there are calls in a millisecond."""
    calls = sum(MIX.values())
    needs = plan(_CONSTANTS, 1_000)
    assert needs["process_cores"] == pytest.approx(calls / BUSY)
    assert needs["redis_cores"] == pytest.approx(calls / BUSY / 10)
    assert needs["megabits"] == pytest.approx(calls)


def test_entries_are_those_of_a_day_up_to_a_bound() -> None:
    """One lookup a second stores a day's misses, ten thousand are bounded."""
    assert plan(_CONSTANTS, 1)["entries"] == pytest.approx(86_400 * MIX["put"])
    assert plan(_CONSTANTS, 10_000)["entries"] == MOST_ENTRIES
    assert plan(_CONSTANTS, 10_000)["redis_gigabytes"] == pytest.approx(20)
