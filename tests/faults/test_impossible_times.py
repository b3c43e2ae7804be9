"""Rows of the store whose time or duration cannot be: no reader takes them, no page or command ends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from typer.testing import CliRunner

from cache_core import MultiLevelCache
from cache_core.backends.base import RowWrite, Write
from cache_core.cli.app import app as glasscache
from cache_core.config import trail
from cache_core.observability import audit, decisions, fleet, verdicts
from cache_core.observability.decisions import Decision
from cache_core.observability.verdicts import Verdict
from cache_core.tiers.semantic import replication
from dashboard.data import figures
from dashboard.data.tail import frame_of
from tests.support.caches import CacheFactory
from tests.support.dashboard import PAGES, Open, agent, open_app

__all__ = ["open_app"]

IMPOSSIBLE = [
    -1, -1e15, 1e15, 253_402_300_800, 253_402_300_799, 1e300, 10**400, float("nan"), float("inf"),
    -float("inf"), True, None, "1", [1], {},
]  # fmt: skip
POSSIBLE = [0, 0.5, 1_800_000_000, 253_402_214_399]


def _decision(at: Any) -> object:
    values = [at, "id", "hit", "l1", "", ["cold"], None, None, 0.95, None, 0.1, 0.0, *"mmu", "", 1]
    return decisions.FORMAT.parse(json.dumps([1, *values]))


def _verdict(at: Any) -> object:
    verdict = Verdict(1.0, "id", "correct", "review", "l2", 0.96, "m", "m", "u", "")
    values = {name: getattr(verdict, name) for name in Verdict.__slots__}
    return verdicts.FORMAT.parse(json.dumps({**values, "at": at}))


def _audited(at: Any) -> object:
    return audit.FORMAT.parse(json.dumps([1, at, "id", "eve", "x", "y", "", 1, True]))


def _heartbeat(at: Any) -> object:
    return fleet.parse(json.dumps({"replica": "a", "at": at}), 0.0)


def _change(at: Any) -> object:
    return trail.parse(1, json.dumps(_trail_row(at)))


def _trail_row(at: Any) -> dict[str, Any]:
    return {
        "format": 1, "version": 1, "at": at, "author": "eve", "note": "", "before": {},
        "after": {"l1_ttl": 60.0}, "reverts": None, "tuned": {"l1_ttl": 60.0},
    }  # fmt: skip


def _fed(at: Any) -> object:
    values = {"kind": "invalidate", "by": "r", "tags": ["t"], "at": at}
    return replication.FORMAT.parse(json.dumps(values))


def _swept(at: Any) -> object:
    values = {"kind": "put", "by": "r", "tags": ["t"], "vector": "", "dropped": at}
    return replication.FORMAT.parse(json.dumps(values))


@pytest.mark.parametrize(
    "parse", [_decision, _verdict, _audited, _heartbeat, _change, _fed, _swept]
)
def test_a_time_without_a_date_is_none(parse: Callable[[Any], object]) -> None:
    """Every parser takes the years 1970 to 9999, and nothing else for a time."""
    assert [at for at in POSSIBLE if parse(at) is None] == []
    assert [at for at in IMPOSSIBLE if parse(at) is not None] == []


def test_no_lookup_took_less_than_no_time() -> None:
    """A decision with a negative latency is none."""
    values = [1, "id", "hit", "l1", "", [], None, None, 0.95, None, -0.1, 0.0, *"mmu", "", 1]
    assert decisions.FORMAT.parse(json.dumps([1, *values])) is None


async def _append_all(cache: MultiLevelCache, at: float) -> None:
    """Write a row with *at* into every log and hash that is shown."""
    keys, store = cache._parts.keys, cache._parts.store
    decision = Decision(
        at, "zz", "miss", "l2", "cold", ("other_scope", "cold"), 0.9, 0.9, 0.95, None, 0.1, 0.0,
        "m", "m", "u", "faq", 1,
    )  # fmt: skip
    rows = {
        "decisions": json.dumps([1, *decision[:17]]),
        "audit": json.dumps([1, at, "id", "eve", "x", "y", "", 1, True]),
        "verdicts": json.dumps({"at": at, "lookup_id": "zz", "verdict": "correct",
                                "source": "review", "level": "l2", "similarity": 0.96,
                                "message": "m", "matched": "m", "user": "u", "intent": ""}),
    }  # fmt: skip
    for name, text in rows.items():
        await store.append(keys.own(name), [text], keep=1_000)
    await store.claim_row(keys.own("tuning"), "1", json.dumps(_trail_row(at)))
    beat = {"replica": "evil", "pid": 1, "at": at, "tuning_version": 10**14, "backends": {"a": 1}}
    await store.put_rows([RowWrite(keys.own("replicas"), {keys.own("replica-evil"): "1"}, 999.0)])
    await store.write([Write(keys.own("replica-evil"), json.dumps(beat), 999.0)])


@pytest.mark.slow
@pytest.mark.parametrize("store_kind", ["embedded"])
@pytest.mark.parametrize("at", [1e15, 253_402_214_399.0], ids=str)
def test_no_page_ends(at: float, open_app: Open, tmp_path: Any, store_kind: str) -> None:
    """Every page is drawn over rows of impossible times, and over those of the last year there is."""
    with agent(tmp_path / "cache", None) as busy:
        busy.traffic(6)
        busy.run(_append_all(busy.cache, at))
        app = open_app("overview")
        for page in PAGES:
            app.switch_page(f"ui/views/{page}.py").run()
            assert [item.value for item in app.exception] == [], page
            assert [item.value for item in app.error if "down on" not in item.value] == [], page


@pytest.mark.parametrize("store_kind", ["embedded"])
@pytest.mark.parametrize("at", [1e15, 253_402_214_399.0], ids=str)
async def test_no_command_ends(at: float, make_cache: CacheFactory) -> None:
    """`tune history`, `tune show` and `stats` end in order over such rows."""
    cache = await make_cache()
    await _append_all(cache, at)
    directory = cache.settings.dir
    await cache.close()
    for command in (["tune", "history"], ["tune", "show"], ["stats"], ["stats", "--json"]):
        done = await asyncio.to_thread(
            CliRunner().invoke, glasscache, [*command, "--dir", str(directory)]
        )
        assert done.exit_code == 0, (command, done.output, done.exception)


def test_what_has_not_happened_yet_is_not_in_the_overview() -> None:
    """A lookup of the next century does not stretch the charts of the last hour."""
    known = decisions.FORMAT.parse(json.dumps([1, *Decision(
        5_000.0, "a", "hit", "l1", "", (), None, None, 0.95, None, 0.1, 0.0, "m", "m", "u", "", 1
    )[:17]]))  # fmt: skip
    assert known is not None
    frame = frame_of([known, known._replace(at=9e10)])
    assert len(figures.window(frame, None, 5_001.0)) == 1
    assert len(figures.window(frame, 60, 5_001.0)) == 1
