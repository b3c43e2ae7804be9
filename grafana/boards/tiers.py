"""Tiers: requests, answers, misses, failures and contents of each tier."""

from __future__ import annotations

from grafana.builder.board import Board, Placed, Section
from grafana.builder.panels import COLORS, Panel, Query, rising
from grafana.builder.queries import COMPUTED, ours, over, percentiles, quantile, rate, total

_BY_LEVEL = "sum by (level)"
_LEVELS = ("l1", "l2", "l3", "l4")
_HITS, _MISSES, _ERRORS = (ours(f"cache_{name}_total") for name in ("hits", "misses", "errors"))
_TELLING = 'level="l1",reason=~"personal|promoted|rate_limited|withdrawn"'

ANSWERS = (
    Panel(
        "timeseries",
        "How often does a tier answer when it is asked?",
        "Hits of hits and misses. L2 is asked only what L1 left, L3 and L4 only what L2 left: "
        "low is normal there, and the mean of the four means nothing.",
        [
            Query(
                over(
                    f"{_BY_LEVEL} ({rate(_HITS)})",
                    f"{_BY_LEVEL} ({rate(_HITS)}) + {_BY_LEVEL} ({rate(_MISSES)})",
                ),
                "{{level}}",
            )
        ],
        "percentunit",
        "glasscache-semantic",
        ends=(0, 1),
        colored=_LEVELS,
    ),
    Panel(
        "timeseries",
        "How often is each tier asked?",
        "Times a tier was needed, per second: hits, misses and errors.",
        [
            Query(
                f"{_BY_LEVEL} ({rate(_HITS)}) + {_BY_LEVEL} ({rate(_MISSES)})"
                f" + {_BY_LEVEL} ({rate(_ERRORS)})",
                "{{level}}",
            )
        ],
        "reqps",
        "glasscache-overview",
        ends=(0, None),
        colored=_LEVELS,
    ),
    Panel(
        "timeseries",
        "Tier latency, p99",
        "99 % of the calls of a tier took less. The dots are traces. Budgets: 50 ms for a keyed "
        "round trip, 250 ms for an embedding, 150 ms for a search.",
        [Query(quantile(0.99, "cache_latency_seconds", "level, "), "{{level}}", exemplar=True)],
        "s",
        "glasscache-stores",
        steps=rising(0.05, 0.4),
        ends=(0, None),
        colored=_LEVELS,
    ),
    Panel(
        "timeseries",
        "Tier latency, median",
        "The median of the calls of a tier. L1, L3 and L4 are round trips to the store; L2 is an "
        "embedding and a search.",
        [Query(quantile(0.5, "cache_latency_seconds", "level, "), "{{level}}", exemplar=True)],
        "s",
        "glasscache-stores",
        ends=(0, None),
        colored=_LEVELS,
    ),
)

REASONS = (
    Panel(
        "timeseries",
        "Why do tiers miss?",
        "Each miss has one reason. cold: never stored. expired, invalidated: as asked for. "
        "other_scope: only another user has an answer. below_threshold, guard_veto: see Semantic.",
        [
            Query(
                f"sum by (level, reason) ({rate(ours('cache_miss_reasons_total'))}) > 0",
                "{{level}} {{reason}}",
            )
        ],
        "cps",
        "glasscache-semantic",
        stacked=True,
        by_level=_LEVELS,
        ends=(0, None),
    ),
    Panel(
        "timeseries",
        "Why do tiers fail?",
        "Each error has one reason. timeout, backend_error: the backend. breaker_open: it failed "
        "so often that it is not asked. overloaded: this process. isolation: a defect.",
        [
            Query(
                f"sum by (level, reason) ({rate(_ERRORS)}) > 0",
                "{{level}} {{reason}}",
            )
        ],
        "cps",
        "glasscache-stores",
        stacked=True,
        by_level=_LEVELS,
        ends=(0, None),
        none="no errors",
    ),
    Panel(
        "timeseries",
        "What share of its calls does a tier fail?",
        "Errors of all calls of a tier. Above 5 % a backend is in trouble.",
        [
            Query(
                over(
                    f"{_BY_LEVEL} ({rate(_ERRORS)})",
                    f"{_BY_LEVEL} ({rate(_HITS)}) + {_BY_LEVEL} ({rate(_MISSES)})"
                    f" + {_BY_LEVEL} ({rate(_ERRORS)})",
                ),
                "{{level}}",
            )
        ],
        "percentunit",
        "glasscache-stores",
        steps=((None, "green"), (0.05, "red")),
        ends=(0, 1),
        colored=_LEVELS,
    ),
    Panel(
        "bargauge",
        "Misses by reason",
        "All misses in the time shown, commonest first.",
        [
            Query(
                f"topk(10, sum by (level, reason) ({total(ours('cache_miss_reasons_total'))}) > 0)",
                "{{level}} {{reason}}",
                instant=True,
            )
        ],
        "none",
        "glasscache-semantic",
        none="no misses",
        decimals=0,
    ),
)

