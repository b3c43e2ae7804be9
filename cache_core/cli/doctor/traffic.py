"""Checks of the running replicas, of the tuning, and of what lookups ended in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cache_core.cli.doctor.finding import Finding
from cache_core.cli.doctor.words import percent, seconds
from cache_core.config.tuning import Tuning
from cache_core.observability.decisions import Decision
from cache_core.observability.fleet import InForce, ReplicaReport

NAMES = ("replicas", "ttls", "threshold", "hit-rate")

FEW = 50
"""Lookups below which a rate says nothing."""

_LONG = 14 * 86_400.0
_LOW, _HIGH = 0.85, 0.985
"""Thresholds of cosine similarity beyond which the default model serves wrong answers, or few."""


def check_traffic(
    in_force: InForce, decisions: Sequence[Decision], *, packaged: bool = True
) -> Iterator[Finding]:
    """Yield the findings on replicas, tuning and hit rate.

    Args:
        in_force: Tuning and replicas.
        decisions: Lookups of the log.
        packaged: Whether the model is the default one: others have other similarities.
    """
    yield _replicas(in_force)
    yield _ttls(in_force)
    yield _threshold(in_force, packaged=packaged)
    yield hit_rate(in_force.tuning, decisions)


def _replicas(in_force: InForce) -> Finding:
    replicas = in_force.replicas
    if not replicas:
        return Finding(
            "replicas", "note", "none is running in this namespace",
            "If an agent runs: --namespace, CACHE_PREFIX, CACHE_KEY, REDIS_URL and CACHE_DIR must "
            "be the agent's, and CACHE_HEARTBEAT not false there.",
        )  # fmt: skip
    broken = sorted({name for item in replicas for name, up in item.works.items() if not up})
    if broken:
        where = ", ".join(item.name for item in replicas if not all(item.works.values()))
        return Finding(
            "replicas", "failure", f"{', '.join(broken)} down on {where}",
            "See the log of those replicas; glasscache stats lists them.",
        )  # fmt: skip
    if in_force.differing:
        return Finding(
            "replicas", "warning",
            f"{len(replicas)} replicas differ in {', '.join(sorted(in_force.differing))}",
            "Start all with the same values, or set them for all: glasscache tune set NAME=VALUE.",
        )  # fmt: skip
    return Finding("replicas", "ok", f"{_counted(replicas)} alive, all backends work")


def _counted(replicas: Sequence[ReplicaReport]) -> str:
    return "1 replica" if len(replicas) == 1 else f"{len(replicas)} replicas"


def _ttls(in_force: InForce) -> Finding:
    tuning, fields = in_force.tuning, ("l1_ttl", "l2_ttl", "l3_ttl", "l4_ttl")
    values = {name: float(getattr(tuning, name)) for name in fields}
    shown = ", ".join(f"{name[:2].upper()} {seconds(value)}" for name, value in values.items())
    long = [name for name in ("l1_ttl", "l2_ttl") if values[name] > _LONG]
    if long:
        return Finding(
            "ttls", "warning", f"{shown}: answers hardly ever expire",
            "Lower them, unless every change of the content invalidates its answers: glasscache "
            f"tune set {' '.join(f'{name}=24h' for name in long)}",
        )  # fmt: skip
    if all(in_force.origins.get(name, "default") == "default" for name in fields):
        return Finding(
            "ttls", "note", f"the defaults: {shown}",
            "Choose them by how fast your content changes: glasscache tune set l1_ttl=1h, or "
            "CACHE_L1_TTL and the like.",
        )  # fmt: skip
    return Finding("ttls", "ok", shown)


def _threshold(in_force: InForce, *, packaged: bool) -> Finding:
    tuning = in_force.tuning
    value = f"{tuning.semantic_threshold:g}"
    if tuning.max_wrong:
        return Finding(
            "threshold", "ok", f"learned, for at most {percent(tuning.max_wrong)} wrong hits"
        )
    try_it = "Try other values on recorded lookups: glasscache dashboard, page Tuning."
    if packaged and tuning.semantic_threshold < _LOW:
        return Finding(
            "threshold", "warning", f"{value} is low: different questions get the same answer",
            f"glasscache tune set semantic_threshold=0.95. {try_it}",
        )  # fmt: skip
    if packaged and tuning.semantic_threshold > _HIGH:
        return Finding(
            "threshold", "warning", f"{value} is high: rephrased questions are rarely so similar",
            f"glasscache tune set semantic_threshold=0.95. {try_it}",
        )  # fmt: skip
    if in_force.origins.get("semantic_threshold", "default") == "default":
        return Finding("threshold", "note", f"the default, {value}", try_it)
    return Finding("threshold", "ok", value)


def hit_rate(tuning: Tuning, decisions: Sequence[Decision]) -> Finding:
    """Return the finding on the hit rate of the decision log."""
    answerable, hits = counted(decisions)
    if answerable < FEW:
        few = f"{answerable:,.0f} lookups are too few: {FEW} are needed"
        return Finding("hit-rate", "skipped", few)
    rate, wanted = hits / answerable, tuning.hit_rate_objective
    found = (
        f"{percent(rate)} of the last {answerable:,.0f} lookups; the objective is {percent(wanted)}"
    )
    if rate >= wanted:
        return Finding("hit-rate", "ok", found)
    return Finding(
        "hit-rate", "warning", found,
        "See all-misses and low-hit-rate for the cause; if the traffic allows no more (glasscache "
        "replay), lower hit_rate_objective.",
    )  # fmt: skip


def counted(decisions: Sequence[Decision]) -> tuple[float, float]:
    """Return the lookups of the log, which has no bypasses, and the hits among them."""
    answerable = sum(item.stands_for for item in decisions)
    hits = sum(item.stands_for for item in decisions if item.outcome == "hit")
    return answerable, hits
