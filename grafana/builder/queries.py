"""PromQL shared by the dashboards.

All selectors use the dashboards' variables. A ratio's denominator is `> 0`, so that
an empty one gives no line, rather than a division by zero.
"""

from __future__ import annotations

import re

from telemetry.names import METRICS

WHERE = 'cluster=~"$cluster",namespace=~"$namespace"'
"""Matchers for the environment; without these labels they match, too."""

OURS = f'{WHERE},job=~"$job",cache=~"$cache",instance=~"$instance"'
"""Matchers for all metrics of the cache."""

AGENTS = f'{WHERE},job=~"$job",instance=~"$instance"'
"""Matchers for the metrics of the agents' processes."""

REDIS = 'cluster=~"$cluster",job=~"$redis_job",instance=~"$redis_instance"'
"""Matchers for all metrics of redis_exporter."""

CACHE_LABELS = "cluster, namespace, job, cache"
BY_CACHE = f"by ({CACHE_LABELS})"
ON_CACHE = f"on ({CACHE_LABELS})"
NAMED = "{{cluster}} {{namespace}} {{job}} {{cache}}"
"""Legend of a cache; Grafana shows nothing for a label that is not there."""

_LABELS = {metric.name: metric.labels for metric in METRICS}


def ours(metric: str, more: str = "") -> str:
    """Return a selector of a metric of the cache, with *more* matchers.

    It asks for a label that only our metric of that name has: others have some of the names.
    """
    stem = re.sub(r"_(bucket|sum|count)$", "", metric)
    label = next(iter(_LABELS.get(metric, _LABELS.get(stem, ()))), "")
    if label == "level" and "level" not in more:
        more = f'level=~"l1|l2|l3|l4"{"," if more else ""}{more}'
    elif label and label not in more:
        more = f'{label}!=""{"," if more else ""}{more}'
    return f"{metric}{{{OURS}{',' if more else ''}{more}}}"


def agents(metric: str) -> str:
    """Return a selector of a metric of the agents' processes."""
    return f"{metric}{{{AGENTS}}}"


def redis(metric: str, more: str = "") -> str:
    """Return a selector of a metric of redis_exporter, with *more* matchers."""
    return f"{metric}{{{REDIS}{',' if more else ''}{more}}}"


def rate(selector: str) -> str:
    """Return the rate of a counter, per second."""
    return f"rate({selector}[$__rate_interval])"


def total(selector: str) -> str:
    """Return the increase of a counter in the time range."""
    return f"increase({selector}[$__range])"


def grown(selector: str) -> str:
    """Return the increase of a counter since the previous point."""
    return f"increase({selector}[$__rate_interval])"


def over(part: str, whole: str, *, on: str = "") -> str:
    """Return *part* / *whole*; nothing where *whole* is 0.

    Args:
        part: The numerator.
        whole: The denominator.
        on: Modifier of the division, if the labels differ.
    """
    return f"{part} / {on + ' ' if on else ''}({whole} > 0)"


def quantile(q: float, metric: str, by: str = "", more: str = "") -> str:
    """Return a quantile of a histogram of the cache.

    Args:
        q: Quantile, 0 to 1.
        metric: Name without `_bucket`.
        by: Labels to keep, with a comma after each.
        more: Additional matchers.
    """
    return f"histogram_quantile({q}, sum by ({by}le) ({rate(ours(metric + '_bucket', more))}))"


def percentiles(metric: str, more: str = "") -> list[tuple[str, str]]:
    """Return p50, p95 and p99 of a histogram of the cache, each with its name."""
    named = ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))
    return [(quantile(q, metric, more=more), name) for q, name in named]


def mean(metric: str, more: str = "") -> str:
    """Return the mean of a histogram of the cache."""
    return over(
        f"sum({rate(ours(metric + '_sum', more))})", f"sum({rate(ours(metric + '_count', more))})"
    )


_Z2 = 1.96**2
"""Standard errors of the interval that contains the true share 95 times in 100."""


def wilson(part: str, whole: str, sign: str) -> str:
    """Return an end of the Wilson interval of *part* / *whole*, two counts; nothing without any.

    Formula of E. B. Wilson (1927), as the recording rules have it.

    Args:
        part: The count.
        whole: The total.
        sign: `-` for the lower end, `+` for the upper one.
    """
    spread = f"1.96 * sqrt({part} * ({whole} - {part}) / ({whole} > 0) + {_Z2 / 4:.4f})"
    return f"({part} + {_Z2 / 2:.4f} {sign} {spread}) / ({whole} + {_Z2:.4f})"


_HIT = ours("cache_lookups_total", 'outcome="hit"')
_ANSWERABLE = ours("cache_lookups_total", 'outcome=~"hit|partial|miss|error"')

HIT_RATE = over(f"sum {BY_CACHE} ({rate(_HIT)})", f"sum {BY_CACHE} ({rate(_ANSWERABLE)})")
"""Overall hit rate: from lookups, never from sums over tiers."""

HIT_RATE_SHOWN = over(f"sum {BY_CACHE} ({total(_HIT)})", f"sum {BY_CACHE} ({total(_ANSWERABLE)})")
"""Overall hit rate in the whole time range."""

OBJECTIVE = f"max {BY_CACHE} ({ours('cache_hit_rate_objective')})"

HIT_RATE_OF_ALL = over(f"sum({total(_HIT)})", f"sum({total(_ANSWERABLE)})")
"""Hit rate of all chosen caches together in the whole time range."""

_ERRORS = ours("cache_lookups_total", 'outcome="error"')
AVAILABILITY = 0.999
"""The shipped objective of the alert CacheAvailability."""


