"""`glasscache tune shadow`: what the learned policy would have served, before it is turned on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Annotated, Any

import typer

from cache_core.cli.console import counted, out, print_json, run, table
from cache_core.cli.where import AsJson, Directory, Namespace, RedisUrl, opened
from cache_core.config.tuning import Tuning
from cache_core.policy.limits import MAX_WRONG
from cache_core.whatif.shadow import (
    ENOUGH,
    SHARES,
    Judged,
    ShadowEstimate,
    shadows,
    shadows_by_intent,
)

_READ = 100_000
"""Newest decisions that are read."""

_FIGURES = ("hits", "newly", "wrong", "kept", "wrong", "lost")


def shadow(
    max_wrong: Annotated[
        list[float] | None,
        typer.Option(min=0.0, max=MAX_WRONG, help="Share of hits that may be wrong; repeatable."),
    ] = None,
    namespace: Namespace = "default",
    redis_url: RedisUrl = None,
    directory: Directory = None,
    as_document: AsJson = False,
) -> None:
    """Show what the learned policy would have served, before max_wrong turns it on.

    It reads the decision log: each lookup that L2 searched for has the share from which on the
    policy would have served the nearest answer, as it knew it then. Whether that was right is known
    from verdicts, and from the fresh answers that followed the misses.

    [bold]glasscache tune shadow[/bold]
        For several shares.

    [bold]glasscache tune shadow --max-wrong 0.01[/bold]
        For one, and by intent: each may have a max_wrong of its own.
    """
    shares = sorted(set(max_wrong)) if max_wrong else list(SHARES)

    async def work() -> tuple[Tuning, list[ShadowEstimate], dict[str, ShadowEstimate]]:
        async with opened(namespace, redis_url, None, directory, semantic=False) as cache:
            tuning = (await cache.operator.in_force()).tuning
            log = (await cache.decisions(_READ), await cache.verdicts())
            labels = await cache.operator.labels()
            found = shadows(*log, labels, tuning=tuning, shares=shares)
            if len(shares) > 1:
                return tuning, found, {}
            return (
                tuning, found,
                shadows_by_intent(*log, labels, tuning=tuning, max_wrong=shares[0]),
            )  # fmt: skip

    tuning, found, intents = run(work())
    if as_document:
        print_json(
            {
                "namespace": namespace,
                "max_wrong": tuning.max_wrong,
                "shares": [_document(item) for item in found],
                "intents": {name: _document(item) for name, item in intents.items()},
            }
        )
        return
    _show(tuning, found, intents)


def _document(found: ShadowEstimate) -> dict[str, Any]:
    return {**asdict(found), "hit_rate_now": found.hit_rate_now, "hit_rate": found.hit_rate}


def _show(
    tuning: Tuning, found: Sequence[ShadowEstimate], intents: Mapping[str, ShadowEstimate]
) -> None:
    now = found[0]
    if not now.searched:
        out.print(
            "The shadow is not warm: no lookup says yet what the policy would have done. It needs "
            "a decision log and semantic lookups by agents of this version."
        )
        return
    rule = f"max_wrong {tuning.max_wrong:g}" if tuning.max_wrong else "the threshold"
    shown = table(title=f"The learned policy, had it decided; now: {rule}")
    for name in ("max_wrong", *_FIGURES):
        shown.add_column(name, justify="right")
    for item in found:
        shown.add_row(f"{item.max_wrong:g}", *_figures(item))
    out.print(shown, "", sep="\n")
    if intents:
        shown = table("intent", title=f"By intent, at {now.max_wrong:g}")
        for name in ("now", *_FIGURES):
            shown.add_column(name, justify="right")
        for name, item in intents.items():
            shown.add_row(name or "not known", f"{item.hit_rate_now:.1%}", *_figures(item))
        out.print(shown, "", sep="\n")
    out.print(
        f"Now {now.hit_rate_now:.1%} of {counted(now.lookups, 'lookups')} are hits. Of these L2 "
        f"searched for {now.searched + now.unknown:,}, and {now.searched:,} have the figure."
    )
    if not now.enough:
        out.print(f"Too few to rely on: it takes {ENOUGH} with the figure.", style="yellow")
    out.print(
        "wrong: of the answers judged by a verdict, or by the fresh answer that followed a miss. "
        "Where neither tells, the answer is not counted here.",
        style="dim",
    )


def _figures(found: ShadowEstimate) -> tuple[str, ...]:
    return (
        f"{found.hit_rate:.1%}", f"{found.newly.lookups:,}", _wrong(found.newly),
        f"{found.kept.lookups:,}", _wrong(found.kept), f"{found.lost:,}",
    )  # fmt: skip


def _wrong(found: Judged) -> str:
    """Return the judged share that was wrong, with its count."""
    if not found.judged:
        return "no verdicts" if found.lookups else "-"
    return f"{found.wrong:,} of {found.judged:,}"
