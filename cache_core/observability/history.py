"""History in the store: sums of all replicas by hour, and of earlier days by day.

Each replica writes rows of its own, whole, so that writing one again changes nothing. An hour after
their hour one replica merges the rows of all, and after a week the hours of each day.
"""

from __future__ import annotations

import logging
import secrets
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple, Protocol

from cache_core.backends.base import Hashes, Leases, RowWrite, Timed
from cache_core.model.batches import batched
from cache_core.model.keys import Keys
from cache_core.model.logs import RateLimited
from cache_core.observability.hours import HOUR, Hours
from cache_core.observability.sums import FORMAT, NONE, StoredSums, Sums, added, lean

log = RateLimited(logging.getLogger("glasscache"), longest=3600.0)

HISTORY = "history"
"""Name of the hash of merged hours and days."""

LIVE = "history-live"
"""Name of the hash of rows that are not merged yet."""

DAY = 24 * HOUR
KEPT_DAYS = 90
HOURLY_DAYS = 7
"""Days, before today, whose hours are kept apart."""

_KEPT_SECONDS = (KEPT_DAYS + 1.0) * DAY
_MERGED_AFTER = HOUR
"""Seconds after its hour at which a row is merged: its replica has stopped writing it long ago."""

_LIVE_ROWS = 4_096
"""Rows that wait to be merged: one per process and hour. The oldest ones over it are lost."""

_TOGETHER = 200
_DAYS_TOGETHER = 30
_LEASE_SECONDS = 50.0

By = Literal["hour", "day"]


class Period(NamedTuple):
    """Sums of all replicas for an hour, or a day of UTC.

    Attributes:
        start: Its beginning, seconds since the epoch.
        seconds: Its length: 3,600 or 86,400.
        sums: What was counted.
    """

    start: int
    seconds: int
    sums: Sums

    @property
    def end(self) -> int:
        """Its end, seconds since the epoch."""
        return self.start + self.seconds


class Store(Hashes, Leases, Timed, Protocol):
    """The part of a store that the history needs."""


