"""Overview: is the cache healthy, is it worth it, and what changed."""

from __future__ import annotations

from grafana.builder.board import Board, Placed, Section
from grafana.builder.panels import COLORS, Panel, Query, falling
from grafana.builder.queries import (
    ANSWERABLE,
    BUDGET_LEFT,
    BY_CACHE,
    CACHE_LABELS,
    CALLS_SPARED,
    HIT_RATE,
    HIT_RATE_OF_ALL,
    HIT_RATE_SHOWN,
    NAMED,
    NOTIFYING,
    OBJECTIVE,
    ON_CACHE,
    TIME_SPARED,
    UNANSWERED,
    VERIFIED_COUNT,
    WRONG_COUNT,
    agents,
    burn_rate,
    grown,
    ours,
    over,
    percentiles,
    quantile,
    rate,
    total,
    wilson,
)

_LOOKUPS = ours("cache_lookups_total")
_COUNTED = 'outcome=~"hit|partial|miss|error"'
"""Lookups that could be answered."""

_HIT = 'outcome="hit"'
_ERROR = 'outcome="error"'
_BY_REPLICA = f"by ({CACHE_LABELS}, instance)"
_RESPONDING = 'level=~"l1|l2"'
"""Tiers that hold responses."""


def _ended(outcomes: str) -> str:
    matcher = f'outcome=~"{outcomes}"'
    return f"sum({rate(ours('cache_lookups_total', matcher))})"


HEALTH = (
    Panel(
        "stat",
        "Hit rate",
        "Lookups that got a response, of those that could be answered, of the chosen caches "
        "together, in the time shown.",
        [Query(HIT_RATE_OF_ALL, instant=True)],
        "percentunit",
        "glasscache-tiers",
        decimals=1,
        none="no lookups",
    ),
    Panel(
        "stat",
        "Furthest from objective",
        "The cache whose hit rate is lowest against its own objective, in the time shown: how far "
        "above it, or, red, below it, where CacheHitRateLow warns.",
        [
            Query(
                f"bottomk(1, {HIT_RATE_SHOWN} - {ON_CACHE} ({OBJECTIVE}))",
                "{{cache}}",
                instant=True,
            )
        ],
        "percentunit",
        "glasscache-tiers",
        steps=((None, "red"), (0, "green")),
        decimals=1,
        none="no lookups",
        says="value_and_name",
    ),
    Panel(
        "stat",
        "Error budget left",
        "Of the errors that an availability of 99.9 % allows in the time shown, the share that is "
        "left. Below 0 it is overdrawn; -100 % means so much or more. How fast it goes is shown "
        "below.",
        [Query(f"clamp_min({BUDGET_LEFT}, -1)", instant=True)],
        "percentunit",
        "glasscache-tiers",
        steps=falling(0, 0.25),
        decimals=1,
        none="no lookups",
    ),
    Panel(
        "stat",
        "Lookup time, p99",
        "99 % of the lookups that could be answered took less, now. Red above 100 ms, where "
        "CacheLatencyHigh warns. 2.5 s means 2.5 s or more.",
        [Query(quantile(0.99, "cache_lookup_seconds", more=_COUNTED), instant=True)],
        "s",
        "glasscache-tiers",
        steps=((None, "green"), (0.1, "red")),
        none="no lookups",
    ),
    Panel(
        "stat",
        "Lookups",
        "All lookups per second, with those that were not cacheable.",
        [Query(f"sum({rate(_LOOKUPS)}) or vector(0)")],
        "reqps",
        "glasscache-tiers",
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
        "Wrong hits, at least",
        "Share of semantic hits that a fresh answer contradicted, of those verified in the time "
        "shown: what it is at least, with a confidence of 95 %. Red above 1 %, where "
        "CacheWrongHits warns.",
        [Query(wilson(WRONG_COUNT, VERIFIED_COUNT, "-"), instant=True)],
        "percentunit",
        "glasscache-semantic",
        steps=((None, "green"), (0.01, "red")),
        decimals=2,
        none="none verified",
    ),
    Panel(
        "stat",
        "Entries of others blocked",
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
        "Backends that at least half of a job's processes cannot reach, each once, however many "
        "caches use it. The agent goes on without them, with fewer hits.",
        [
            Query(
                "count(avg by (cluster, namespace, job, backend) "
                "(min by (cluster, namespace, job, instance, backend) "
                f"({ours('cache_backend_up')})) <= 0.5) or vector(0)"
            )
        ],
        "none",
        "glasscache-stores",
        steps=((None, "green"), (1, "red")),
        decimals=0,
    ),
    Panel(
        "stat",
        "Alerts firing",
        "Alerts of the chosen caches and of Redis servers that fire now, each name once, without "
        "those that are silenced because Redis is down.",
        [Query(f"count(count by (alertname) ({NOTIFYING})) or vector(0)")],
        "none",
        "glasscache-stores",
        steps=((None, "green"), (1, "red")),
        decimals=0,
    ),
)

