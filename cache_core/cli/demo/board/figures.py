"""Middle of the board: the work of each tier, and its value."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from cache_core import MultiLevelCache
from cache_core.cli.demo.agent import Score, quantile
from cache_core.cli.demo.board.looks import (
    COLOURS,
    EDGE,
    FRAME_WIDTH,
    bar,
    flowing,
    good_if_zero,
    milliseconds,
    panel,
    percent,
    short_duration,
    table,
)
from cache_core.cli.demo.board.watch import Watch
from cache_core.model.values import LEVELS, OUTCOMES, Level

_NAMES: dict[Level, str] = {"l1": "exact", "l2": "semantic", "l3": "intent", "l4": "rag"}
_COLUMNS = ("hits", "misses", "errors", "hit rate", "p50")
_HEIGHT = 9
_BESIDE, _WIDE = 78, 100
"""Fewest columns for two panels side by side, and for all their contents."""
_LEFT_SHARE, _RIGHT_SHARE = 53, 47


def figures(cache: MultiLevelCache, watch: Watch, score: Score, width: int) -> RenderableType:
    """Return both panels, side by side if there is room; else reduced."""
    wide = width >= _WIDE
    tiers = _tiers(cache, watch, wide=wide)
    worth = _worth(cache, watch, score, width, wide=wide)
    if width < _BESIDE:
        return Group(panel(tiers, "Tiers"), panel(worth, "What it is worth"))
    inner = width * _LEFT_SHARE // (_LEFT_SHARE + _RIGHT_SHARE) - FRAME_WIDTH
    outcomes = flowing(_outcomes(cache, wide=wide), inner, gap=2)
    # a second line of outcomes takes the place of the empty one
    gap = [] if len(outcomes) > 1 else [""]
    grid = Table.grid(expand=True, padding=0)
    grid.add_column(ratio=_LEFT_SHARE)
    grid.add_column(ratio=_RIGHT_SHARE)
    grid.add_row(
        panel(Group(tiers, *gap, *outcomes), "Tiers", height=_HEIGHT),
        panel(worth, "What it is worth", height=_HEIGHT),
    )
    return grid


def _tiers(cache: MultiLevelCache, watch: Watch, *, wide: bool) -> RenderableType:
    counted = "errors" if any(cache.metrics.errors.values()) else "hits"
    columns = _COLUMNS if wide else (counted, "hit rate", "p50")
    found = table()
    found.add_column("tier", no_wrap=True)
    for name in columns:
        found.add_column(name, justify="right", no_wrap=True)
    for level in LEVELS:
        title = Text.assemble((level.upper(), "bold"), f" {_NAMES[level]}")
        cells = _tier(cache, watch, level)
        found.add_row(title, *(cells[name] for name in columns))
    return found


def _outcomes(cache: MultiLevelCache, *, wide: bool) -> list[Text]:
    counted = [
        Text.assemble((f"{count:,}", f"bold {COLOURS[name]}"), f" {name}")
        for name in OUTCOMES
        if (count := cache.metrics.outcomes[name])
    ]
    return [*([Text("lookups:", EDGE)] if wide else []), *counted]


def _tier(cache: MultiLevelCache, watch: Watch, level: Level) -> dict[str, Text]:
    if level not in cache.settings.tiers:
        return dict.fromkeys(_COLUMNS, Text("off", EDGE))
    stats = cache.metrics
    hits, misses, errors = stats.hits[level], stats.misses[level], stats.errors[level]
    return {
        "hits": Text(f"{hits:,}", "green" if hits else EDGE),
        "misses": Text(f"{misses:,}"),
        "errors": Text(f"{errors:,}", "red" if errors else EDGE),
        "hit rate": percent(hits, hits + misses),
        "p50": milliseconds(watch.seconds(level)),
    }


def _worth(
    cache: MultiLevelCache, watch: Watch, score: Score, width: int, *, wide: bool
) -> RenderableType:
    stats = cache.metrics
    without = "without cache" if wide else "without"
    found = Table.grid(padding=(0, 2))
    found.add_column(style=EDGE, no_wrap=True, min_width=8)
    found.add_column(no_wrap=True)
    objective = cache.tuning.hit_rate_objective
    found.add_row("hit rate", bar(stats.hit_rate, objective, 16 if wide else 8))
    found.add_row(
        "lookups",
        Text.assemble((f"{stats.lookups:,}", "bold"), f"  {watch.lookups_per_second():.1f}/s"),
    )
    for name, share in (("p50", 0.5), ("p95", 0.95)):
        found.add_row(
            name,
            Text.assemble(
                (f"{short_duration(quantile(score.cached_seconds, share)):>7}", "bold"),
                (f"  {without} ", EDGE),
                short_duration(quantile(score.llm_seconds, share)),
            ),
        )
    found.add_row(
        "saved",
        Text.assemble(
            (f"${stats.cost_saved_usd:,.2f}", "bold green"),
            (f"  of ${score.full_usd:,.2f}{' without cache' if wide else ''}", EDGE),
        ),
    )
    if width >= _BESIDE:
        found.add_row("wrong", good_if_zero(score.wrong, f"of {stats.outcomes['hit']:,} hits"))
        others = " to other users" if wide else ""
        found.add_row("leaked", good_if_zero(score.leaks, f"private answers{others}"))
    return found
