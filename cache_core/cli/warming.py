"""Storing of prepared answers, with a summary."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby, islice
from typing import Any, NamedTuple

from rich.progress import track

from cache_core.cli.console import err
from cache_core.cli.prepared import Prepared, contexts
from cache_core.multilevel_cache import MultiLevelCache

_LOOKED_BACK = 1_000


class Stored(NamedTuple):
    """Result of storing answers.

    Attributes:
        number: Number of stored answers.
        puts, reasons: Counts by tier and outcome, and by tier and reason.
        lives: Lifetime in seconds in each tier that has them.
        elsewhere: Number of the *looked_at* recent lookups whose context no answer has.
        looked_at: Number of lookups read from the log.
    """

    number: int
    puts: dict[str, dict[str, int]]
    reasons: dict[str, dict[str, int]]
    lives: dict[str, float]
    elsewhere: int = 0
    looked_at: int = 0

    @property
    def dropped(self) -> int:
        """Number of entries that no backend stored."""
        return sum(counts.get("dropped", 0) for counts in self.puts.values())


async def store(cache: MultiLevelCache, answers: Sequence[Prepared], ttl: float | None) -> Stored:
    """Store answers in order, consecutive ones of one kind together."""
    ticks = iter(
        track(answers, "warming", console=err, transient=True, disable=not err.is_terminal)
    )
    elsewhere, looked_at = await _elsewhere(cache, answers)
    for kind, group in groupby(answers, key=lambda answer: answer.kind):
        await cache.warm_cache(
            [(answer.query, answer.user_id, answer.response) for answer in group],
            context=json.loads(kind.context), intent=kind.intent, tags=kind.tags, ttl=ttl,
            progress=_advance(ticks),
        )  # fmt: skip
    counts = cache.metrics.snapshot()
    await cache.stand_in()
    intent = answers[0].kind.intent
    lives = {
        level: cache.tuning.ttl(level, intent) if ttl is None else ttl
        for level in ("l1", "l2")
        if _kept(counts["puts"].get(level, {}))
    }
    number = max((_kept(counts["puts"].get(level, {})) for level in ("l1", "l2")), default=0)
    return Stored(number, counts["puts"], counts["put_reasons"], lives, elsewhere, looked_at)


def _kept(counts: Mapping[str, int]) -> int:
    """Return the number of responses that a tier stored."""
    return counts.get("stored", 0) + counts.get("queued", 0)


async def _elsewhere(cache: MultiLevelCache, answers: Sequence[Prepared]) -> tuple[int, int]:
    """Return the number of recent lookups with a context that no answer has, and of all."""
    known = {
        await cache.operator.context_digest(json.loads(context)) for context in contexts(answers)
    }
    recent = [decision.context for decision in await cache.decisions(_LOOKED_BACK)]
    asked = [context for context in recent if context]
    return sum(context not in known for context in asked), len(asked)


def _advance(ticks: Iterator[Any]) -> Callable[[int], None]:
    def advance(count: int) -> None:
        for _ in islice(ticks, count):
            pass

    return advance
