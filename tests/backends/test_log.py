"""The typed log, over a store that has the methods of a log and no others."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import pytest

from cache_core.backends.base import Logs
from cache_core.backends.log import PAGE, Log
from cache_core.model.exceptions import BackendError
from cache_core.model.sealing import Sealer
from cache_core.model.stored import Flag, Format, Moment, Number, Plain, Share, Whole

KEY = base64.b64encode(b"k" * 32).decode("ascii")


class Listed(NamedTuple):
    """A record that is stored as a list."""

    at: Moment
    id: str
    text: str = ""
    share: Share | None = None


@dataclass(frozen=True, slots=True)
class Named:
    """A record that is stored as an object."""

    id: Plain
    tags: Sequence[Plain] = ()
    number: Number = 0.0
    whole: Whole = 0
    flag: Flag = True
    text: str = ""


LISTED = Format(Listed, (2, 1))
NAMED = Format(Named)


class FakeLogs:
    """One log in memory."""

    def __init__(self) -> None:
        self.rows: dict[str, str] = {}
        self.written = 0
        self.fails: BackendError | None = None

    def now(self) -> float:
        return 0.0

    async def append(self, log: str, values: Sequence[str], *, keep: int) -> None:
        for value in values:
            self.written += 1
            self.rows[f"{self.written:06}"] = value

    async def after(self, log: str, position: str, count: int) -> list[tuple[str, str]]:
        return [item for item in self.rows.items() if item[0] > position][:count]

    async def last(self, log: str, count: int) -> list[tuple[str, str]]:
        return [*self.rows.items()][-count:]

    async def remove(self, log: str, positions: Sequence[str]) -> None:
        if self.fails is not None:
            raise self.fails
        for position in positions:
            self.rows.pop(position, None)


def log_of(store: Logs, *, name: str = "log", key: str = KEY) -> Log[Listed]:
    return Log(store, name, LISTED, 100, sealed=("text",), bound_to="id", sealer=Sealer([key]))


async def test_records_come_back_as_they_were() -> None:
    """A named tuple is a compact list with its version, a dataclass an object with all its fields."""
    store = FakeLogs()
    listed, named = Listed(1.5, "a", "x"), Named("b", ["t"], 2.0, 3, flag=False, text="\ud800 é")
    await Log(store, "log", LISTED, 100).append([listed])
    assert [*store.rows.values()] == ['[2,1.5,"a","x",null]']
    assert await Log(store, "log", LISTED, 100).last(10) == [listed]
    await Log(store, "log", NAMED, 100).append([named])
    assert json.loads(store.rows["000002"]) == {
        "id": "b", "tags": ["t"], "number": 2.0, "whole": 3, "flag": False, "text": "\ud800 é",
    }  # fmt: skip
    # Each of the two reads past the other's row.
    assert await Log(store, "log", NAMED, 100).last(10) == [named]


@pytest.mark.parametrize(
    "values",
    [
        [3, 1.0, "a"], [2, 1.0], [2], [], [2, 1.0, "a", "", 0.5, 1], [2, -1, "a"], [2, True, "a"],
        [2, "1", "a"], [2, 1.0, 5], [2, 1.0, "a", None], [2, 1.0, "a", "", 1.5],
        [2, 10**400, "a"], [2, float("nan"), "a"], [[2], 1.0, "a"], {"at": 1.0, "id": "a"}, "2a", 5,
    ],
    ids=repr,
)  # fmt: skip
def test_lists_that_are_no_record(values: Any) -> None:
    """Another version, a field too many or too few, or a value of another type or range."""
    assert LISTED.parse(json.dumps(values)) is None


@pytest.mark.parametrize(
    "fields",
    [
        {"id": 1}, {"id": "é"}, {"id": "\ud800"}, {"tags": "abc"}, {"tags": [1]}, {"tags": ["é"]},
        {"tags": {"a": 1}}, {"number": "1"}, {"number": True}, {"number": 1e16}, {"whole": 1.0},
        {"whole": "1"}, {"whole": True}, {"flag": 1}, {"flag": "true"}, {"text": ["a"]},
        {"more": 1},
    ],
    ids=repr,
)  # fmt: skip
def test_objects_that_are_no_record(fields: dict[str, Any]) -> None:
    """No value is converted, and no field is unknown."""
    assert NAMED.parse(json.dumps({"id": "a"})) == Named("a")
    assert NAMED.parse(json.dumps({"id": "a", **fields})) is None


@pytest.mark.parametrize("text", ["", "[", "[" * 60_000 + "]" * 60_000, "1" * 5_000, "null"])
def test_texts_that_are_no_record(text: str) -> None:
    """A text that is no record of the format parses to `None`."""
    assert LISTED.parse(text) is None
    assert NAMED.parse(text) is None


def test_older_versions_lack_fields_at_the_end() -> None:
    """A record of an older version gets the defaults of the fields that it lacks."""
    assert LISTED.parse('[1,1.0,"a"]') == Listed(1.0, "a")


async def test_a_sealed_field_opens_in_its_record_only() -> None:
    """Moved into another record, or opened with another key, it is empty; the rest is readable."""
    store = FakeLogs()
    await log_of(store).append([Listed(1.0, "a", "secret"), Listed(2.0, "b")])
    assert "secret" not in store.rows["000001"]
    assert await log_of(store).last(10) == [Listed(1.0, "a", "secret"), Listed(2.0, "b")]
    other = base64.b64encode(b"o" * 32).decode("ascii")
    assert (await log_of(store, key=other).last(10))[0] == Listed(1.0, "a")
    store.rows["000001"] = store.rows["000001"].replace('"a"', '"c"')
    assert (await log_of(store).last(10))[0] == Listed(1.0, "c")


async def test_a_sealed_field_opens_in_its_log_only() -> None:
    """A sealed field copied to another log reads as empty."""
    store = FakeLogs()

    def log(name: str) -> Log[Named]:
        return Log(store, name, NAMED, 100, sealed=("text",), sealer=Sealer([KEY]))

    await log("log").append([Named("a", text="secret")])
    assert [item.text for item in await log("log").last(10)] == ["secret"]
    assert [item.text for item in await log("other").last(10)] == [""]


async def test_invalid_rows_are_not_the_end_of_a_log() -> None:
    """Each row has its position, also where it holds no record."""
    store = FakeLogs()
    log = Log(store, "log", LISTED, 100)
    await log.append([Listed(1.0, "a")])
    await store.append("log", ["garbage"], keep=100)
    assert await log.since("", 5) == [("000001", Listed(1.0, "a")), ("000002", None)]
    assert await log.since("000002") == []


async def test_rewriting_changes_removes_and_keeps() -> None:
    """In every page: what was sealed still opens, and what holds no record stays as it is."""
    store = FakeLogs()
    log = log_of(store)
    await log.append([Listed(float(number), f"{number % 3}", "x") for number in range(3 * PAGE)])
    await store.append("log", ["garbage"], keep=100)

    def change(item: Listed) -> Listed | None:
        if item.id == "0":
            return None
        return item._replace(share=0.5) if item.id == "1" and item.share is None else item

    assert await log.rewrite(change) == PAGE
    left = await log.last(10_000)
    assert sorted(item.at for item in left) == [number for number in range(3 * PAGE) if number % 3]
    assert {(item.id, item.share, item.text) for item in left} == {
        ("1", 0.5, "x"),
        ("2", None, "x"),
    }
    assert "garbage" in store.rows.values()
    assert await log.remove_where(lambda item: item.share is not None) == PAGE
    assert await log.remove_where(lambda item: True, containing='"3"') == 0
    assert {item.id for item in await log.last(10_000)} == {"2"}


async def test_what_fails_between_is_there_twice() -> None:
    """A record is appended in its new form before the old one goes: it is never lost."""
    store = FakeLogs()
    log = Log(store, "log", NAMED, 100)
    await log.append([Named("a")])
    store.fails = BackendError("timeout")
    with pytest.raises(BackendError):
        await log.rewrite(lambda item: replace(item, id="b"))
    assert [item.id for item in await log.last(10)] == ["a", "b"]
