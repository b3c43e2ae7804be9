"""PromQL shared by the dashboards.

All selectors use the dashboards' variables. A ratio's denominator is `> 0`, so that
an empty one gives no line, rather than a division by zero.
"""

from __future__ import annotations

OURS = 'job=~"$job",cache=~"$cache",instance=~"$instance"'
"""Matchers for all metrics of the cache."""

REDIS = 'job=~"$redis_job",instance=~"$redis_instance"'
"""Matchers for all metrics of redis_exporter."""

BY_CACHE = "by (job, cache)"


def ours(metric: str, more: str = "") -> str:
    """Return a selector of a metric of the cache, with *more* matchers."""
    return f"{metric}{{{OURS}{',' if more else ''}{more}}}"


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
_ANSWERABLE = ours("cache_lookups_total", 'outcome!="bypass"')

HIT_RATE = over(f"sum {BY_CACHE} ({rate(_HIT)})", f"sum {BY_CACHE} ({rate(_ANSWERABLE)})")
"""Overall hit rate: from lookups, never from sums over tiers."""

HIT_RATE_SHOWN = over(f"sum {BY_CACHE} ({total(_HIT)})", f"sum {BY_CACHE} ({total(_ANSWERABLE)})")
"""Overall hit rate in the whole time range."""

OBJECTIVE = f"max {BY_CACHE} ({ours('cache_hit_rate_objective')})"

ANSWERABLE = f"sum({rate(_ANSWERABLE)})"
"""Lookups that could be answered, per second."""

_VERIFIED = ours("cache_verdicts_total", 'source="verify"')
_WRONG = ours("cache_verdicts_total", 'source="verify",verdict="wrong"')
VERIFIED_COUNT, WRONG_COUNT = f"sum({total(_VERIFIED)})", f"sum({total(_WRONG)})"
"""Verified semantic hits, and the wrong ones among them, in the time range."""

WRONG_HITS = over(WRONG_COUNT, VERIFIED_COUNT)

THRESHOLD = f"max {BY_CACHE} ({ours('cache_semantic_threshold')})"

FIRING = 'ALERTS{alertstate="firing",alertname=~"Cache.+",severity!="none"}'
"""Alerts of glasscache. Those on Redis have neither a cache nor the agent's job; those of severity
none notify nobody, they only silence others."""

_VERSION = ours("cache_tuning_version")

# two steps wide, because changes() misses what is between two adjacent windows
RETUNED = (
    f'count_values {BY_CACHE} ("version", {_VERSION})'
    f" and on (job, cache) (max {BY_CACHE} (changes({_VERSION}[2m])) > 0)"
)
"""Tuning versions that came into force."""

_BUILD = ours("cache_build_info")
BUILDS = f"count by (job, version) ({_BUILD}) unless count by (job, version) ({_BUILD} offset 2m)"
"""Versions of the library that were absent two minutes ago."""
