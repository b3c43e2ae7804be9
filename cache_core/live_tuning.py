"""The tuning in force: loaded at the start, followed while the cache runs, changed by anybody.

What somebody tuned is in the store and beats what this process was started with. A lookup never
waits for any of this: it reads `LiveTuning.current`, which is swapped whole.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, TypeAlias

from cache_core.exceptions import BackendError, ConfigurationError, TuningConflict
from cache_core.intent_tuning import unflatten
from cache_core.logs import RateLimited
from cache_core.stores.base import KeyValueStore
from cache_core.tuning_edit import Edit, check_words, edit_of
from cache_core.tuning_layers import CHANGE, Layer, make_tuning
from cache_core.tuning_trail import Record, Trail, TuningChange, parse

__all__ = ["LiveTuning", "TuningChange", "TuningConflict"]

log = RateLimited(logging.getLogger("glasscache"))

POLL = 1.0
"""Seconds within which every replica has what the store has, whatever notices were lost."""

_ASK = POLL / 2
"""Seconds between two questions to the store: to ask, and to be answered, takes time, too."""

TUNED = "tuned"
"""The origin of what is in the store."""

_RECONNECT = 0.1
_RECONNECT_MOST = 1.0
_ATTEMPTS = 50
_CHUNK = 8
_REFUSED_KEPT = 1_000

Event: TypeAlias = Callable[[Literal["applied", "rejected"]], None]


class LiveTuning:
    """The tuning of one cache.

    Args:
        layers: Returns what this process was started with, weakest first.
        event: Told when another version came into force, and when one was refused.
        fleet: Returns the values that the running replicas report, as far as they agree.

    Attributes:
        current: The tuning in force.
        origins: Where each value came from, for those that are not at their defaults.
    """

    def __init__(
        self,
        layers: Callable[[], Sequence[Layer]],
        event: Event,
        fleet: Callable[[], Awaitable[Mapping[str, Any]]],
    ) -> None:
        self._layers = layers
        self._event = event
        self._fleet = fleet
        self._trail: Trail | None = None
        self._record: Record | None = None
        self._highest = 0
        self._refused: dict[str, str] = {}
        self._changing = asyncio.Lock()
        self._tasks: list[asyncio.Task[None]] = []
        self._deaf: str | None = None
        self.rebase()

    # ------------------------------------------------------------------------------ life

    def rebase(self) -> None:
        """Ask again what this process was started with; nothing counts as tuned until `load`.

        Raises:
            ConfigurationError: For a value that is out of bounds.
        """
        base = tuple(self._layers())
        self.current, self.origins = make_tuning(*base)
        self._base, self._record, self._highest = base, None, 0
        self._loaded = False

    async def stand_in(self) -> None:
        """Go by what the replicas report, where nobody tuned; see `MultiLevelCache`."""
        seen = ("the replicas", unflatten(await self._fleet()))
        self._base = (*self._layers(), seen)
        tuned = () if self._record is None else ((TUNED, unflatten(self._record.tuned)),)
        version = self.current.version
        self.current, self.origins = make_tuning(*self._base, *tuned, version=version)

    async def load(self, store: KeyValueStore, key: str) -> None:
        """Put into force what somebody tuned.

        Args:
            store: Where that is.
            key: Its key.

        Raises:
            BackendError: If the store cannot tell.
        """
        # Made here, because a lock belongs to the loop that first waits for it.
        self._trail, self._changing = Trail(store, key), asyncio.Lock()
        await self.refresh()
        self._loaded = True

    def follow(self) -> None:
        """Begin to notice what others change; in no context, so that no span lasts for ever."""
        loop = asyncio.get_running_loop()
        self._tasks = [
            loop.create_task(
                work(), name=f"glasscache-tuning-{name}", context=contextvars.Context()
            )
            for name, work in (("poll", self._poll), ("listen", self._listen))
        ]

    async def close(self) -> None:
        """Stop following."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._trail = None

    def abandon(self) -> None:
        """Forget the tasks of a loop that has ended."""
        self._tasks, self._trail = [], None

    # ------------------------------------------------------------------------------ following

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(_ASK)
            with contextlib.suppress(BackendError):
                await self._refresh_safely()

    async def _listen(self) -> None:
        trail = self._on_store()
        pause = _RECONNECT
        while True:
            try:
                async with contextlib.aclosing(trail.store.listen(trail.key)) as news:  # type: ignore[type-var]
                    async for _ in news:
                        pause, self._deaf = _RECONNECT, None
                        await self._refresh_safely()
            except BackendError as error:
                self._say_deaf(error)
            # Replicas that lost the same server don't all come back in the same moment.
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(2 * pause, _RECONNECT_MOST)

    def _say_deaf(self, error: BackendError) -> None:
        if error.reason != "breaker_open" and error.error_type != self._deaf:
            self._deaf = error.error_type
            logging.getLogger("glasscache").info(
                "changes of the tuning are not announced here (%s): they are noticed by asking "
                "every %.1f s",
                error,
                _ASK,
            )

    async def _refresh_safely(self) -> None:
        try:
            await self.refresh()
        except BackendError:
            raise
        except Exception as error:  # noqa: BLE001 - the last good tuning stays in force
            log.limited("tuning", "tuning: unexpected %s: %s", type(error).__name__, error)

    async def refresh(self) -> None:
        """Put into force what the store has now.

        Raises:
            BackendError: If the store cannot tell.
        """
        async with self._changing:
            await self._refresh()

    async def _refresh(self) -> None:
        trail = self._on_store()
        (versions, strange), (stored,) = await asyncio.gather(
            trail.versions(), trail.texts([self.current.version])
        )
        for name in strange:
            self._refuse(name, "")
        self._highest = versions[-1] if versions else 0
        mine = self._record
        if mine is not None and self._highest == mine.change.version and stored == mine.text:
            return
        newest = await self._newest_good(trail, versions)
        if mine is not None and stored is None and _is_older(newest, mine):
            # The store lost what was tuned; whoever still knows it gives it back.
            if await trail.claim(mine):
                self._highest = max(self._highest, mine.change.version)
            return
        if newest is not None and (mine is None or newest.text != mine.text):
            self._apply(newest)

    async def _newest_good(self, trail: Trail, versions: Sequence[int]) -> Record | None:
        for end in range(len(versions), 0, -_CHUNK):
            chunk = versions[max(0, end - _CHUNK) : end][::-1]
            for version, text in zip(chunk, await trail.texts(chunk), strict=True):
                if text is None or self._refused.get(str(version)) == text:
                    continue
                record = parse(version, text)
                if record is not None:
                    return record
                self._refuse(str(version), text)
        return None

    def _refuse(self, name: str, text: str) -> None:
        if self._refused.get(name) == text:
            return
        if len(self._refused) >= _REFUSED_KEPT:
            self._refused.pop(next(iter(self._refused)))
        self._refused[name] = text
        self._event("rejected")
        log.limited(
            "tuning refused",
            "tuning: version %.20r in the store is not one, or has a value that is out of bounds: "
            "version %d stays in force. `glasscache tune` makes a good one",
            name,
            self.current.version,
        )

    def _apply(self, record: Record) -> None:
        layer = (TUNED, unflatten(record.tuned))
        version = record.change.version
        tuning, origins = make_tuning(*self._base, layer, version=version)
        self.current, self.origins, self._record = tuning, origins, record
        logging.getLogger("glasscache").info(
            "tuning version %d in force, by %s: %s",
            version,
            record.change.author,
            ", ".join(
                f"{name} no longer tuned" if value is None else f"{name}={value}"
                for name, value in record.change.after.items()
            ),
        )
        if self._loaded:
            self._event("applied")

    def _on_store(self) -> Trail:
        if self._trail is None:
            raise BackendError("backend_error", "StoreAway", "the store is not reached yet")
        return self._trail

    # ------------------------------------------------------------------------------ changing

    async def tune(
        self,
        changes: Mapping[str, Any],
        *,
        author: str,
        note: str = "",
        expected_version: int | None = None,
        dry_run: bool = False,
    ) -> TuningChange:
        """Change fields for all replicas; see `MultiLevelCache.tune`."""
        check_words(author, note)
        edit = edit_of(changes)
        return await self._change(edit, author, note, expected_version, None, dry_run=dry_run)

    async def revert(self, version: int, *, author: str, note: str = "") -> TuningChange:
        """Tune again exactly what was tuned as of *version*; see `MultiLevelCache`."""
        check_words(author, note)
        tuned = await self._tuned_at(version)
        return await self._change(lambda _: dict(tuned), author, note, None, version)

    async def history(self, limit: int) -> list[TuningChange]:
        """Return the newest changes, newest first."""
        return await self._on_store().last(limit)

    async def _tuned_at(self, version: int) -> Mapping[str, Any]:
        if version == 0:
            return {}
        text = (await self._on_store().texts([version]))[0] if version > 0 else None
        if text is None:
            raise ConfigurationError(
                f"version {version} is not in the audit trail; 0 is the state in which nothing "
                "is tuned"
            )
        record = parse(version, text)
        if record is None:
            raise ConfigurationError(f"version {version} cannot be read, or is out of bounds")
        return record.tuned

    async def _change(
        self,
        edit: Edit,
        author: str,
        note: str,
        expected: int | None,
        reverts: int | None,
        *,
        dry_run: bool = False,
    ) -> TuningChange:
        trail = self._on_store()
        seen = await self._fleet()
        for _ in range(_ATTEMPTS):
            async with self._changing:
                await self._refresh()
                if expected is not None and expected != self.current.version:
                    raise TuningConflict(expected, self.current.version)
                record = self._next(edit, author, note, reverts, seen)
                if not record.change.after:
                    return replace(record.change, version=self.current.version)
                if dry_run:
                    return record.change
                claimed = await trail.claim(record)
                if claimed:
                    self._highest = record.change.version
                    self._apply(record)
            if claimed:
                # Whoever misses the notice sees the change when it next asks.
                with contextlib.suppress(BackendError):
                    await trail.store.publish(trail.key)
                    await trail.trim((await trail.versions())[0])
                return record.change
            await asyncio.sleep(random.uniform(0, 0.02))
        raise TuningConflict(self.current.version, self._highest)

    def _next(
        self, edit: Edit, author: str, note: str, reverts: int | None, seen: Mapping[str, Any]
    ) -> Record:
        """Return the record of what *edit* makes of what is tuned now."""
        tuned = dict(self._record.tuned) if self._record is not None else {}
        wanted = edit(tuned)
        checked = make_tuning((CHANGE, unflatten(wanted)))[0].flat()
        wanted = {name: checked[name] for name in wanted}
        untuned = {**make_tuning(*self._base)[0].flat(), **seen}
        changed = [
            name for name in sorted({*tuned, *wanted}) if tuned.get(name) != wanted.get(name)
        ]
        change = TuningChange(
            version=max(self._highest, self.current.version) + 1,
            at=round(self._on_store().store.now(), 3),
            author=author,
            note=note,
            before={name: tuned.get(name, untuned.get(name)) for name in changed},
            after={name: wanted.get(name) for name in changed},
            reverts=reverts,
        )
        return Record(change, wanted)


def _is_older(newest: Record | None, mine: Record) -> bool:
    return newest is None or newest.change.at < mine.change.at