def burn_rate(window: str) -> str:
    """Return how many times faster than allowed the error budget is used in *window*."""
    ratio = over(f"sum(rate({_ERRORS}[{window}]))", f"sum(rate({_ANSWERABLE}[{window}]))")
    return f"{ratio} / {1 - AVAILABILITY:.3f}"


BUDGET_LEFT = (
    f"1 - {over(f'sum({total(_ERRORS)})', f'sum({total(_ANSWERABLE)})')} / {1 - AVAILABILITY:.3f}"
)
"""Share of the error budget of the time range that is left; below 0 it is overdrawn."""

_MISSED = "cache_miss_reasons_total"
_BY_REASON = f"sum by ({CACHE_LABELS}, reason)"
_ELSEWHERE = f"""{total(ours(_MISSED, 'level="l1",reason="other_scope"'))}"""
_IN_L2 = f"""{total(ours(_MISSED, 'level="l2"'))}"""
_IN_L1 = f"""{total(ours(_MISSED, 'level="l1"'))}"""
_L2_HITS = f"""{total(ours("cache_hits_total", 'level="l2"'))}"""
UNANSWERED = (
    f"sum by (reason) ({_BY_REASON} ({_ELSEWHERE})"
    f" or {_BY_REASON} ({_IN_L2}) * {ON_CACHE} group_left () clamp_min("
    f"1 - sum {BY_CACHE} ({_ELSEWHERE}) / (sum {BY_CACHE} ({_IN_L2}) > 0), 0)"
    f" or ({_BY_REASON} ({_IN_L1}) unless {ON_CACHE} "
    f"(sum {BY_CACHE} ({_IN_L2}) > 0 or sum {BY_CACHE} ({_L2_HITS}) > 0)))"
)
"""Lookups without a response by their one reason, as the recording rules have it: L1's if another
user had the answer, else L2's; of a cache without L2, L1's."""

ANSWERABLE = f"sum({rate(_ANSWERABLE)})"
"""Lookups that could be answered, per second."""

_RESPONDING = 'level=~"l1|l2"'
_SPARED = (
    f"sum {BY_CACHE} ({total(ours('cache_hits_total', _RESPONDING))})"
    f" + sum {BY_CACHE} ({total(ours('cache_flight_joins_total'))})"
)
CALLS_SPARED = f"sum({_SPARED})"
"""Answers in the time range that nobody had to compute."""

COMPUTED = 'outcome="ok"'
"""Matcher of computations and verifications that did not fail."""

_COMPUTE_TIME = over(
    f"sum {BY_CACHE} ({total(ours('cache_compute_seconds_sum', COMPUTED))})",
    f"sum {BY_CACHE} ({total(ours('cache_compute_seconds_count', COMPUTED))})",
)
TIME_SPARED = f"sum(({_SPARED}) * {_COMPUTE_TIME})"
"""Seconds that those answers would have taken at each cache's mean computation."""

_JUDGED = ours("cache_judged_misses_total", 'verdict=~"right|wrong"')
_WOULD_HIT = ours("cache_judged_misses_total", 'verdict="right"')
MISSED_HITS = over(f"sum({total(_WOULD_HIT)})", f"sum({total(_JUDGED)})")
"""Share of L2's misses with a verdict whose nearest answer would have been right."""

_VERIFIED = ours("cache_verdicts_total", 'source="verify"')
_WRONG = ours("cache_verdicts_total", 'source="verify",verdict="wrong"')
VERIFIED_COUNT, WRONG_COUNT = f"sum({total(_VERIFIED)})", f"sum({total(_WRONG)})"
"""Verified semantic hits, and the wrong ones among them, in the time range."""

WRONG_HITS = over(WRONG_COUNT, VERIFIED_COUNT)

THRESHOLD = f"max {BY_CACHE} ({ours('cache_semantic_threshold')})"

_FIRING = 'ALERTS{alertstate="firing",alertname=~"Cache.+",severity!="none"'
FIRING = (
    f'({_FIRING},{WHERE},job=~"$job",cache=~"$cache"}} or {_FIRING},cluster=~"$cluster",cache=""}})'
)
"""Alerts of glasscache: of the chosen caches, and those without a cache, such as on a Redis server.
Those of severity none notify nobody, they only silence others."""

_SILENCING = (
    'ALERTS{alertstate="firing",alertname=~"CacheRedisDown|CacheBackendRecovering",'
    'backend="redis",severity!="warning"}'
)
_FOLLOWING = (
    "CacheHitRate.+|CacheLatencyHigh|CacheTierErrors|CacheAvailability|CacheTuningDisagrees"
)
NOTIFYING = f'({FIRING} unless ({_FIRING},alertname=~"{_FOLLOWING}"}} and {ON_CACHE} {_SILENCING}))'
"""Firing alerts without those that Alertmanager silences while a cache has lost Redis."""

_VERSION = ours("cache_tuning_version")

# two steps wide, because changes() misses what is between two adjacent windows
RETUNED = (
    f'count_values {BY_CACHE} ("version", {_VERSION})'
    f" and on (cluster, namespace, job, cache) (max {BY_CACHE} (changes({_VERSION}[2m])) > 0)"
)
"""Tuning versions that came into force."""

_BUILD = ours("cache_build_info")
_BY_BUILD = "count by (cluster, namespace, job, version)"
BUILDS = f"{_BY_BUILD} ({_BUILD}) unless {_BY_BUILD} ({_BUILD} offset 2m)"
"""Versions of the library that were absent two minutes ago."""