class History:
    """History of a namespace. Every coroutine raises `BackendError` if the store is unavailable.

    Args:
        store: Store of the rows.
        keys: Names of the rows.
    """

    def __init__(self, store: Store, keys: Keys) -> None:
        self._store = store
        self._merged, self._live = keys.own(HISTORY), keys.own(LIVE)
        self._lease = keys.own("history-merging")

    # ------------------------------------------------------------------------------ write

    async def write(self, hours: Hours, price_usd: float) -> None:
        """Write what this process counted and the store lacks.

        Args:
            hours: Its sums.
            price_usd: Price of an answer without one of its own.
        """
        now = self._store.now()
        hours.take(now, price_usd)
        with hours.writing(now) as sums:
            rows = {name: FORMAT.text(StoredSums(lean(item))) for name, item in sums.items()}
            if rows:
                await self._store.put_rows(
                    [RowWrite(self._live, rows, _KEPT_SECONDS, newest=_LIVE_ROWS)]
                )

    async def merge(self) -> None:
        """Merge the rows of hours, and of days, that are over; one replica does it at a time."""
        token = secrets.token_hex(8)
        if await self._store.take_lease(self._lease, token, _LEASE_SECONDS) != token:
            return
        now = self._store.now()
        await self._merge_rows(now)
        await self._merge_hours(now)

    async def _merge_rows(self, now: float) -> None:
        """Merge the rows of replicas by hour."""
        names: defaultdict[int, list[str]] = defaultdict(list)
        for name in await self._store.row_names(self._live):
            start = _start_of(name)
            if start is not None and start + HOUR + _MERGED_AFTER <= now:
                names[start].append(name)
        for start, of_hour in sorted(names.items()):
            await self._merge_hour(start, sorted(of_hour))

    async def _merge_hour(self, start: int, names: Sequence[str]) -> None:
        day, hour = _day(start), _hour(start)
        by_day, by_hour = await self._store.some_rows(self._merged, [day, hour])
        target, text = (hour, by_hour) if by_day is None else (day, by_day)
        merged = StoredSums(NONE) if text is None else _parsed(text)
        if merged is None:
            return
        # Those that are in the sum already are left from a merge that broke off. They are deleted
        # before the names of others replace theirs.
        await self._store.delete_rows(self._live, [n for n in names if n in merged.writers])
        left = [name for name in names if name not in merged.writers]
        for batch in batched(left, _TOGETHER):
            texts = await self._store.some_rows(self._live, batch)
            new = {
                name: found.sums
                for name, text in zip(batch, texts, strict=True)
                if text is not None and (found := _parsed(text)) is not None
            }
            if new:
                merged = StoredSums(lean(added([merged.sums, *new.values()])), tuple(new))
                await self._put(target, merged)
                await self._store.delete_rows(self._live, list(new))

    async def _merge_hours(self, now: float) -> None:
        """Merge the hours of days."""
        names: defaultdict[int, list[str]] = defaultdict(list)
        for name in await self._store.row_names(self._merged):
            start = _start_of(name[1:]) if name[:1] == "h" else None
            if start is not None:
                day = start // DAY * DAY
                if day + DAY + HOURLY_DAYS * DAY <= now:
                    names[day].append(name)
        for day, of_day in sorted(names.items()):
            (whole, *texts) = await self._store.some_rows(self._merged, [_day(day), *of_day])
            if whole is None:
                # Once the day is there, its hours are left from a merge that broke off.
                found = [
                    _parsed(text)
                    for name, text in zip(of_day, texts, strict=True)
                    if text is not None
                ]
                if None in found:
                    continue
                sums = added(item.sums for item in found if item is not None)
                await self._put(_day(day), StoredSums(lean(sums)))
            await self._store.delete_rows(self._merged, of_day)

    async def _put(self, name: str, merged: StoredSums) -> None:
        rows = {name: FORMAT.text(merged)}
        await self._store.put_rows([RowWrite(self._merged, rows, _KEPT_SECONDS)])

    # ------------------------------------------------------------------------------ read

    async def periods(self, since: float, until: float, by: By = "hour") -> list[Period]:
        """Return what was counted from *since* to *until*, oldest first, without empty periods.

        Args:
            since: Seconds since the epoch; the hour that it is in counts whole.
            until: The same; not included.
            by: With `hour` days before the last `HOURLY_DAYS` are whole, too.
        """
        now = self._store.now()
        first = int(max(since, now - _KEPT_SECONDS) // HOUR) * HOUR
        end = min(until, now + DAY)
        # Before what is merged: a row that is merged in between is in both, and named there.
        live = await self._store.rows(self._live)
        hours = range(first, int(-(-end // HOUR)) * HOUR, HOUR)
        days = range(first // DAY * DAY, int(-(-end // DAY)) * DAY, DAY)
        merged: dict[str, StoredSums] = {}
        for some in batched(days, _DAYS_TOGETHER):
            names = [name for day in some for name in (_day(day), *map(_hour, _hours_of(day)))]
            texts = await self._store.some_rows(self._merged, names)
            for name, text in zip(names, texts, strict=True):
                if text is not None and (found := _parsed(text)) is not None:
                    merged[name] = found
        return _periods(hours, merged, _live(live), by)


def _periods(
    hours: Sequence[int],
    merged: Mapping[str, StoredSums],
    live: Mapping[int, Mapping[str, Sums]],
    by: By,
) -> list[Period]:
    found: defaultdict[tuple[int, int], list[Sums]] = defaultdict(list)
    for hour in hours:
        day = hour // DAY * DAY
        whole = merged.get(_day(day))
        target = merged.get(_hour(hour)) if whole is None else whole
        rows = live.get(hour, {})
        writers = () if target is None else target.writers
        sums = [item for name, item in rows.items() if name not in writers]
        if whole is not None:
            if not found[day, DAY]:
                sums.append(whole.sums)
            found[day, DAY] += sums
            continue
        if target is not None:
            sums.append(target.sums)
        found[(day, DAY) if by == "day" else (hour, HOUR)] += sums
    return [Period(*key, lean(added(sums))) for key, sums in sorted(found.items()) if sums]


def _live(rows: Mapping[str, str]) -> Mapping[int, Mapping[str, Sums]]:
    """Return the rows of replicas by hour and name."""
    found: defaultdict[int, dict[str, Sums]] = defaultdict(dict)
    for name, text in rows.items():
        start, stored = _start_of(name), _parsed(text)
        if start is not None and stored is not None:
            found[start][name] = stored.sums
    return found


def total(periods: Iterable[Period]) -> Sums:
    """Return the sum of *periods*."""
    return lean(added(period.sums for period in periods))


def _day(start: int) -> str:
    return f"d{start // DAY * DAY}"


def _hour(start: int) -> str:
    return f"h{start}"


def _start_of(name: str) -> int | None:
    """Return the hour, or the day, in a row's name; `None` for a foreign name."""
    digits = name.partition("-")[0]
    if not (digits.isascii() and digits.isdecimal() and len(digits) < len(str(10**12))):
        return None
    start = int(digits)
    return start if start % HOUR == 0 else None


def _hours_of(day: int) -> range:
    return range(day, day + DAY, HOUR)


def _parsed(text: str) -> StoredSums | None:
    """Return a row; `None` for one of another version, or a damaged one: it is left as it is."""
    found = FORMAT.parse(text)
    if found is None:
        log.limited("history", "the history has a row that this version cannot read")
    return found
