"""CPUs that this process may use, which a container or its scheduler may have limited."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

_GROUPS = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")


def usable_cpus(groups: Path = _GROUPS, own: Path = _OWN) -> int:
    """Return the number of CPUs of this process's affinity and its groups' quotas, at least 1.

    Args:
        groups: Where the control groups are mounted, version 1 or 2.
        own: File that lists the groups of this process.
    """
    return max(1, int(min([_allowed(), *_quotas(groups, own)])))


def _allowed() -> int:
    if hasattr(os, "process_cpu_count"):  # since Python 3.13
        return os.process_cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _quotas(groups: Path, own: Path) -> Iterator[float]:
    """Yield the CPUs that each group around this process may use together, where limited."""
    lines: list[str] = []
    with contextlib.suppress(OSError):
        lines = own.read_text().splitlines()
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        # A container without a namespace of its own sees its group at the mount's root.
        for place in {path, *map(str, Path(path).parents), "/"}:
            group = groups / controllers / place.lstrip("/")
            with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
                yield _quota(group)


def _quota(group: Path) -> float:
    if (group / "cpu.max").exists():
        quota, period = (group / "cpu.max").read_text().split()
    else:
        quota = (group / "cpu.cfs_quota_us").read_text()
        period = (group / "cpu.cfs_period_us").read_text()
    # No limit is "max" in version 2, which is no number, and -1 in version 1.
    return float(quota) / float(period) if float(quota) > 0 else float("inf")
