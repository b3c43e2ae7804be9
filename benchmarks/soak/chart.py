"""Chart of a soak: the agents' view and growth, with the faults shaded."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.soak.report import BUDGET, Event, Run

_BINS = 120


def draw(run: Run, found: Mapping[str, Any], path: Path) -> None:
    """Draw a run into a PNG or SVG file.

    Args:
        run: The run.
        found: Its report.
        path: Path of the picture.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(6, 1, figsize=(14, 16), sharex=True, layout="constrained")
    violations = sum(found["violations"].values())
    figure.suptitle(
        f"{run.replicas} replicas, {run.minutes:g} minutes, {found['stores']}, seed {run.seed}: "
        f"{found['lookups']['all']['lookups']:,} lookups, {violations} violations",
        fontsize=14,
    )
    names = sorted({window.name for window in run.windows})
    colours = dict(zip(names, plt.get_cmap("tab20").colors * 2, strict=False))  # type: ignore[attr-defined]
    for axis in axes:
        for window in run.windows:
            axis.axvspan(
                (window.start - run.start) / 60, (window.end - run.start) / 60,
                color=colours[window.name], alpha=0.3, linewidth=0,
            )  # fmt: skip
        axis.axvspan(0, run.warm_up / 60, color="grey", alpha=0.12, linewidth=0)
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="y", alpha=0.3)

    axes[0].set_xlim(0, (run.end - run.start) / 60)
    width = (run.end - run.start) / _BINS
    bins: dict[int, list[Event]] = defaultdict(list)
    for event in run.of("lookup"):
        if event["t"] >= run.start and not run.is_paused(event):
            bins[int((event["t"] - run.start) / width)].append(event)
    at = [(number + 0.5) * width / 60 for number in sorted(bins)]
    each = [bins[number] for number in sorted(bins)]

    def line(axis: Any, label: str, value: Callable[[Sequence[Event]], float], **look: Any) -> None:
        axis.plot(at, [value(events) for events in each], label=label, linewidth=1.4, **look)

    def percent(is_one: Callable[[Event], bool]) -> Callable[[Sequence[Event]], float]:
        return lambda events: 100 * sum(is_one(event) for event in events) / len(events)

    line(axes[0], "answered in time", percent(lambda event: event["s"] <= BUDGET))
    line(axes[0], "but for a busy machine", percent(lambda e: e["s"] - e["late"] <= BUDGET),
         linestyle=":")  # fmt: skip
    axes[0].set(ylabel="% of lookups", ylim=(0, 104), title="Availability")
    line(axes[1], "hit", percent(lambda event: event["o"] == "hit"))
    line(axes[1], "some tier failed", percent(lambda event: bool(event["r"])))
    axes[1].set(ylabel="% of lookups", ylim=(0, 104), title="Hits and errors")
    for share, label in ((0.5, "p50"), (0.99, "p99")):
        line(axes[2], label, lambda events, share=share: _quantile(events, share))
    axes[2].axhline(1000 * BUDGET, color="black", linestyle="--", linewidth=0.8, label="budget")
    axes[2].set(ylabel="ms", yscale="log", title="Lookup latency")
    _lives(axes[3], run, "rss", 1e-6)
    axes[3].set(ylabel="MB", title="Resident memory, each replica")
    for gauge, label in (("fds", "files"), ("tasks", "tasks"), ("threads", "threads")):
        _most(axes[4], run, gauge, label)
    _server(axes[4], run, "connections", "Redis connections", 1)
    axes[4].set(
        ylabel="count", title="Files, tasks and threads of the replica with most; connections"
    )
    _server(axes[5], run, "disk", "Chroma and SQLite files", 1e-6)
    _server(axes[5], run, "redis_memory", "Redis memory", 1e-6)
    axes[5].set(ylabel="MB", xlabel="minutes", title="Stores")
    for axis in axes[[0, 1, 2, 4, 5]]:
        axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    shades = [plt.Rectangle((0, 0), 1, 1, color=colours[name], alpha=0.4) for name in names]  # type: ignore[attr-defined]
    figure.legend(shades, names, loc="outside lower center", ncols=5, frameon=False,
                  title="faults (grey: warm-up)")  # fmt: skip
    figure.savefig(path, dpi=90)
    plt.close(figure)


def _quantile(events: Sequence[Event], share: float) -> float:
    seconds = sorted(event["s"] for event in events)
    return 1000 * float(seconds[min(len(seconds) - 1, int(share * len(seconds)))])


def _lives(axis: Any, run: Run, gauge: str, scale: float) -> None:
    lives: dict[tuple[int, int], list[Event]] = defaultdict(list)
    for event in run.of("sample"):
        lives[event["n"], event["life"]].append(event)
    for events in lives.values():
        axis.plot(
            [(event["t"] - run.start) / 60 for event in events],
            [event[gauge] * scale for event in events],
            linewidth=1.2,
        )


def _most(axis: Any, run: Run, gauge: str, label: str) -> None:
    bins: dict[int, float] = defaultdict(float)
    for event in run.of("sample"):
        number = int((event["t"] - run.start) / 10)
        bins[number] = max(bins[number], event[gauge])
    axis.plot([10 * n / 60 for n in sorted(bins)], [bins[n] for n in sorted(bins)], label=label)


def _server(axis: Any, run: Run, gauge: str, label: str, scale: float) -> None:
    found = [sample for sample in run.servers if gauge in sample]
    if found:
        at = [(sample["t"] - run.start) / 60 for sample in found]
        axis.plot(at, [sample[gauge] * scale for sample in found], label=label, linewidth=1.2)
