"""Malformed records beside the entries: they are ignored, and never raise an exception."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import typer
from rich.table import Table
from rich.text import Text

from cache_core import MultiLevelCache
from cache_core.backends.base import RowWrite, Write
from cache_core.cli.console import fail, out, print_json
from cache_core.cli.stats import _print_stats, as_shown
from cache_core.model.keys import PARTITIONS
from cache_core.observability import audit, decisions, verdicts
from cache_core.observability.audit import AUDIT, AuditLog
from cache_core.observability.decisions import Decision
from cache_core.observability.fleet import REPLICAS, ReplicaReport, agreed, in_force, parse
from cache_core.observability.verdicts import LOG, Verdict
from dashboard.data import figures
from tests.support.caches import CacheFactory
from tests.support.inside import inside

DEEP = "[" * 60_000 + "]" * 60_000
DECISION = Decision(
    1.0, "id", "hit", "l1", "", ("cold",), None, None, 0.95, None, 0.1, 0.0, "m", "m", "u", "", 1
)  # fmt: skip
VERDICT = Verdict(1.0, "id", "correct", "review", "l2", 0.96, "m", "m", "u", "")


def test_a_decision_with_a_value_of_another_type_is_none() -> None:
    """A decision with any field of a wrong type or size parses to `None`."""
    sound = [decisions.VERSION, *DECISION]
    assert decisions.FORMAT.parse(json.dumps(sound)) == DECISION
    for place in range(1, len(sound)):
        broken: list[Any] = [*sound]
        broken[place] = [[]]
        assert decisions.FORMAT.parse(json.dumps(broken)) is None, place
    for place in (1, 9, 11):
        broken = [*sound]
        broken[place] = 10**400
        assert decisions.FORMAT.parse(json.dumps(broken)) is None, place
    assert decisions.FORMAT.parse(DEEP) is None


def test_a_verdict_with_a_value_of_another_type_is_none() -> None:
    """A verdict with any field of a wrong type parses to `None`."""
    sound = {name: getattr(VERDICT, name) for name in Verdict.__slots__}
    assert verdicts.FORMAT.parse(json.dumps(sound)) == VERDICT
    for name in sound:
        assert verdicts.FORMAT.parse(json.dumps({**sound, name: [[]]})) is None, name
    assert verdicts.FORMAT.parse(DEEP) is None


async def test_the_logs_are_read_past_what_is_none_of_theirs(cache: MultiLevelCache) -> None:
    """Garbage in the logs of decisions, verdicts and audit hides no sound record."""
    keys, store = cache._parts.keys, cache._parts.store
    log = AuditLog(store, keys.own(AUDIT))
    made = await log.begin("ann", "look", "x")
    for name in (AUDIT, LOG, "decisions"):
        garbage = [DEEP, json.dumps([1, 1.0, [], "ann", "look", "x"]), '{"verdict": []}', "[[]]"]
        await store.append(keys.own(name), garbage, keep=audit.RECORDS_KEPT)
    assert await log.last(10) == [made]
    assert await cache.decisions() == []
    assert await cache.verdicts() == []
    assert not await cache.feedback("id", correct=True)
    assert (await cache.forget_user("ann")).complete


async def test_a_heartbeat_that_is_none_is_left_out(cache: MultiLevelCache) -> None:
    """Malformed heartbeats, and copies of those of others, are not listed as replicas."""
    keys, store = cache._parts.keys, cache._parts.store
    beat = {"replica": "b", "breakers": {"chroma": "closed"}, "tuning": {}, "counters": {}}
    texts = {
        "a": DEEP,
        "b": json.dumps(beat),
        "c": json.dumps(beat),  # it is that of another
        "d": json.dumps({**beat, "replica": "d", "breakers": 1}),
        "e": json.dumps({**beat, "replica": "e", "at": 10**400}),
    }
    rows = {keys.own(f"replica-{name}"): "1" for name in texts} | {"not a replica": "1"}
    await store.write(
        [Write(keys.own(f"replica-{name}"), text, 60.0) for name, text in texts.items()]
    )
    await store.put_rows([RowWrite(keys.own(REPLICAS), rows, 60.0)])
    assert [item.name for item in await cache.operator.replicas()] == ["b"]
    assert await cache._parts.fleet.somebody_has_l2()


async def test_a_mark_out_of_range_is_no_mark(cache: MultiLevelCache) -> None:
    """A marker with an impossible time is ignored."""
    await cache.put("alpha one", "ann", "alpha one for ann")
    query = cache._parts.keys.query("alpha one", "bob")
    token = (await cache._parts.store.read([cache._parts.keys.generation(query.tag)]))[0]
    name = cache._parts.keys.marker(query)
    for mark in (["x", token, 10**400, None, ""], ["x", token, 9e9, None, {"a": 1}]):
        await cache._parts.store.write([Write(name, json.dumps(mark), 60.0)])
        result = await cache.lookup("alpha one", "bob")
        assert result.outcome == "miss"
        assert "other_scope" not in result.reasons


async def test_an_index_that_names_no_entry_does_not_hold_up_an_invalidation(
    cache: MultiLevelCache,
) -> None:
    """Index rows that name no entry delay no invalidation and delete nothing else."""
    await cache.put("alpha one", "ann", "alpha one for ann")
    keys = cache._parts.keys
    query = keys.query("alpha one", "ann")
    user = query.user or ""
    secret = keys.own("secret")
    for name in (f"garbage {user}", secret, "somebody's: own"):
        rows = [
            RowWrite(keys.index("message", query.tag), {name: "user"}, 60.0),
            RowWrite(keys.index("user", user), {name: query.tag}, 60.0),
            RowWrite(keys.index("writer", user), {name: query.tag}, 60.0),
            RowWrite(keys.own(PARTITIONS + keys.model), {name: f"{user} x"}, 60.0),
        ]
        await cache._parts.store.put_rows(rows)
    rows = [RowWrite(keys.index("user", user), {secret: ""}, 60.0)]
    await cache._parts.store.put_rows(rows)
    await cache.ready()
    kept = await cache._parts.store.read([secret])
    assert (await cache.invalidate("alpha one", user_id="ann", dry_run=True)).complete
    assert (await cache.invalidate("alpha one", user_id="ann")).complete
    assert (await cache.invalidate("alpha one")).complete
    assert (await cache.invalidate_writer("ann", dry_run=True)).complete
    assert (await cache.invalidate_writer("ann")).complete
    await cache._parts.store.put_rows(rows)
    assert (await cache.forget_user("ann")).complete
    assert (await cache.lookup("alpha one", "ann")).response is None
    assert await cache._parts.store.read([secret]) == kept != [None]


@pytest.mark.parametrize("position", ["garbage", "9" * 30, "-1", ""])
async def test_the_feed_begins_anew_where_its_place_was_overwritten(
    make_cache: CacheFactory, position: str
) -> None:
    """A feed whose position was overwritten with garbage begins again, and goes on."""
    cache = await make_cache()
    await cache.ready()
    feed = cache._parts.semantic.feed
    row = {feed.place: position}
    await cache._parts.store.put_rows([RowWrite(cache._parts.keys.own("applied"), row, 60.0)])
    feed._position = None
    told: list[Any] = []
    record = {"kind": "invalidate", "by": "other", "tags": ["t"], "threshold": 1.0}
    broken = [{**record, "tags": ["\ud800"]}, {**record, "kind": "put", "context": "\ud800"}]
    texts = [json.dumps(item) for item in [*broken, record]]
    await cache._parts.store.append(feed._log.name, texts, keep=100)

    async def invalidate(found: Any) -> None:
        told.extend(found.tags)

    await feed.apply(invalidate)
    assert told == ["t"]


HOSTILE = [
    float("nan"), float("inf"), -1, 10**400, 1e300, True, None, "9", "\x1b[2J\x1b]0;owned\x07",
    "\x9b31m", "<script>alert(1)</script>", "\ud800", "a\u202eb", [], [[]], {}, {"a": {}},
]  # fmt: skip
"""Texts that must do no harm, wherever they stand: on a terminal, in a page, in a calculation."""


def _places(value: Any, way: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield way
    if isinstance(value, dict):
        for name, part in value.items():
            yield from _places(part, (*way, name))


def _changed(value: Any, way: tuple[str, ...], told: Any) -> Any:
    """Return *value* with *told* at the end of *way*: as the value, and once more as a name."""
    if not way:
        return told
    first, *rest = way
    return {**value, first: _changed(value.get(first), tuple(rest), told)}


@pytest.mark.slow
@pytest.mark.parametrize("store_kind", ["embedded"])
async def test_a_heartbeat_hurts_nobody_who_looks_at_it(
    cache: MultiLevelCache, store_kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every value of a real one in turn is replaced by all that is hostile, and so is every name.

    It is shown by `glasscache stats`, as a table and as JSON, and calculated with for the pages.
    """
    await cache.lookup("alpha", "ann")
    running = inside(cache)
    await running.housekeeper._beat()
    name = cache._parts.keys.own(f"replica-{cache.replica}")
    [text] = await cache._parts.store.read([name])
    sound = json.loads(text or "")
    assert parse(text or "", 5.0) is not None
    taken: dict[str, ReplicaReport] = {}
    for way in _places(sound):
        for told in HOSTILE:
            beats = [_changed(sound, way, told)]
            if isinstance(told, str):
                beats.append(_changed(sound, (*way[:-1], told), told) if way else told)
            for beat in beats:
                found = parse(json.dumps(beat), 5.0)
                if found is None:
                    continue
                agreed([found])
                figures.tiers([found])
                assert all(name.isalpha() for name in figures.backends([found]))
                taken.setdefault(repr((as_shown(found), found.tuning)), found)
    assert len(taken) > 20
    for found in taken.values():
        in_force([found], cache.tuning, cache.tuning_origins)
        history = {"all": {"lookups": 0}}
        _print_stats({"namespace": "a", "replicas": [as_shown(found)], "history": history})
        print_json(as_shown(found))
    printed = capsys.readouterr().out
    printed.encode()
    assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set(printed)
    assert "<script>" not in printed.replace(json.dumps("<script>alert(1)</script>"), "")


def test_no_text_moves_the_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever stored texts hold reaches the terminal as what can be read, in tables as well."""
    hostile = "a\x1b[2Jb\x1b]0;owned\x07\x9b31m\rc\x08\u202ed\ud800"
    table = Table(hostile)
    table.add_row(hostile)
    for part in (table, hostile, Text(hostile)):
        out.print(part)
    with pytest.raises(typer.Exit):
        fail(hostile)
    shown = "".join(capsys.readouterr())
    print_json({hostile: hostile})
    document = capsys.readouterr().out
    assert json.loads(document) == {hostile: hostile}
    for printed in (shown, document):
        printed.encode()
        assert not {"\x1b", "\x07", "\x9b", "\r", "\x08", "\u202e"} & set(printed)