ENTRIES = (
    Panel(
        "timeseries",
        "How old are the answers that hit?",
        "95 % of what a tier served was younger than this.",
        [Query(quantile(0.95, "cache_entry_age_seconds", "level, "), "{{level}}")],
        "dthms",
        "glasscache-semantic",
        logarithmic=True,
        colored=_LEVELS,
    ),
    Panel(
        "timeseries",
        "Age of hits, as a share of the TTL",
        "The 95th percentile of the age of what a tier served, as a share of its TTL. Close to "
        "100 %: a longer TTL would bring more hits. Far below it: a shorter one would cost few.",
        [
            Query(
                f"{quantile(0.95, 'cache_entry_age_seconds', 'level, ')}"
                f" / on (level) max by (level) ({ours('cache_ttl_seconds')})",
                "{{level}}",
            )
        ],
        "percentunit",
        "glasscache-semantic",
        ends=(0, None),
        colored=_LEVELS,
    ),
    Panel(
        "stat",
        "Which TTLs are in force?",
        "Time until an entry of a tier expires, set by the tuning; an entry's own overrides it. Of "
        "several caches the longest.",
        [Query(f"max by (level) ({ours('cache_ttl_seconds')})", "{{level}}", instant=True)],
        "s",
        "glasscache-semantic",
        says="value_and_name",
    ),
    Panel(
        "timeseries",
        "How many entries are there?",
        "If the store reports it. Replicas that share a store all see the same entries, so this "
        "is the largest count, not their sum.",
        [
            Query(
                f"max by (cluster, namespace, cache, level) ({ours('cache_entries')})",
                "{{cluster}} {{namespace}} {{cache}} {{level}}",
            )
        ],
        "none",
        "glasscache-stores",
        decimals=0,
        ends=(0, None),
    ),
    Panel(
        "timeseries",
        "What becomes of puts?",
        "Entries offered to each tier. dropped: the backend was unavailable or too slow. "
        "bypass: not to "
        "be stored there. For L1 also what there is to say: personal: stored for its user only, as "
        "it looks personal. promoted: for everybody, as enough users got it. withdrawn: it took a "
        "promoted answer back. rate_limited: its user writes too much.",
        [
            Query(
                f"sum by (level, outcome) ({rate(ours('cache_puts_total'))}) > 0",
                "{{level}} {{outcome}}",
            ),
            Query(
                f"sum by (reason) ({rate(ours('cache_put_reasons_total', _TELLING))})",
                "{{reason}}",
            ),
        ],
        "wps",
        "glasscache-stores",
        by_level=_LEVELS,
        ends=(0, None),
    ),
    Panel(
        "timeseries",
        "What was taken out?",
        "Invalidations by what was named: a message, a document, a tag, or a user who is to be "
        "forgotten. Those that wait for a backend are on Stores.",
        [Query(f"sum by (kind) ({rate(ours('cache_invalidations_total'))})", "by {{kind}}")],
        "cps",
        "glasscache-stores",
        colored=[legend for legend in COLORS if legend.startswith("by ")],
        ends=(0, None),
    ),
    Panel(
        "timeseries",
        "Are answers stale, or refreshed in time?",
        "Answers served past their TTL, where that is allowed; and answers refreshed before they "
        "expired. error: what computes them failed; skipped: another process does it.",
        [
            Query(f"sum({rate(ours('cache_stale_hits_total'))})", "served stale"),
            Query(
                f"sum by (outcome) ({rate(ours('cache_refreshes_total'))})",
                "refreshed, {{outcome}}",
            ),
        ],
        "cps",
        "glasscache-overview",
        colored=[legend for legend in COLORS if legend.startswith(("served", "refreshed"))],
        ends=(0, None),
    ),
    Panel(
        "timeseries",
        "Do callers give up?",
        "Lookups that their caller cancelled, by the tier that they waited for. Many: callers wait "
        "for less than a lookup may take (glasscache settings).",
        [Query(f"{_BY_LEVEL} ({rate(ours('cache_cancelled_total'))})", "{{level}}")],
        "cps",
        "glasscache-stores",
        ends=(0, None),
        colored=_LEVELS,
    ),
)

