"""CPUs of a process in a container: the least of what its affinity and its groups allow."""

from __future__ import annotations

from pathlib import Path

import pytest

from cache_core.backends import cpus
from cache_core.backends.cpus import usable_cpus


def groups(place: Path, **files: str) -> Path:
    for name, text in files.items():
        file = place / name.replace("__", "/").replace("_DOT_", ".")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return place


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        ("0::/\n", {"cpu_DOT_max": "200000 100000\n"}, 2),
        ("0::/\n", {"cpu_DOT_max": "50000 100000\n"}, 1),
        ("0::/\n", {"cpu_DOT_max": "max 100000\n"}, 16),
        ("0::/pod/app\n", {"pod__cpu_DOT_max": "350000 100000", "pod__app__cpu_DOT_max": "max 1"}, 3),
        ("0::/docker/abc\n", {"cpu_DOT_max": "400000 100000\n"}, 4),
        ("4:cpu,cpuacct:/a\n9:pids:/\n", {
            "cpu,cpuacct__a__cpu_DOT_cfs_quota_us": "200000\n",
            "cpu,cpuacct__a__cpu_DOT_cfs_period_us": "100000\n",
        }, 2),
        ("4:cpu:/\n", {"cpu__cpu_DOT_cfs_quota_us": "-1", "cpu__cpu_DOT_cfs_period_us": "1"}, 16),
        ("0::/\n", {"cpu_DOT_max": "nonsense"}, 16),
        ("0::/\n", {}, 16),
    ],
)  # fmt: skip
def test_quotas_of_both_versions_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: str, files: dict[str, str], expected: int
) -> None:
    """A whole number of CPUs, at least one; what has no limit or cannot be read does not count."""
    monkeypatch.setattr(cpus, "_allowed", lambda: 16)
    (tmp_path / "own").write_text(own)
    made = groups(tmp_path / "groups", **files)
    assert usable_cpus(made, tmp_path / "own") == expected


def test_without_groups_the_affinity_counts(tmp_path: Path) -> None:
    """Systems without control groups have a number, too."""
    assert usable_cpus(tmp_path / "no", tmp_path / "no") == cpus._allowed() >= 1
