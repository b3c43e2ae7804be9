"""Semantic: is the threshold right, are the answers right, and what does it cost."""

from __future__ import annotations

from itertools import pairwise

from grafana.builder.board import Board, Placed, Section
from grafana.builder.panels import COLORS, Panel, Query, rising
from grafana.builder.queries import (
    BY_CACHE,
    COMPUTED,
    MISSED_HITS,
    NAMED,
    THRESHOLD,
    VERIFIED_COUNT,
    WRONG_COUNT,
    WRONG_HITS,
    mean,
    ours,
    over,
    percentiles,
    quantile,
    rate,
    total,
    wilson,
)

_BOUNDS = ("0.0", "0.7", "0.8", "0.87", "0.9", "0.92", "0.94", "0.95", "0.96", "0.97", "0.98", "0.99", "+Inf")  # fmt: skip # noqa: E501
"""Upper ends of the bars: some of the buckets of cache_similarity."""

_L2 = 'level="l2"'
_REASONS = (
    "cold", "expired", "invalidated", "other_scope", "below_threshold", "unsure", "guard_veto",
    "has_history", "truncated", "unreadable", "warming", "context_limit", "left_out",
    "too_old", "day_over", "corrupt", "not_approved", "approval_failed", "approval_late",
    "approval_budget",
)  # fmt: skip
"""Reasons for a miss of L2."""


def _between(outcome: str) -> list[Query]:
    """Return one query per bar: a histogram's bucket includes all values below it.

    The bar with the threshold is marked by a label that only it has.
    """

    def below(bound: str) -> str:
        matchers = f'outcome="{outcome}",le="{bound}"'
        return f"sum({total(ours('cache_similarity_bucket', matchers))})"

    def bar(low: str, high: str) -> Query:
        count = below(high) if low == "0.0" else f"({below(high)} - {below(low)})"
        here = f"{THRESHOLD} >= {low}"
        here += "" if high == "+Inf" else f" < {high}"
        marked = f'label_replace({count} and on () ({here}), "mark", "◂ threshold", "", "")'
        name = f"{low} - {'1' if high == '+Inf' else high} {{{{mark}}}}"
        return Query(f"{marked} or on () {count}", name, instant=True)

    return [bar(low, high) for low, high in pairwise(_BOUNDS)]


def _similarity(q: float, outcome: str) -> str:
    return quantile(q, "cache_similarity", more=f'outcome="{outcome}"')


SIMILARITY = (
    Panel(
        "timeseries",
        "How near are hits and misses to the threshold?",
        "Similarity of the nearest question: of hits the lowest tenth and the median, of misses "
        "the median and the highest tenth; dashed, the threshold. Misses just below it are what "
        "a lower threshold would serve: look at them before you lower it.",
        [
            Query(_similarity(0.1, "hit"), "hits, p10"),
            Query(_similarity(0.5, "hit"), "hits, p50"),
            Query(_similarity(0.5, "miss"), "misses, p50"),
            Query(_similarity(0.9, "miss"), "misses, p90"),
            Query(THRESHOLD, f"threshold {NAMED}"),
        ],
        "percentunit",
        "glasscache-tiers",
        limits="threshold",
        ends=(0.5, 1),
    ),
    Panel(
        "timeseries",
        "What did a change of the threshold do?",
        "Hits of L2, of the times it was asked and did not fail, over the threshold, dashed. The "
        "blue marks are changes of the tuning.",
        [
            Query(
                over(
                    f"sum {BY_CACHE} ({rate(ours('cache_hits_total', _L2))})",
                    f"sum {BY_CACHE} ({rate(ours('cache_hits_total', _L2))})"
                    f" + sum {BY_CACHE} ({rate(ours('cache_misses_total', _L2))})",
                ),
                f"L2 hit rate {NAMED}",
            ),
            Query(THRESHOLD, f"threshold {NAMED}"),
        ],
        "percentunit",
        "glasscache-overview",
        limits="threshold",
        ends=(0, 1),
    ),
    Panel(
        "bargauge",
        "Similarity of hits",
        "How many hits of L2 lie where, in the time shown; ◂ marks where the threshold is now. "
        "Hits below it are from before it was raised.",
        _between("hit"),
        "none",
        "glasscache-tiers",
        steps=((None, "green"),),
        decimals=0,
    ),
    Panel(
        "bargauge",
        "Similarity of misses",
        "How many misses of L2 have their nearest question where, in the time shown; ◂ marks where "
        "the threshold is now. Those above it were vetoed by a guard, expired or invalidated; "
        "those in the bars just below it are what a lower threshold would serve.",
        _between("miss"),
        "none",
        "glasscache-tiers",
        steps=((None, "orange"),),
        decimals=0,
    ),
)

