"""Overview: is the cache healthy, is it worth it, and what changed."""

from __future__ import annotations

from grafana.builder.board import Board, Placed, Section
from grafana.builder.panels import COLORS, Panel, Query, falling, rising
from grafana.builder.queries import (
    ANSWERABLE,
    BY_CACHE,
    FIRING,
    HIT_RATE,
    HIT_RATE_SHOWN,
    OBJECTIVE,
    WRONG_HITS,
    grown,
    ours,
    over,
    quantile,
    rate,
    total,
)

_LOOKUPS = ours("cache_lookups_total")
_RESPONDING = 'level=~"l1|l2"'
"""Tiers that hold responses."""


def _ended(outcomes: str) -> str:
    matcher = f'outcome=~"{outcomes}"'
    return f"sum({rate(ours('cache_lookups_total', matcher))})"


HEALTH = (
    Panel(
        "stat",
        "Hit rate",
        "Lookups that got a response, of those that could be answered, in the time shown. "
        "60 % is the objective unless the tuning says otherwise.",
        [Query(HIT_RATE_SHOWN, "{{job}} {{cache}}", instant=True)],
        "percentunit",
        "glasscache-tiers",
        steps=falling(0.5, 0.6),
        decimals=1,
        none="no lookups",
    ),
    Panel(
        "stat",
        "Money saved, net",
        "Savings by hits minus the cost of the cache itself, in the time shown. The prices are in "
        "the tuning.",
        [
            Query(
                f"sum({total(ours('cache_saved_usd_total'))})"
                f" - sum({total(ours('cache_spent_usd_total'))})",
                instant=True,
            )
        ],
        "currencyUSD",
        "glasscache-tiers",
        steps=((None, "red"), (0, "green")),
        decimals=2,
    ),
    Panel(
        "stat",
        "Lookups",
        "All lookups per second, with those that were not cacheable.",
        [Query(f"sum({rate(_LOOKUPS)})")],
        "reqps",
        "glasscache-tiers",
    ),
    Panel(
        "stat",
        "Lookup time, p99",
        "99 % of lookups took less. The budget of a whole lookup is 500 ms.",
        [Query(quantile(0.99, "cache_lookup_seconds"), exemplar=True)],
        "s",
        "glasscache-tiers",
        steps=rising(0.1, 0.5),
        none="no lookups",
    ),
    Panel(
        "stat",
        "Wrong hits",
        "Semantic hits that a fresh answer contradicted, of those that were verified in the "
        "background, in the time shown. Semantic says how sure that is.",
        [Query(WRONG_HITS, instant=True)],
        "percentunit",
        "glasscache-semantic",
        steps=rising(0.005, 0.01),
        decimals=2,
        none="none verified",
    ),
    Panel(
        "stat",
        "Foreign entries met",
        "Entries of another user that a tier found and did not serve, in the time shown. Every one "
        "is a defect of the isolation: see the runbook of CacheIsolationViolation.",
        [Query(f"sum({total(ours('cache_isolation_violations_total'))})", instant=True)],
        "none",
        "glasscache-tiers",
        steps=((None, "green"), (0.5, "red")),
        decimals=0,
    ),
    Panel(
        "stat",
        "Backends down",
        "Backends that do not answer, counted once per process that cannot reach them. The "
        "agent goes on without them, with fewer hits.",
        [Query(f"sum(1 - {ours('cache_backend_up')})")],
        "none",
        "glasscache-stores",
        steps=((None, "green"), (1, "red")),
    ),
    Panel(
        "stat",
        "Alerts firing",
        "Alerts of glasscache that fire now, of all agents.",
        [Query(f"count({FIRING}) or vector(0)")],
        "none",
        "glasscache-stores",
        steps=((None, "green"), (1, "red")),
    ),
)

OBJECTIVES = (
    Panel(
        "timeseries",
        "Does the hit rate reach its objective?",
        "Lookups that got a response, of those that could be answered; dashed, the objective of "
        "each cache. Below it for long: look at why tiers miss.",
        [Query(HIT_RATE, "{{job}} {{cache}}"), Query(OBJECTIVE, "objective {{job}} {{cache}}")],
        "percentunit",
        "glasscache-tiers",
        limits="objective",
        ends=(0, 1),
    ),
    Panel(
        "timeseries",
        "How do lookups end?",
        "hit: a response. partial: only an intent or documents. miss: nothing. error: nothing, "
        "and a tier that was needed failed. bypass: not cacheable.",
        [Query(f"sum by (outcome) ({rate(_LOOKUPS)})", "{{outcome}}")],
        "reqps",
        "glasscache-tiers",
        stacked=True,
        ends=(0, None),
        colored=("hit", "partial", "miss", "error", "bypass"),
    ),
    Panel(
        "timeseries",
        "How long does a lookup take?",
        "Quantiles of the time of all lookups. The dots are traces: click one. Lines at 100 ms, "
        "which is slow, and 500 ms, where a lookup gives up.",
        [
            Query(quantile(q, "cache_lookup_seconds"), name, exemplar=True)
            for q, name in ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))
        ],
        "s",
        "glasscache-tiers",
        steps=rising(0.1, 0.5),
        ends=(0, None),
        colored=("p50", "p95", "p99"),
    ),
    Panel(
        "timeseries",
        "Who answers?",
        "Shares of the lookups that could be answered: by L1 (the same question), by L2 (one "
        "that means the same), only in part (L3, L4), and by nobody. They add up to 100 %.",
        [
            Query(
                over(
                    f"sum by (level) ({rate(ours('cache_hits_total', _RESPONDING))})",
                    ANSWERABLE,
                    on="on () group_left ()",
                ),
                "{{level}}",
            ),
            Query(over(_ended("partial"), ANSWERABLE), "only in part"),
            Query(over(_ended("miss|error"), ANSWERABLE), "nobody"),
        ],
        "percentunit",
        "glasscache-tiers",
        stacked=True,
        ends=(0, 1),
        colored=("l1", "l2", "only in part", "nobody"),
    ),
)

