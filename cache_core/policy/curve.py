"""Curve of an answer: how likely it is right for a question at a given similarity.

P(right | s) = 1 / (1 + exp(-g (s - t0))), a logistic curve with a midpoint t0 and a slope g. Both
are unknown for a new answer, so a belief is a weight for each pair on a grid. It starts as the
prior, which ships with this package, and each labelled candidate multiplies the weights by its
likelihood: a handful of labels moves the curve of one answer, and an answer without any keeps the
prior's.

The form is that of vCache (Schroeder et al., 2025, arXiv:2502.03771), there for each entry; an
answer has many more questions than an entry has.
"""

from __future__ import annotations

import math
from typing import TypeAlias

MIDPOINTS: tuple[float, ...] = tuple(round(0.60 + 0.02 * step, 2) for step in range(25))
"""Similarities at which an answer is as likely wrong as right; above 1 it is never served."""

SLOPES: tuple[float, ...] = (15.0, 30.0, 60.0, 120.0)
"""Slopes of the curve, per unit of similarity."""

GRID: tuple[tuple[float, float], ...] = tuple((t0, g) for t0 in MIDPOINTS for g in SLOPES)

BINS = 101
"""Number of bins of similarity, 0.00 to 1.00."""

Belief: TypeAlias = tuple[float, ...]
"""Weights of the points of `GRID`; they sum to 1."""

_LEAST = 1e-9
"""Least likelihood of a label: one wrong label must not rule out a curve for ever."""


def _chance(similarity: float, midpoint: float, slope: float) -> float:
    return 1.0 / (1.0 + math.exp(-slope * (similarity - midpoint)))


_RIGHT: tuple[tuple[float, ...], ...] = tuple(
    tuple(_chance(number / (BINS - 1), t0, g) for t0, g in GRID) for number in range(BINS)
)
"""Chance of being right, by bin of similarity and point of the grid."""


def bin_of(similarity: float) -> int:
    """Return the bin of a similarity, rounded down: a little nearer is never assumed."""
    return max(0, min(BINS - 1, int(similarity * (BINS - 1) + 1e-6)))


def chance(belief: Belief, similarity: float) -> float:
    """Return the mean chance, 0 to 1, that the answer is right at *similarity*."""
    return math.fsum(map(float.__mul__, belief, _RIGHT[bin_of(similarity)]))


def flat() -> Belief:
    """Return the belief that holds every curve for equally likely."""
    return (1.0 / len(GRID),) * len(GRID)


def likelihoods(similarity: float, *, right: bool) -> list[float]:
    """Return the likelihood of a label under each curve of the grid."""
    found = _RIGHT[bin_of(similarity)]
    return [max(_LEAST, value if right else 1.0 - value) for value in found]


def learned(belief: Belief, similarity: float, *, right: bool) -> Belief:
    """Return *belief* after one label.

    Args:
        belief: The weights before.
        similarity: Of the question to the candidate whose answer was judged.
        right: Whether that answer was right.
    """
    product = [
        held * value
        for held, value in zip(belief, likelihoods(similarity, right=right), strict=True)
    ]
    total = math.fsum(product)
    return tuple(value / total for value in product)