RIGHT = (
    Panel(
        "stat",
        "How many semantic hits are wrong?",
        "Hits that a fresh answer contradicted, of those that were verified in the background, in "
        "the time shown: found, and, with a confidence of 95 % (Wilson), at least and at most. "
        "Only these are a fair sample: people report what they notice. Far apart: verify more of "
        "them (verify_share in the tuning).",
        [
            Query(wilson(WRONG_COUNT, VERIFIED_COUNT, "-"), "at least", instant=True),
            Query(WRONG_HITS, "found", instant=True),
            Query(wilson(WRONG_COUNT, VERIFIED_COUNT, "+"), "at most", instant=True),
        ],
        "percentunit",
        "glasscache-tiers",
        decimals=2,
        none="none verified",
        says="value_and_name",
    ),
    Panel(
        "stat",
        "Hits verified",
        "Semantic hits that a fresh answer was compared with, in the time shown. The alert on "
        "wrong hits wants a hundred in a day.",
        [Query(VERIFIED_COUNT, instant=True)],
        "none",
        "glasscache-tiers",
        decimals=0,
    ),
    Panel(
        "stat",
        "Missed hits",
        "Misses of L2 whose nearest answer would have been right, of those whose fresh answer is "
        "known to be the same or another one, in the time shown: what a lower threshold or another "
        "policy (max_wrong in the tuning) could win.",
        [Query(MISSED_HITS, instant=True)],
        "percentunit",
        "glasscache-tiers",
        decimals=1,
        none="none compared",
    ),
    Panel(
        "timeseries",
        "What do verdicts say?",
        "Verdicts on hits, by who gave them: the background verification, the application's "
        "feedback, or a reviewer on the dashboard.",
        [
            Query(
                f"sum by (verdict, source) ({rate(ours('cache_verdicts_total'))}) > 0",
                "{{verdict}} ({{source}})",
            )
        ],
        "cps",
        "glasscache-overview",
        stacked=True,
        ends=(0, None),
        none="no verdicts",
        colored=[legend for legend in COLORS if legend.startswith(("correct", "wrong"))],
    ),
    Panel(
        "timeseries",
        "Which guards veto?",
        "Matches above the threshold that a guard vetoed, because numbers or dates differ, or one "
        "question is negated. Each would have been a hit, and most of them a wrong one.",
        [Query(f"sum by (guard) ({rate(ours('cache_guard_vetoes_total'))})", "{{guard}}")],
        "cps",
        "glasscache-tiers",
        ends=(0, None),
    ),
    Panel(
        "timeseries",
        "Why does L2 miss?",
        "has_history: ask with standalone=. truncated: longer than the model reads. warming: the "
        "model is loading. context_limit: too many contexts for an index each.",
        [
            Query(
                f"sum by (reason) ({rate(ours('cache_miss_reasons_total', _L2))}) > 0",
                "{{reason}}",
            )
        ],
        "cps",
        "glasscache-tiers",
        stacked=True,
        ends=(0, None),
        colored=_REASONS,
    ),
)