WORTH = (
    Panel(
        "timeseries",
        "What does the cache save and cost?",
        "USD per hour at the present rate: saved by the hits of each tier, and spent on "
        "embedding and verification, below zero.",
        [
            Query(
                f"sum by (level) ({rate(ours('cache_saved_usd_total'))}) * 3600",
                "saved by {{level}}",
            ),
            Query(
                f"-sum by (kind) ({rate(ours('cache_spent_usd_total'))}) * 3600",
                "spent on {{kind}}",
            ),
        ],
        "currencyUSD",
        "glasscache-tiers",
        stacked=True,
        colored=[legend for legend in COLORS if legend.startswith(("saved", "spent"))],
    ),
    Panel(
        "stat",
        "Saved since the processes started",
        "Net, summed over the processes that run now; a restart sets it back to 0.",
        [Query(f"sum({ours('cache_cost_saved_usd')})")],
        "currencyUSD",
        "glasscache-tiers",
        steps=((None, "red"), (0, "green")),
        decimals=2,
    ),
    Panel(
        "bargauge",
        "Why was there no response?",
        "The commonest reasons of L1 and L2 in the time shown. other_scope: another user has an "
        "answer, and nothing said that it may be shared. below_threshold, guard_veto: see "
        "Semantic.",
        [
            Query(
                f"topk(8, sum by (level, reason) "
                f"({total(ours('cache_miss_reasons_total', _RESPONDING))}) > 0)",
                "{{level}} {{reason}}",
                instant=True,
            )
        ],
        "short",
        "glasscache-tiers",
        none="no misses",
        decimals=0,
    ),
)

CHANGES = (
    Panel(
        "timeseries",
        "Which version of the tuning is in force?",
        "Of each cache, by the replica that is ahead and the one that lags; a difference that "
        "lasts is a replica that does not hear of changes. The blue marks are the same changes; "
        "`glasscache tune history` says who made them, and why.",
        [
            Query(f"max {BY_CACHE} ({ours('cache_tuning_version')})", "{{job}} {{cache}}"),
            Query(f"min {BY_CACHE} ({ours('cache_tuning_version')})", "{{job}} {{cache}}, slowest"),
        ],
        "none",
        "glasscache-semantic",
        decimals=0,
        ends=(0, None),
    ),
    Panel(
        "timeseries",
        "Were changes of the tuning applied or rejected?",
        "Counted by the replica that saw most of them. refused: the store held a value out of its "
        "bounds, and the replica kept the last good one.",
        [
            Query(f"max({grown(ours('cache_tuning_changes_total'))})", "applied"),
            Query(f"max({grown(ours('cache_tuning_rejected_total'))})", "refused"),
        ],
        "none",
        "glasscache-semantic",
        ends=(0, None),
        colored=("applied", "refused"),
    ),
    Panel(
        "stat",
        "Replicas agree?",
        "Largest difference of the replicas' tuning versions in one cache. They "
        "follow a change within a second.",
        [
            Query(
                f"max(max by (job, cache) ({ours('cache_tuning_version')})"
                f" - min by (job, cache) ({ours('cache_tuning_version')}))"
            )
        ],
        "none",
        "glasscache-semantic",
        steps=((None, "green"), (1, "red")),
        names={"0": ("agreed", "green")},
    ),
    Panel(
        "stat",
        "Processes by version",
        "Number of processes by version of glasscache.",
        [Query(f"count by (version) ({ours('cache_build_info')})", "{{version}}")],
        "none",
        "glasscache-stores",
        says="value_and_name",
    ),
    Panel(
        "bargauge",
        "Which alerts fire?",
        "Number of each; the same as the red marks on the graphs. A click on a bar opens its "
        "runbook: what it means, how to confirm it, what to do.",
        [Query(f"count by (alertname) ({FIRING})", "{{alertname}}", instant=True)],
        "none",
        "glasscache-stores",
        steps=((None, "red"),),
        none="none",
        decimals=0,
        of_alerts=True,
    ),
)

OVERVIEW = Board(
    "glasscache-overview",
    "glasscache / Overview",
    "Is the cache healthy, is it worth its money, is it right, what changed, and where to look "
    "next.",
    (
        Section(
            "Is it healthy, is it worth it, is it right?", [Placed(panel, 3, 4) for panel in HEALTH]
        ),
        Section("Lookups", [Placed(panel, 12) for panel in OBJECTIVES]),
        Section(
            "What is it worth, and what would be more?",
            [Placed(WORTH[0], 12), Placed(WORTH[1], 4), Placed(WORTH[2], 8)],
        ),
        Section(
            "What changed, what is wrong?",
            [
                Placed(panel, width, 6)
                for panel, width in zip(CHANGES, (7, 6, 3, 3, 5), strict=True)
            ],
        ),
    ),
)
