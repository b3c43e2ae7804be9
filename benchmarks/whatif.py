"""Accuracy of what-if: predictions against real replays, and its promise on other traffic.

Traffic with known answers goes through a real cache at the default threshold, and the decision log
is recorded. From that log alone the hit rates at other thresholds are predicted; then the traffic
really goes through fresh caches at those thresholds.

The recommendation is computed from the first half of the traffic, and only from verdicts on one
half of the users. Its promise, a limit on wrong hits, is compared with a real replay at
the recommended threshold: against the second half of the traffic, and within it against the other
half of the users.

What the learned policy would have served is read from the same log, and compared with caches that
it decides in.

Verdicts are drawn realistically: half are a random sample of the semantic hits, as by `verify`;
half are reviews of pairs a little below the threshold, which got no answer.

    python -m benchmarks.whatif --demo --rows 3000     the demo's own traffic, a few minutes
    python -m benchmarks.whatif                        ../shared/data/traffic.jsonl, half an hour
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from cache_core.backends.embedder.choosing import make_embedder
from cache_core.backends.embedder.pool import ThreadEmbedder
from cache_core.cli.demo.shop import load_knowledge
from cache_core.cli.demo.traffic import Traffic
from cache_core.cli.files.requests import read_rows
from cache_core.config.tuning import Tuning
from cache_core.model.values import LookupResult
from cache_core.observability.decisions import Decision
from cache_core.observability.verdicts import Verdict
from cache_core.whatif import Recommendation, recommend, shadows, thresholds
from cache_core.whatif.replay import Report, Serving, TrafficRow, replay

THRESHOLDS = (0.85, 0.90, 0.97)
SHARES = (0.005, 0.01, 0.05)
"""Shares of wrong hits at which the policy is tried."""

MOST_POINTS = 3.0
"""Largest permitted error of a predicted hit rate, in percentage points."""

_DATA = Path(__file__).parents[2] / "shared" / "data" / "traffic.jsonl"
_BELOW = 0.1
"""Largest distance below the threshold of a reviewed pair."""

_LOG = 100_000
_FEWER = (250, 500, 1_000, 2_000, 4_000)
"""Numbers of verdicts to try, to find how many a recommendation needs."""

console = Console(stderr=True)


@dataclass(frozen=True, slots=True)
class Recorded:
    """Replayed row, its decision, and whether its answer was, or would have been, right."""

    row: TrafficRow
    decision: Decision
    right: bool | None


def demo_rows(count: int) -> list[TrafficRow]:
    """Return the demo's traffic, one request every ten seconds."""
    requests = itertools.islice(Traffic(load_knowledge(), seed=7), count)
    return [
        TrafficRow(
            message=item.message,
            user_id=item.user_id,
            answer_id=item.answer_id,
            private=item.private,
            history=item.history,
            intent=item.intent,
            t=number * 10.0,
        )
        for number, item in enumerate(requests)
    ]


async def record(
    rows: Sequence[TrafficRow], serving: Serving, embedder: ThreadEmbedder, bar: Progress
) -> tuple[Report, list[Recorded]]:
    """Return the actual result of the traffic under a rule."""
    answers: list[tuple[TrafficRow, LookupResult]] = []
    rule = serving.max_wrong if serving.policy == "learned" else serving.threshold
    task = bar.add_task(f"replaying {serving.policy} at {rule:g}", total=len(rows))

    def watch(row: TrafficRow, result: LookupResult) -> None:
        answers.append((row, result))
        bar.advance(task)

    report = await replay(
        rows,
        scope="private-flag",
        clock="rows",
        embedder=embedder,
        serving=serving,
        decisions=2 * len(rows),
        watch=watch,
    )
    by_id = {item.lookup_id: item for item in report.decisions}
    stored: dict[tuple[str, str], str | None] = {}
    found: list[Recorded] = []
    for row, result in answers:
        decision = by_id.get(result.lookup_id)
        if decision is None:
            continue
        owner = decision.user if decision.scope == "user" else ""
        right: bool | None = None
        if result.response is not None:
            right = json.loads(result.response)["answer_id"] == row.answer_id
        elif (decision.matched, owner) in stored:
            right = stored[decision.matched, owner] == row.answer_id
        found.append(Recorded(row, decision, right))
        if result.response is None and not row.history:
            stored[decision.message, decision.user if row.private else ""] = row.answer_id
    return report, found