VERIFYING = (
    Panel(
        "timeseries",
        "Do verifications succeed?",
        "Background checks of hits by the function given as verify=, per second. error, timeout: "
        "it failed, and the hit counts as not verified.",
        [
            Query(
                f"sum by (outcome) ({rate(ours('cache_verification_seconds_count'))})",
                "{{outcome}}",
            )
        ],
        "cps",
        "glasscache-overview",
        ends=(0, None),
        none="no verification",
        colored=("ok", "error", "timeout"),
    ),
    Panel(
        "timeseries",
        "How long does a verification take?",
        "In the background: no lookup waits for it. As a rule it is a call of a model; what it "
        "costs is on Overview.",
        [Query(expr, name) for expr, name in percentiles("cache_verification_seconds", COMPUTED)],
        "s",
        "glasscache-overview",
        ends=(0, None),
        none="no verification",
        colored=("p50", "p95", "p99"),
    ),
    Panel(
        "timeseries",
        "Have answers changed?",
        "Fresh answers compared with the stored ones that they replace, per second. changed: the "
        "old one was outdated, in every copy. unchanged_at_expiry: a longer TTL would have been "
        "right; get_metrics()['freshness'] recommends one for each intent. unknown: nothing "
        "told whether it is the same answer in other words, so the copies went. failed: the store "
        "failed or was too slow.",
        [Query(f"sum by (verdict) ({rate(ours('cache_compared_answers_total'))})", "{{verdict}}")],
        "cps",
        "glasscache-tiers",
        ends=(0, None),
        none="nothing compared",
    ),
    Panel(
        "timeseries",
        "What becomes of answers in doubt?",
        "Those that were to be approved by the function given as approve= before they were served, "
        "per second. Only approved ones were served. over_budget: approvals_per_minute were used "
        "up.",
        [Query(f"sum by (verdict) ({rate(ours('cache_approvals_total'))})", "{{verdict}}")],
        "cps",
        "glasscache-overview",
        ends=(0, None),
        none="no answer in doubt",
    ),
    Panel(
        "timeseries",
        "How long does an approval take?",
        "A lookup waits for it as long as its own budget lasts; what is approved after that serves "
        "the next one.",
        [Query(expr, name) for expr, name in percentiles("cache_approval_seconds")],
        "s",
        "glasscache-overview",
        ends=(0, None),
        none="no approval",
        colored=("p50", "p95", "p99"),
    ),
)

WORK = (
    Panel(
        "timeseries",
        "How long does an embedding take?",
        "With the wait for a free worker. The budget is 250 ms; a lookup that needs more goes on "
        "without L2. The dots are traces.",
        [Query(expr, name, exemplar=True) for expr, name in percentiles("cache_embedding_seconds")],
        "s",
        "glasscache-stores",
        steps=rising(0.1, 0.25),
        ends=(0, None),
        colored=("p50", "p95", "p99"),
    ),
    Panel(
        "timeseries",
        "Where does L2 spend its time?",
        "Mean time of a call of L2, of an embedding, and of a search in the index. The rest is the "
        "confirmation by the store.",
        [
            Query(mean("cache_latency_seconds", _L2), "L2"),
            Query(mean("cache_embedding_seconds"), "embedding"),
            Query(mean("cache_search_seconds"), "search"),
        ],
        "s",
        "glasscache-stores",
        ends=(0, None),
    ),
    Panel(
        "timeseries",
        "How many embeddings are computed?",
        "Embeddings per second, for lookups and for puts. Duplicates are embedded once.",
        [Query(f"sum({rate(ours('cache_embedding_seconds_count'))})", "embeddings")],
        "ops",
        "glasscache-stores",
        ends=(0, None),
    ),
)

SEMANTIC = Board(
    "glasscache-semantic",
    "glasscache / Semantic",
    "The semantic tier: is the threshold right, do the guards help, are its answers right, and "
    "what does it take.",
    (
        Section("The threshold", [Placed(panel, 12, 9) for panel in SIMILARITY]),
        Section(
            "Are the answers right?",
            [
                Placed(RIGHT[0], 12, 4),
                Placed(RIGHT[1], 6, 4),
                Placed(RIGHT[2], 6, 4),
                *(Placed(panel, 8) for panel in RIGHT[3:]),
                *(Placed(panel, 8) for panel in VERIFYING[:3]),
                *(Placed(panel, 12) for panel in VERIFYING[3:]),
            ],
        ),
        Section("The work", [Placed(panel, 8) for panel in WORK]),
    ),
)