BYPASSED = Panel(
    "bargauge",
    "Why was the cache not asked?",
    "Lookups that bypassed the cache in the time shown, by their one reason, commonest first: "
    "docs/integrations.md says which requests are not for it.",
    [
        Query(
            f"topk(10, sum by (reason) ({total(ours('cache_bypass_reasons_total'))}) > 0)",
            "{{reason}}",
            instant=True,
        )
    ],
    "none",
    "glasscache-overview",
    none="no bypass",
    decimals=0,
)

COMPUTING = (
    Panel(
        "timeseries",
        "How long does a computation take?",
        "Calls of the function given to get_or_compute that succeeded: the time that a miss costs, "
        "and a hit spares. An agent that only looks up and puts has none.",
        [Query(expr, name) for expr, name in percentiles("cache_compute_seconds", COMPUTED)],
        "s",
        "glasscache-overview",
        ends=(0, None),
        none="no computations",
        colored=("p50", "p95", "p99"),
    ),
    Panel(
        "timeseries",
        "Do computations fail?",
        "Calls of that function, by how they ended. error, timeout: it raised, and so did the "
        "agent's call: look at the model first, not at the cache.",
        [
            Query(
                f"sum by (outcome) ({rate(ours('cache_compute_seconds_count'))})",
                "{{outcome}}",
            )
        ],
        "cps",
        "glasscache-overview",
        stacked=True,
        ends=(0, None),
        none="no computations",
        colored=("ok", "error", "timeout"),
    ),
)

JOINED = Panel(
    "timeseries",
    "Is the same asked concurrently?",
    "Computations saved, because another one for the same question was running, in this "
    "process or another (get_or_compute). Many at once are a stampede that did not reach the "
    "LLM.",
    [Query(f"sum({rate(ours('cache_flight_joins_total'))})", "computations spared")],
    "cps",
    "glasscache-overview",
    ends=(0, None),
)

WHOLE_PUTS = Panel(
    "timeseries",
    "Are answers stored whole?",
    "Each put once: stored, stored in part, queued for the model, dropped, or not to be stored "
    "(bypass). lost: the reason for which something was not stored, such as unsupported: documents "
    "that would not come back as they were.",
    [
        Query(
            f"sum by (outcome) ({rate(ours('cache_put_outcomes_total'))})",
            "{{outcome}}",
        ),
        Query(
            f"sum by (reason) ({rate(ours('cache_put_losses_total'))}) > 0",
            "lost: {{reason}}",
        ),
    ],
    "wps",
    "glasscache-stores",
    colored=("stored", "partial", "queued", "dropped", "bypass", "error", "cancelled"),
    ends=(0, None),
)

TIERS = Board(
    "glasscache-tiers",
    "glasscache / Tiers",
    "Requests, answers, misses, failures and contents of each tier. L1: the same question. "
    "L2: one that means the same. L3: the intent. L4: the documents.",
    (
        Section("Answers", [Placed(panel, 12) for panel in ANSWERS]),
        Section(
            "Misses and errors",
            [
                *(Placed(panel, 12) for panel in REASONS[:2]),
                *(Placed(panel, 8) for panel in (*REASONS[2:], BYPASSED)),
            ],
        ),
        Section("Computations", [Placed(panel, 8) for panel in (*COMPUTING, JOINED)]),
        Section("Entries", [Placed(panel, 8) for panel in (*ENTRIES, WHOLE_PUTS)]),
    ),
)