def draw(recorded: Sequence[Recorded], count: int, threshold: float, seed: int) -> list[Verdict]:
    """Return *count* verdicts: half on random semantic hits, half on pairs below the threshold."""
    near = [
        item
        for item in recorded
        if item.right is not None
        and item.decision.level != "l1"
        and item.decision.matched != item.decision.message
        and (item.decision.unvetoed or 0.0) >= threshold - _BELOW
    ]
    hits = [item for item in near if item.decision.outcome == "hit"]
    others = [item for item in near if item.decision.outcome != "hit"]
    random = Random(seed)
    verified = random.sample(hits, min(len(hits), count // 2))
    reviewed = random.sample(others, min(len(others), count - len(verified)))
    return [
        Verdict(
            at=item.decision.at,
            lookup_id=item.decision.lookup_id,
            verdict="correct" if item.right else "wrong",
            source="verify" if item.decision.outcome == "hit" else "review",
            level=item.decision.level,
            similarity=item.decision.unvetoed,
            message=item.decision.message,
            matched=item.decision.matched,
            user=item.decision.user,
            intent=item.decision.intent,
            threshold=item.decision.threshold,
            tuning_version=item.decision.tuning_version,
        )
        for item in (*verified, *reviewed)
    ]


def advise(
    recorded: Sequence[Recorded], verdicts: int, limit: float, tuning: Tuning, seed: int
) -> tuple[list[Verdict], Recommendation]:
    """Return verdicts on half of the users in the first half of the log, and the recommendation."""
    first = recorded[: len(recorded) // 2]
    judged = [item for item in first if _half(item.row)]
    drawn = draw(judged, verdicts, tuning.semantic_threshold, seed)
    decisions = [item.decision for item in first]
    return drawn, recommend(decisions, drawn, tuning=tuning, max_wrong_share=limit)


def _half(row: TrafficRow) -> bool:
    """Return whether a row's user is in the half whose verdicts are used."""
    return sum((row.user_id or "").encode()) % 2 == 0


def wrong(recorded: Sequence[Recorded]) -> dict[str, Any]:
    """Return the hits, the wrong ones, and their share."""
    hits = [item for item in recorded if item.decision.outcome == "hit" and item.right is not None]
    bad = sum(not item.right for item in hits)
    return {
        "lookups": len(recorded),
        "hits": len(hits),
        "wrong": bad,
        "wrong_share": round(bad / len(hits), 5) if hits else None,
    }


def time_thresholds(decisions: Sequence[Decision], verdicts: Sequence[Verdict]) -> float:
    """Return the seconds that `thresholds` takes for 100,000 lookups: these, repeated."""
    span = decisions[-1].at - decisions[0].at + 1.0
    log: list[Decision] = []
    for lap in itertools.count():
        log += [item._replace(at=item.at + lap * span) for item in decisions]
        if len(log) >= _LOG:
            break
    started = time.perf_counter()
    thresholds(log[:_LOG], verdicts, tuning=Tuning())
    return time.perf_counter() - started


async def measure(
    rows: Sequence[TrafficRow], verdicts: int, limit: float, seed: int, bar: Progress
) -> dict[str, Any]:
    """Return all figures."""
    tuning = Tuning()
    embedder = make_embedder()
    await embedder.wait_ready()
    texts = sorted({row.message for row in rows if not row.history and embedder.fits(row.message)})
    task = bar.add_task("embedding the messages", total=len(texts))
    await embedder.embed_all(texts, lambda done: bar.advance(task, done))
    now = Serving(threshold=tuning.semantic_threshold)
    report, recorded = await record(rows, now, embedder, bar)
    estimates = {item.threshold: item for item in thresholds(report.decisions, [], tuning=tuning)}
    drawn, advice = advise(recorded, verdicts, limit, tuning, seed)
    real = {tuning.semantic_threshold: (report, recorded)}
    wanted = {*THRESHOLDS, *([advice.threshold] if advice.threshold is not None else [])}
    for value in sorted(wanted - real.keys()):
        real[value] = await record(rows, Serving(threshold=value), embedder, bar)
    policies = [await _policy(rows, share, report, embedder, bar) for share in SHARES]
    embedder.close()
    predictions = [
        {
            "threshold": value,
            "predicted": round(estimates[value].hit_rate, 4),
            "real": round(real[value][0].hit_rate, 4),
            "points": round(100 * (estimates[value].hit_rate - real[value][0].hit_rate), 2),
            "predicted_usd": round(estimates[value].saved_usd, 2),
            "real_usd": round(real[value][0].metrics["cost_savings_usd"], 2),
        }
        for value in sorted({*THRESHOLDS, tuning.semantic_threshold})
    ]
    return {
        "rows": len(rows),
        "predictions": predictions,
        "policies": policies,
        "within": all(abs(item["points"]) <= MOST_POINTS for item in [*predictions, *policies]),
        "promise": _promise(advice, drawn, limit, real),
        "by_verdicts": [_with_fewer(recorded, count, limit, tuning, seed) for count in _FEWER],
        "thresholds_100000_seconds": round(time_thresholds(report.decisions, drawn), 3),
    }


async def _policy(
    rows: Sequence[TrafficRow],
    share: float,
    recorded: Report,
    embedder: ThreadEmbedder,
    bar: Progress,
) -> dict[str, Any]:
    """Return what the log said of the policy at a share, and what the policy really did."""
    (shadow,) = shadows(
        recorded.decisions, [], recorded.labels, tuning=Tuning(), shares=[share]
    )  # fmt: skip
    report, _ = await record(rows, Serving("learned", max_wrong=share), embedder, bar)
    return {
        "max_wrong": share,
        "predicted": round(shadow.hit_rate, 4),
        "real": round(report.hit_rate, 4),
        "points": round(100 * (shadow.hit_rate - report.hit_rate), 2),
        "searched": shadow.searched,
        "unknown": shadow.unknown,
        "newly": asdict(shadow.newly),
        "expected_wrong": shadow.expected_wrong,
        "real_wrong_share": report.wrong_share,
    }


def _with_fewer(
    recorded: Sequence[Recorded], count: int, limit: float, tuning: Tuning, seed: int
) -> dict[str, Any]:
    drawn, advice = advise(recorded, count, limit, tuning, seed)
    estimate = advice.estimate
    return {
        "verdicts": len(drawn),
        "recommended": advice.threshold,
        "wrong_high": None if estimate is None else round(estimate.wrong_high or 0.0, 5),
        "evidence": 0 if estimate is None else estimate.evidence,
    }


def _promise(
    advice: Recommendation,
    drawn: Sequence[Verdict],
    limit: float,
    real: dict[float, tuple[Report, list[Recorded]]],
) -> dict[str, Any]:
    found: dict[str, Any] = {
        "limit": limit,
        "verdicts": len(drawn),
        "verdicts_wrong": sum(not item.correct for item in drawn),
        "current": asdict(advice.current),
        "recommended": advice.threshold,
        "estimate": None if advice.estimate is None else asdict(advice.estimate),
        "reasons": advice.reasons,
        "kept": None,
    }
    if advice.threshold is None:
        return found
    recorded = real[advice.threshold][1]
    later = recorded[len(recorded) // 2 :]
    found["later"] = wrong(later)
    found["later_other_users"] = wrong([item for item in later if not _half(item.row)])
    found["kept"] = all(
        (found[part]["wrong_share"] or 0.0) <= limit for part in ("later", "later_other_users")
    )
    return found


def show(found: dict[str, Any]) -> None:
    """Print the figures for people."""
    out = Console()
    table = Table(title=f"Hit rate of {found['rows']:,} requests, predicted from the log at 0.95",
                  title_justify="left")  # fmt: skip
    for name in ("threshold", "predicted", "real", "points", "predicted USD", "real USD"):
        table.add_column(name, justify="right")
    for item in found["predictions"]:
        table.add_row(
            f"{item['threshold']:.2f}", f"{item['predicted']:.2%}", f"{item['real']:.2%}",
            f"{item['points']:+.2f}", f"{item['predicted_usd']:.2f}", f"{item['real_usd']:.2f}",
        )  # fmt: skip
    out.print(table)
    out.print(
        "Below 0.95 the log shows the nearest neighbour only: where that would not have been "
        "stored, the similarity to what stands for it is estimated. Above, questions are stored "
        "that the log has no neighbours of: too few hits are predicted."
    )
    shown = Table(title="The learned policy, read from the same log", title_justify="left")
    for name in ("max_wrong", "predicted", "real", "points", "newly", "judged wrong", "wrong"):
        shown.add_column(name, justify="right")
    for item in found["policies"]:
        newly = item["newly"]
        shown.add_row(
            f"{item['max_wrong']:g}", f"{item['predicted']:.2%}", f"{item['real']:.2%}",
            f"{item['points']:+.2f}", f"{newly['lookups']:,}",
            f"{newly['wrong']:,} of {newly['judged']:,}", f"{item['real_wrong_share'] or 0:.2%}",
        )  # fmt: skip
    out.print(shown)
    promise = found["promise"]
    out.print(
        f"\nAt most {promise['limit']:.1%} wrong, by {promise['verdicts']:,} verdicts "
        f"({promise['verdicts_wrong']:,} wrong): {promise['recommended'] or 'no recommendation'}"
    )
    for reason in promise["reasons"]:
        out.print(f"  {reason}")
    for part in ("later", "later_other_users"):
        if part in promise:
            out.print(f"  really, {part.replace('_', ' ')}: {promise[part]}")
    out.print(f"kept: {promise['kept']}")
    for item in found["by_verdicts"]:
        out.print(f"  with {item['verdicts']:,} verdicts: {item['recommended']}", style="dim")
    out.print(f"thresholds() of 100,000 lookups: {found['thresholds_100000_seconds']:.2f} s")


@contextlib.contextmanager
def _bars(*, hidden: bool) -> Iterator[Progress]:
    with Progress(
        TextColumn("{task.description:24}"), BarColumn(), MofNCompleteColumn(),
        TimeRemainingColumn(), console=console, disable=hidden, transient=True,
    ) as bar:  # fmt: skip
        yield bar


def main() -> None:
    """Read the arguments, measure, print; exit 1 if a prediction or the promise was wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=_DATA, help="traffic with answer_id")
    parser.add_argument("--demo", action="store_true", help="the demo's own traffic instead")
    parser.add_argument("--rows", type=int, default=20_000, help="only so many, from the first")
    parser.add_argument("--verdicts", type=int, default=2_500)
    parser.add_argument("--limit", type=float, default=0.01, help="wrong hits of the hits, 0..1")
    parser.add_argument("--seed", type=int, default=1, help="which verdicts are drawn")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    if not chosen.demo and not chosen.data.is_file():
        sys.exit(f"{chosen.data} is not here; --demo needs no file")
    rows = demo_rows(chosen.rows) if chosen.demo else read_rows(chosen.data, chosen.rows)
    with _bars(hidden=chosen.json and not console.is_terminal) as bar:
        found = asyncio.run(measure(rows, chosen.verdicts, chosen.limit, chosen.seed, bar))
    if chosen.json:
        print(json.dumps(found, indent=2))
    else:
        show(found)
    sys.exit(0 if found["within"] and found["promise"]["kept"] is not False else 1)


if __name__ == "__main__":
    main()
