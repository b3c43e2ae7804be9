"""Prior belief about the curve of an answer of which nothing is known.

Fitted as `python -m benchmarks.policy TRAFFIC.jsonl --fit` does: the mixture that explains the
neighbours of each answer best (expectation maximisation on labelled neighbours, smoothed by two
answers' worth of the flat prior). Each row is one midpoint, its columns the slopes.
"""

from __future__ import annotations

from cache_core.policy.curve import Belief

_WEIGHTS: tuple[tuple[float, ...], ...] = (
    (0.02859, 0.11633, 0.02234, 0.03297),
    (0.03005, 0.02483, 0.00061, 0.00048),
    (0.07946, 0.02472, 0.00047, 0.00043),
    (0.04271, 0.01966, 0.00045, 0.00034),
    (0.04560, 0.00451, 0.00036, 0.00030),
    (0.12889, 0.03302, 0.00040, 0.00053),
    (0.03675, 0.01268, 0.00058, 0.00851),
    (0.00548, 0.07231, 0.00056, 0.00117),
    (0.06877, 0.00916, 0.00049, 0.00057),
    (0.00266, 0.01868, 0.00051, 0.00071),
    (0.00084, 0.01080, 0.00149, 0.00907),
    (0.00496, 0.00660, 0.00204, 0.03908),
    (0.02299, 0.00047, 0.00087, 0.00211),
    (0.00063, 0.00040, 0.00051, 0.00054),
    (0.00049, 0.00038, 0.00040, 0.00038),
    (0.00048, 0.00036, 0.00035, 0.00032),
    (0.00047, 0.00035, 0.00037, 0.00038),
    (0.00046, 0.00037, 0.00045, 0.00059),
    (0.00044, 0.00039, 0.00049, 0.00058),
    (0.00043, 0.00041, 0.00048, 0.00050),
    (0.00042, 0.00042, 0.00046, 0.00044),
    (0.00042, 0.00043, 0.00044, 0.00043),
    (0.00042, 0.00043, 0.00044, 0.00043),
    (0.00042, 0.00043, 0.00043, 0.00043),
    (0.00042, 0.00043, 0.00043, 0.00043),
)  # fmt: skip
_TOTAL = sum(map(sum, _WEIGHTS))

PRIOR: Belief = tuple(weight / _TOTAL for row in _WEIGHTS for weight in row)
"""Weights of the points of `curve.GRID`."""