OBJECTIVES = (
    Panel(
        "timeseries",
        "Does the hit rate reach its objective?",
        "Lookups that got a response, of those that could be answered; dashed, the objective of "
        "each cache. Below it for long: look at why tiers miss.",
        [Query(HIT_RATE, NAMED), Query(OBJECTIVE, f"objective {NAMED}")],
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
        "Quantiles of the time of lookups that could be answered. The dots are traces: click one. "
        "The line at 100 ms is where CacheLatencyHigh warns. 2.5 s means 2.5 s or more.",
        [
            Query(expr, name, exemplar=True)
            for expr, name in percentiles("cache_lookup_seconds", _COUNTED)
        ],
        "s",
        "glasscache-tiers",
        steps=((None, "green"), (0.1, "red")),
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

_WINDOWS = ("5m", "1h", "6h", "1d", "3d")
BUDGET = Panel(
    "timeseries",
    "How fast is the error budget used?",
    "1 uses up exactly what an availability of 99.9 % allows. CacheAvailability pages above 14.4 "
    "over an hour and 6 over six hours, and warns above 3 over a day and 1 over three.",
    [Query(burn_rate(window), f"over {window}") for window in _WINDOWS],
    "suffix:x",
    "glasscache-tiers",
    ends=(0, None),
    colored=[f"over {window}" for window in _WINDOWS],
)

REPLICAS = Panel(
    "table",
    "Replicas",
    "Each process now: which is the odd one? Hit rate and p99 are those of the last minutes; the "
    "tuning version is the same on all within a second.",
    [
        Query(f"sum {_BY_REPLICA} ({rate(_LOOKUPS)})", "lookups", instant=True, unit="reqps"),
        Query(
            over(
                f"sum {_BY_REPLICA} ({rate(ours('cache_lookups_total', _HIT))})",
                f"sum {_BY_REPLICA} ({rate(ours('cache_lookups_total', _COUNTED))})",
            ),
            "hit rate",
            instant=True,
            unit="percentunit",
        ),
        Query(
            quantile(0.99, "cache_lookup_seconds", f"{CACHE_LABELS}, instance, ", _COUNTED),
            "p99",
            instant=True,
            unit="s",
        ),
        Query(
            f"sum {_BY_REPLICA} ({rate(ours('cache_lookups_total', _ERROR))})",
            "errors",
            instant=True,
            unit="reqps",
        ),
        Query(
            f"max {_BY_REPLICA} ({ours('cache_tuning_version')})", "tuning version", instant=True
        ),
        Query(
            f"time() - min {_BY_REPLICA} ({ours('cache_start_time_seconds')})",
            "open for",
            instant=True,
            unit="s",
        ),
    ],
    "none",
    "glasscache-tiers",
)

SLOWNESS = (
    Panel(
        "timeseries",
        "Is the event loop blocked?",
        "Longest delay of each process's event loop in the last second. Every lookup of the "
        "process waits so long: look for synchronous calls in the agent. The line at 100 ms is "
        "where CacheLatencyHigh warns.",
        [Query(f"max by (instance) ({ours('cache_event_loop_lag_seconds')})", "{{instance}}")],
        "s",
        "glasscache-stores",
        steps=((None, "green"), (0.1, "red")),
        ends=(0, None),
    ),
    Panel(
        "timeseries",
        "Are agents short of CPU?",
        "Cores that each process uses. A process that uses one whole core makes every lookup wait.",
        [Query(rate(agents("process_cpu_seconds_total")), "{{instance}}")],
        "none",
        "glasscache-stores",
        ends=(0, None),
    ),
    Panel(
        "timeseries",
        "How much memory do agents use?",
        "Resident memory of each process, with all that the agent itself needs.",
        [Query(agents("process_resident_memory_bytes"), "{{instance}}")],
        "bytes",
        "glasscache-stores",
        ends=(0, None),
    ),
    Panel(
        "timeseries",
        "Can agents be scraped?",
        "Duration of a scrape. The agent itself answers it: where it takes long, the agent is "
        "busy. A line that ends is an agent that stopped, or cannot be reached.",
        [Query(agents("scrape_duration_seconds"), "{{instance}}")],
        "s",
        "glasscache-stores",
        ends=(0, None),
    ),
)

ANSWERS = "cache_intent_answers_total"
OF_CACHE = 'origin="cache"'

WORTH = (
    Panel(
        "timeseries",
        "What does the cache save and cost?",
        "USD per hour at the present rate: saved by the hits of each tier, and spent on "
        "embedding, verification and approval, below zero.",
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
        "suffix:USD/h",
        "glasscache-tiers",
        stacked=True,
        colored=[legend for legend in COLORS if legend.startswith(("saved", "spent"))],
    ),
    Panel(
        "stat",
        "Money per day, net",
        "What the cache saves in a day at the rate of the time shown.",
        [
            Query(
                f"(sum({total(ours('cache_saved_usd_total'))})"
                f" - sum({total(ours('cache_spent_usd_total'))})) * 86400 / $__range_s",
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
        "Model calls spared",
        "Answers that no model had to compute, in the time shown: hits of L1 and L2, and callers "
        "that waited for the computation of another.",
        [Query(CALLS_SPARED, instant=True)],
        "none",
        "glasscache-tiers",
        decimals=0,
    ),
    Panel(
        "stat",
        "Model time spared",
        "How long those answers would have taken, at the mean duration of the computations that "
        "get_or_compute made in the time shown. An agent that only looks up and puts has none.",
        [Query(TIME_SPARED, instant=True)],
        "s",
        "glasscache-tiers",
        decimals=1,
        none="no computations",
    ),
    Panel(
        "bargauge",
        "Why was there no response?",
        "Lookups without a response in the time shown, by their one reason. other_scope: another "
        "user has an answer, and nothing said that it may be shared. below_threshold, guard_veto: "
        "see Semantic.",
        [Query(f"topk(8, {UNANSWERED} > 0.5)", "{{reason}}", instant=True)],
        "none",
        "glasscache-tiers",
        none="no misses",
        decimals=0,
    ),
    Panel(
        "bargauge",
        "Which intents does the cache answer?",
        "Share of the answers of an intent that came from the cache in the time shown, the lowest "
        "first. A low one that is the same for everybody: share it, or give it a longer TTL. Only "
        "answers put with an intent; * is all that neither shared_intents nor the tuning names.",
        [
            Query(
                "bottomk(6, "
                + over(
                    f"sum by (intent) ({total(ours(ANSWERS, OF_CACHE))})",
                    f"sum by (intent) ({total(ours(ANSWERS))})",
                )
                + ")",
                "{{intent}}",
                instant=True,
            )
        ],
        "percentunit",
        "glasscache-tiers",
        none="no intents",
        decimals=0,
        long_names=True,
        ends=(0, 1),
    ),
)

CHANGES = (
    Panel(
        "timeseries",
        "Which tuning is in force?",
        "Of each cache, by the replica that is ahead and the one that lags; a difference that "
        "lasts is a replica that does not hear of changes. The blue marks are the same changes; "
        "`glasscache tune history` says who made them, and why.",
        [
            Query(f"max {BY_CACHE} ({ours('cache_tuning_version')})", NAMED),
            Query(f"min {BY_CACHE} ({ours('cache_tuning_version')})", f"{NAMED}, slowest"),
        ],
        "none",
        "glasscache-semantic",
        decimals=0,
        ends=(0, None),
    ),
    Panel(
        "timeseries",
        "Tuning changes",
        "Counted by the replica that saw most of them. refused: the store held a value out of its "
        "bounds, and the replica kept the last good one.",
        [
            Query(f"floor(max({grown(ours('cache_tuning_changes_total'))}))", "applied"),
            Query(f"floor(max({grown(ours('cache_tuning_rejected_total'))}))", "refused"),
        ],
        "none",
        "glasscache-semantic",
        decimals=0,
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
                f"max(max {BY_CACHE} ({ours('cache_tuning_version')})"
                f" - min {BY_CACHE} ({ours('cache_tuning_version')}))",
                instant=True,
            )
        ],
        "none",
        "glasscache-semantic",
        steps=((None, "green"), (1, "red")),
        names={"0": ("agreed", "green")},
        none="no agent",
    ),
    Panel(
        "stat",
        "Releases running",
        "Number of processes by version of glasscache.",
        [
            Query(
                "count by (version) (count by (cluster, namespace, job, instance, version) "
                f"({ours('cache_build_info')}))",
                "{{version}}",
                instant=True,
            )
        ],
        "none",
        "glasscache-stores",
        none="no agent",
        says="value_and_name",
    ),
    Panel(
        "bargauge",
        "Which alerts fire?",
        "Number of each, of the chosen caches and of Redis servers. A click on a bar opens its "
        "runbook: what it means, how to confirm it, what to do.",
        [Query(f"count by (alertname) ({NOTIFYING})", "{{alertname}}", instant=True)],
        "none",
        "glasscache-stores",
        steps=((None, "green"), (1, "red")),
        none="none",
        decimals=0,
        long_names=True,
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
            "Is it healthy, is it worth it, is it right?",
            [
                Placed(panel, width, 4)
                for panel, width in zip(HEALTH, (5, 5, 5, 5, 4) * 2, strict=True)
            ],
        ),
        Section(
            "Lookups",
            [
                *(Placed(panel, 12) for panel in OBJECTIVES[:2]),
                *(Placed(panel, 8) for panel in (*OBJECTIVES[2:], BUDGET)),
            ],
        ),
        Section("Which replica is the odd one?", [Placed(REPLICAS, 24, 6)]),
        Section(
            "What is it worth, and what would be more?",
            [
                *(Placed(panel, 8, 4) for panel in WORTH[1:4]),
                *(Placed(WORTH[number], 8) for number in (0, 4, 5)),
            ],
        ),
        Section(
            "What changed, what is wrong?",
            [
                Placed(panel, width, 6)
                for panel, width in zip(CHANGES, (5, 5, 4, 4, 6), strict=True)
            ],
        ),
        Section("Are the agents themselves slow?", [Placed(panel, 6) for panel in SLOWNESS]),
    ),
)
